//! Errors of the forked child: which step failed, and why. They travel to the shim as text.

use std::fmt;

/// A failed step of a process start.
#[derive(Debug)]
pub(super) struct StepError(pub(super) String);

impl fmt::Display for StepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

pub(super) type Step<T> = Result<T, StepError>;

/// Names the step that a result belongs to.
pub(super) trait InStep<T> {
    fn in_step(self, step: impl FnOnce() -> String) -> Step<T>;
}

impl<T, E: fmt::Display> InStep<T> for Result<T, E> {
    fn in_step(self, step: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|error| StepError(format!("{}: {error}", step())))
    }
}

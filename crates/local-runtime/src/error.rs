//! What can go wrong when sandboxes and containers are handled.

use std::io;
use std::path::PathBuf;

use crate::image::ImageError;

/// An operation on a sandbox or container that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The sandbox is not known here.
    #[error("sandbox {0} is not known")]
    SandboxNotFound(String),
    /// The container is not known here.
    #[error("container {0} is not known")]
    ContainerNotFound(String),
    /// The container is not in the state that the operation needs.
    #[error("container {container} is {actual}; {operation} needs it {needed}")]
    WrongState {
        /// The container.
        container: String,
        /// What was attempted.
        operation: &'static str,
        /// The state it would have needed.
        needed: &'static str,
        /// The state it is in.
        actual: String,
    },
    /// The specification cannot be run; `field` names the offender.
    #[error("{field} of {object}: {reason}")]
    Invalid {
        /// The sandbox, container or mount.
        object: String,
        /// The field's path.
        field: String,
        /// Why it is refused.
        reason: String,
    },
    /// The container's process could not be started; the text says which step failed and why.
    #[error("start container {container}: {reason}")]
    Start {
        /// The container.
        container: String,
        /// The failing step and its cause.
        reason: String,
    },
    /// The image could not be used.
    #[error("image of container {container}")]
    Image {
        /// The container.
        container: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// The sandbox's shim refused or failed.
    #[error("shim of sandbox {sandbox}: {reason}")]
    Shim {
        /// The sandbox.
        sandbox: String,
        /// What it answered.
        reason: String,
    },
    /// The shim has ended; the sandbox's containers are gone.
    #[error("shim of sandbox {0} is gone; remove the sandbox and create it again")]
    ShimGone(String),
    /// An operation took longer than its limit.
    #[error("{operation} on {object} did not finish within {limit_ms} ms")]
    Timeout {
        /// What was attempted.
        operation: &'static str,
        /// On which object.
        object: String,
        /// The limit.
        limit_ms: u128,
    },
    /// The host lacks something containers need.
    #[error("this host cannot run containers: {what}; {remedy}")]
    Host {
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A file operation failed.
    #[error("{action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Several parts of a removal failed; the others were done.
    #[error("remove {object}: {}", reasons.join("; "))]
    Incomplete {
        /// The sandbox or cluster.
        object: String,
        /// One text a failed part.
        reasons: Vec<String>,
    },
}

impl RuntimeError {
    /// Builds a function for `map_err` on a file operation.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// True when the object that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::SandboxNotFound(_) | Self::ContainerNotFound(_))
    }
}

//! Container identifiers: `<sandbox>/<name>/<attempt>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names one attempt of one container in one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId {
    sandbox: String,
    name: String,
    attempt: u32,
}

/// The longest sandbox identifier or container name; both become directory names.
const NAME_LENGTH_MAX: usize = 200;

/// True when `name` can safely be one directory name.
pub(crate) fn is_safe_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl ContainerId {
    /// The identifier of an attempt; names are checked when the container is created.
    pub fn new(sandbox: impl Into<String>, name: impl Into<String>, attempt: u32) -> Self {
        Self {
            sandbox: sandbox.into(),
            name: name.into(),
            attempt,
        }
    }

    /// The sandbox's identifier.
    pub fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The attempt, 0 for the first start.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The directory and cgroup name below the sandbox's.
    pub(crate) fn directory_name(&self) -> String {
        format!("{}.{}", self.name, self.attempt)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.sandbox, self.name, self.attempt)
    }
}

/// A text that is no container identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <sandbox>/<container>/<attempt>")]
pub struct ParseContainerIdError(String);

impl FromStr for ContainerId {
    type Err = ParseContainerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseContainerIdError(text.to_owned());
        let mut parts = text.split('/');
        let (Some(sandbox), Some(name), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        if !is_safe_name(sandbox) || !is_safe_name(name) {
            return Err(wrong());
        }
        let attempt = attempt.parse().map_err(|_| wrong())?;
        Ok(Self::new(sandbox, name, attempt))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = ParseContainerIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_survives_its_text_form() {
        let id = ContainerId::new("pod-1", "web", 3);
        assert_eq!(id.to_string().parse::<ContainerId>().unwrap(), id);
    }

    #[test]
    fn texts_that_escape_a_directory_are_refused() {
        for text in [
            "", "a/b", "a/b/c", "../b/0", "a/../0", "a/b/0/1", "/b/0", "a/b/-1",
        ] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }
}

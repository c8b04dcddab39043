//! Errors of the log service: a documented code, its HTTP status, a sentence.

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// A parameter, a header or the query is not acceptable.
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, "ParameterInvalid", message)
    }

    pub(super) fn no_project(name: &str) -> Self {
        let message = format!("The project does not exist: {name}; create it first");
        Self::new(404, "ProjectNotExist", message)
    }

    pub(super) fn no_logstore(name: &str) -> Self {
        let message = format!("logstore {name} does not exist");
        Self::new(404, "LogStoreNotExist", message)
    }

    /// Our own side failed.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "log service failed");
        Self::new(
            500,
            "InternalServerError",
            "the log service could not read or write its records",
        )
    }
}

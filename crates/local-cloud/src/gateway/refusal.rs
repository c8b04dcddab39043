//! Errors as the service reports them: a documented code, its HTTP status, a sentence.

use cloud_api::unflatten::ParameterError;

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) http_status: u16,
    pub(crate) message: String,
    /// When the next call may go through.
    pub(crate) retry_after_ms: Option<u64>,
    /// Who lacks which right.
    pub(crate) access_denied: Option<Box<AccessDenied>>,
}

/// Who lacks which right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessDenied {
    pub(crate) user: String,
    pub(crate) action: String,
    pub(crate) resource: String,
}

impl Refusal {
    pub(crate) fn new(
        http_status: u16,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            http_status,
            message: message.into(),
            retry_after_ms: None,
            access_denied: None,
        }
    }

    /// A user lacks a right.
    pub(crate) fn forbidden(denied: AccessDenied) -> Self {
        let message = format!(
            "User {} is not authorized to do {} on {}; give it a policy that allows that.",
            denied.user, denied.action, denied.resource
        );
        Self {
            access_denied: Some(Box::new(denied)),
            ..Self::new(403, "Forbidden.RAM", message)
        }
    }

    /// A mandatory parameter is absent.
    pub(crate) fn missing(parameter: &str) -> Self {
        let message = format!("The mandatory parameter \"{parameter}\" is missing.");
        Self::new(400, "MissingParameter", message)
    }

    /// A value is not acceptable.
    pub(crate) fn invalid(parameter: &str, reason: impl AsRef<str>) -> Self {
        let message = format!(
            "The parameter \"{parameter}\" is not valid: {}.",
            reason.as_ref()
        );
        Self::new(400, "InvalidParameter", message)
    }

    /// A parameter that this cloud does not offer.
    pub(crate) fn unsupported(parameter: &str, reason: &str) -> Self {
        let message = format!("The parameter \"{parameter}\" is not supported here: {reason}.");
        Self::new(400, "UnsupportedParameter", message)
    }

    /// The group is not there (any more).
    pub(crate) fn no_group(id: &str) -> Self {
        Self::new(
            404,
            "ContainerGroupNotFound",
            format!("The container group {id} does not exist."),
        )
    }

    /// What an update asks for is so already.
    pub(crate) fn no_need_update() -> Self {
        Self::new(400, "NoNeedUpdate", "The update changes nothing.")
    }

    /// The group is in a status in which this cannot be done.
    pub(crate) fn wrong_status(id: &str, status: &str, wanted: &str) -> Self {
        let message = format!("The container group {id} is {status}; this needs {wanted}.");
        Self::new(400, "IncorrectStatus", message)
    }

    /// Something of our own went wrong.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Self {
        match &error {
            ParameterError::Invalid { name, expected } => {
                Self::invalid(name, format!("it must be {expected}"))
            }
            ParameterError::Duplicate { name } => Self::invalid(name, "it is given twice"),
            ParameterError::TooDeep { name } => Self::invalid(name, "it is nested too deeply"),
        }
    }
}

impl From<crate::shared::StoreFailed> for Refusal {
    fn from(error: crate::shared::StoreFailed) -> Self {
        Self::internal(error.to_string())
    }
}

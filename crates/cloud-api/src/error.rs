//! What can go wrong with a call, and what a caller may conclude from it.

use std::error::Error as StdError;
use std::time::Duration;

/// An error of the service, as it reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// The action that was refused.
    pub action: &'static str,
    /// The documented error code.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// Names the call in the service's logs.
    pub request_id: String,
    /// The HTTP status.
    pub http_status: u16,
    /// How long the service asked to wait before the next call.
    pub retry_after: Option<Duration>,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EciError {
    /// The service refused.
    #[error("{} was refused with {} (http {}, request {}): {}", .0.action, .0.code, .0.http_status, .0.request_id, .0.message)]
    Service(Box<ServiceError>),
    /// The request or its answer was lost on the way.
    #[error("{action} did not reach the service or its answer was lost")]
    Transport {
        /// The action.
        action: &'static str,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No answer in time.
    #[error("{action} got no answer within {seconds} s")]
    Timeout {
        /// The action.
        action: &'static str,
        /// The limit.
        seconds: f64,
    },
    /// An answer that is not the documented one.
    #[error("the answer to {action} (http {http_status}) cannot be read")]
    Answer {
        /// The action.
        action: &'static str,
        /// The HTTP status.
        http_status: u16,
        /// The cause.
        source: serde_json::Error,
    },
    /// The request cannot be written down.
    #[error("the request for {action} cannot be built")]
    Request {
        /// The action.
        action: &'static str,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Our own limiter would have had to hold the call back for too long.
    #[error("{action} is over its documented call limit; the next call is free in {seconds:.0} s")]
    HeldBack {
        /// The action.
        action: &'static str,
        /// How long the wait would have been.
        seconds: f64,
    },
    /// The service keeps sending pages.
    #[error("{action} did not come to a last page")]
    Endless {
        /// The action.
        action: &'static str,
    },
}

impl EciError {
    /// The service's error, when it is one.
    pub fn service(&self) -> Option<&ServiceError> {
        match self {
            Self::Service(error) => Some(error),
            _ => None,
        }
    }

    /// The service's error code, or nothing.
    pub fn code(&self) -> &str {
        self.service().map_or("", |error| error.code.as_str())
    }

    /// The service's id of the call, or nothing.
    pub fn request_id(&self) -> &str {
        self.service().map_or("", |error| error.request_id.as_str())
    }

    /// Too many calls; the same one may succeed later.
    pub fn is_throttling(&self) -> bool {
        match self {
            Self::Service(error) => {
                let throttled = matches!(
                    error.code.as_str(),
                    "Throttling" | "Throttling.User" | "Throttling.Api"
                );
                throttled || error.http_status == 429
            }
            Self::HeldBack { .. } => true,
            _ => false,
        }
    }

    /// The zone has nothing of this size; another zone may.
    pub fn is_out_of_stock(&self) -> bool {
        matches!(
            self.code(),
            "OperationDenied.NoStock"
                | "Zone.NotOnSale"
                | "Spot.NotMatched"
                | "RecommendEmpty.InstanceTypeFamilyNotMatched"
        )
    }

    /// Nobody sells this size, in no zone; another size may do.
    pub fn is_size_not_sold(&self) -> bool {
        matches!(
            self.code(),
            "InvalidParameter.CPU.Memory" | "InvalidParam.CpuOrMemorySpec"
        )
    }

    /// The vSwitch has no free address; another one may.
    pub fn is_address_exhausted(&self) -> bool {
        self.code() == "InvalidVSwitchId.IpNotEnough"
    }

    /// The account may not hold more; no zone helps.
    pub fn is_quota_exceeded(&self) -> bool {
        matches!(self.code(), "QuotaExceeded" | "Throttling.Vcpu.PerDay")
    }

    /// The key, the signature or the rights are wrong; repeating does not help.
    pub fn is_permission(&self) -> bool {
        let code = self.code();
        code.starts_with("Forbidden")
            || code.starts_with("InvalidAccessKey")
            || matches!(
                code,
                "SignatureDoesNotMatch" | "NoPermission" | "IncompleteSignature"
            )
    }

    /// The group does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.code(),
            "ContainerGroupNotFound" | "InvalidParameter.NotFound"
        )
    }

    /// The client token was used before, for something else.
    pub fn is_token_conflict(&self) -> bool {
        self.code() == "IdempotentParameterMismatch"
    }

    /// The same call may succeed when repeated (if it is safe to repeat).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Service(error) => {
                self.is_throttling()
                    || error.http_status >= 500
                    || error.code == "SignatureNonceUsed"
            }
            Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Answer { http_status, .. } => *http_status >= 500,
            Self::Request { .. } | Self::HeldBack { .. } | Self::Endless { .. } => false,
        }
    }

    /// The call may have taken effect although there is no answer: look before repeating without a client token.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Service(error) => error.http_status >= 500,
            Self::Transport { .. } | Self::Timeout { .. } | Self::Answer { .. } => true,
            Self::Request { .. } | Self::HeldBack { .. } | Self::Endless { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(code: &str, http_status: u16) -> EciError {
        EciError::Service(Box::new(ServiceError {
            action: "CreateContainerGroup",
            code: code.to_owned(),
            message: "no".to_owned(),
            request_id: "ID".to_owned(),
            http_status,
            retry_after: None,
        }))
    }

    #[test]
    fn codes_lead_to_the_right_conclusion() {
        assert!(service("OperationDenied.NoStock", 403).is_out_of_stock());
        assert!(service("InvalidVSwitchId.IpNotEnough", 403).is_address_exhausted());
        assert!(service("Throttling.User", 400).is_throttling());
        assert!(service("Throttling.User", 400).is_retryable());
        assert!(!service("Throttling.Vcpu.PerDay", 403).is_throttling());
        assert!(service("QuotaExceeded", 403).is_quota_exceeded());
        assert!(service("InternalError", 500).is_retryable());
        assert!(service("InternalError", 500).is_outcome_unknown());
        assert!(!service("InvalidParameter", 400).is_retryable());
        assert!(service("SignatureDoesNotMatch", 400).is_permission());
    }

    #[test]
    fn the_sentence_names_action_code_and_request() {
        let sentence = service("QuotaExceeded", 403).to_string();
        assert_eq!(
            sentence,
            "CreateContainerGroup was refused with QuotaExceeded (http 403, request ID): no"
        );
    }
}

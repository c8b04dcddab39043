//! The two request signatures of the interface, each for signing and for verifying.

pub mod v1;
pub mod v3;

use std::fmt;

/// An access key. The secret never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub access_key_secret: String,
    /// Comes with temporary credentials.
    pub security_token: Option<String>,
}

impl Credentials {
    /// A permanent access key.
    pub fn new(access_key_id: impl Into<String>, access_key_secret: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            access_key_secret: access_key_secret.into(),
            security_token: None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Which signature a client puts on its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SignatureVersion {
    /// `HMAC-SHA1` over the parameters, as the oldest SDKs do.
    V1,
    /// `ACS3-HMAC-SHA256` over the request, the default of today's SDKs.
    #[default]
    V3,
}

/// Why a signature was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// The signature or its surroundings are not in the documented form.
    #[error("the signature is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Well-formed, but not what the secret gives.
    #[error("the signature does not match")]
    Mismatch {
        /// What the verifier signed.
        string_to_sign: String,
    },
}

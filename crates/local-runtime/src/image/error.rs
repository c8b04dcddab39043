//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

/// An operation on an image that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The text is no image reference.
    #[error("image reference {reference:?}: {reason}")]
    InvalidReference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not in the store, and the policy forbids asking a registry.
    #[error("image {0} is not in the local store")]
    NotPresent(String),
    /// The registry has no such repository, tag or digest.
    #[error("image {0} was not found in its registry")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("image {reference}: the registry refused access: {reason}")]
    Unauthorized {
        /// The image.
        reference: String,
        /// What it answered.
        reason: String,
    },
    /// The registry cannot be reached.
    #[error("image {reference}: registry {registry} cannot be reached: {reason}")]
    Unreachable {
        /// The image.
        reference: String,
        /// Host and port.
        registry: String,
        /// Why.
        reason: String,
    },
    /// The registry answered something unexpected.
    #[error("image {reference}: the registry answered unexpectedly: {reason}")]
    Registry {
        /// The image.
        reference: String,
        /// What it answered.
        reason: String,
    },
    /// The archive or downloaded content is damaged, dangerous or of an unknown kind.
    #[error("{source_name} is not a usable image: {reason}")]
    Corrupt {
        /// Archive or image.
        source_name: String,
        /// What is wrong.
        reason: String,
    },
    /// A container still uses the image.
    #[error("image {reference} is used by container {container}")]
    InUse {
        /// The image.
        reference: String,
        /// One of its users.
        container: String,
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
}

impl ImageError {
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
}

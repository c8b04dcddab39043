//! Images: a content-addressed store filled from archives, registries or files.

mod error;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use error::ImageError;

/// What an image says about the processes it is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub command: Vec<String>,
    /// Working directory, empty for `/`.
    pub working_dir: String,
    /// `user[:group]`, names or numbers, empty for root.
    pub user: String,
    /// For example `SIGTERM`, empty when not said.
    pub stop_signal: String,
    /// Free labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// One image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Full references with tag, for example `docker.io/library/nginx:1.27`.
    pub tags: Vec<String>,
    /// Full references with manifest digest.
    pub digests: Vec<String>,
    /// Unpacked size.
    pub size_bytes: u64,
    /// When it came into the store.
    pub created_at: Timestamp,
    /// Its configuration.
    pub config: ImageConfig,
    /// `sha256:…` of each uncompressed layer, lowest first.
    pub layers: Vec<String>,
}

/// Where one layer of an image made here comes from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// A directory whose content becomes the layer; owners become root.
    Directory(PathBuf),
    /// Single files: path in the image, host file, permission bits.
    Files(Vec<(String, PathBuf, u32)>),
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time; unchanged layers are not fetched again.
    Always,
    /// Only when the reference is not in the store.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Who asks the registry. `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// User name and password.
    Basic {
        /// The user.
        username: String,
        /// The secret.
        password: String,
    },
    /// An identity token to be exchanged at the registry's token service.
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => formatter
                .debug_struct("Basic")
                .field("username", username)
                .finish_non_exhaustive(),
            Self::IdentityToken(_) => formatter.debug_tuple("IdentityToken").finish(),
        }
    }
}

/// How far a pull has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers of the image.
    pub layers_total: usize,
    /// Layers that are unpacked.
    pub layers_done: usize,
    /// Compressed bytes of the layers that have to be fetched.
    pub bytes_total: u64,
    /// Compressed bytes that have come.
    pub bytes_done: u64,
}

/// Told about progress; must return quickly.
pub type ProgressCallback = Arc<dyn Fn(PullProgress) + Send + Sync>;

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Who asks; anonymous when absent.
    pub credentials: Option<Credentials>,
    /// Told about progress.
    pub progress: Option<ProgressCallback>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// `host[:port]` of registries that speak plain HTTP; loopback addresses always may.
    pub plain_http: Vec<String>,
    /// PEM files with certificate authorities beyond the system's.
    pub extra_ca_files: Vec<PathBuf>,
}

/// The store. Clones share it; several processes may use one directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    directory: PathBuf,
}

impl ImageStore {
    /// Opens or creates the store below a runtime's state directory (`<state_dir>/images`).
    pub async fn open(state_dir: &Path) -> Result<Self, ImageError> {
        Ok(Self {
            directory: state_dir.join("images"),
        })
    }

    /// The same store with other registry settings.
    pub fn with_registry_config(self, config: RegistryConfig) -> Self {
        let _ = config;
        self
    }

    /// Loads an OCI layout or `docker save` archive, plain or gzip; gives the images in it.
    pub async fn load(&self, archive: &Path) -> Result<Vec<ImageInfo>, ImageError> {
        Err(ImageError::not_built(archive.display()))
    }

    /// Makes sure the image is here, fetching it from its registry as the policy says.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
    ) -> Result<ImageInfo, ImageError> {
        let _ = options;
        Err(ImageError::not_built(reference))
    }

    /// Makes an image from local files.
    pub async fn import_image(
        &self,
        reference: &str,
        config: ImageConfig,
        layers: Vec<LayerSource>,
    ) -> Result<ImageInfo, ImageError> {
        let _ = (config, layers, &self.directory);
        Err(ImageError::not_built(reference))
    }

    /// All images, oldest first.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(Vec::new())
    }

    /// The image a reference or identifier means, if it is here.
    pub async fn find(&self, reference: &str) -> Result<Option<ImageInfo>, ImageError> {
        let _ = reference;
        Ok(None)
    }

    /// Forgets a reference; the last one takes the image with it. Refused while a container uses the image.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        Err(ImageError::not_built(reference))
    }
}

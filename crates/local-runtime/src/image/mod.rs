//! Images: a content-addressed store filled from archives, registries or files.

mod archive;
mod build;
mod challenge;
mod digest;
mod error;
mod http;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod tar_entries;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use error::ImageError;

use crate::keyed_locks::KeyedLocks;
use reference::Reference;
use store::Store;

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
    store: Arc<Store>,
    registries: Arc<RegistryConfig>,
    /// The same image is pulled once at a time.
    pulls: Arc<KeyedLocks>,
}

impl ImageStore {
    /// Opens or creates the store below a runtime's state directory (`<state_dir>/images`).
    pub async fn open(state_dir: &Path) -> Result<Self, ImageError> {
        let state_dir = state_dir.to_path_buf();
        let store = blocking(move || Store::open(&state_dir)).await?;
        Ok(Self {
            store: Arc::new(store),
            registries: Arc::default(),
            pulls: Arc::default(),
        })
    }

    /// The same store with other registry settings.
    pub fn with_registry_config(self, config: RegistryConfig) -> Self {
        Self {
            registries: Arc::new(config),
            ..self
        }
    }

    /// Loads an OCI layout or `docker save` archive, plain or gzip; gives the images in it.
    pub async fn load(&self, archive: &Path) -> Result<Vec<ImageInfo>, ImageError> {
        let (store, archive) = (self.store.clone(), archive.to_path_buf());
        blocking(move || archive::load(&store, &archive)).await
    }

    /// Makes sure the image is here, fetching it from its registry as the policy says.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
    ) -> Result<ImageInfo, ImageError> {
        let parsed: Reference = reference.parse()?;
        let present = || self.store.find(reference);
        match options.policy {
            PullPolicy::Never => {
                return present()?.ok_or_else(|| ImageError::NotPresent(parsed.canonical()));
            }
            PullPolicy::IfNotPresent => {
                if let Some(image) = present()? {
                    return Ok(image);
                }
            }
            PullPolicy::Always => {}
        }
        let _guard = self.pulls.lock(&parsed.canonical()).await;
        if options.policy == PullPolicy::IfNotPresent
            && let Some(image) = present()?
        {
            return Ok(image);
        }
        pull::pull(&self.store, &self.registries, &parsed, &options).await
    }

    /// Makes an image from local files.
    pub async fn import_image(
        &self,
        reference: &str,
        config: ImageConfig,
        layers: Vec<LayerSource>,
    ) -> Result<ImageInfo, ImageError> {
        let (store, reference) = (self.store.clone(), reference.parse::<Reference>()?);
        blocking(move || build::import(&store, &reference, config, &layers)).await
    }

    /// All images, oldest first.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.store.list()
    }

    /// The image a reference or identifier means, if it is here.
    pub async fn find(&self, reference: &str) -> Result<Option<ImageInfo>, ImageError> {
        self.store.find(reference)
    }

    /// Forgets a reference; the last one takes the image with it. Refused while a container uses the image.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let (store, reference) = (self.store.clone(), reference.to_owned());
        blocking(move || store.remove(&reference)).await
    }

    /// Holds the unpacked layers.
    pub(crate) fn layers_root(&self) -> PathBuf {
        self.store.layers_root()
    }

    /// Names of an image's layers below [`Self::layers_root`], topmost first.
    pub(crate) fn layer_names(&self, image: &ImageInfo) -> Vec<String> {
        let mut names = store::layer_names(image);
        names.reverse();
        // The same layer twice shows nothing new, and overlay refuses it.
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

/// Runs file work where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ImageError::Corrupt {
            source_name: "image work".to_owned(),
            reason: error.to_string(),
        }),
    }
}

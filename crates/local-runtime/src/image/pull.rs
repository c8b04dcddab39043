//! Fetching an image: manifest, configuration, and the layers that are not here yet, a few at a time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use tokio::io::AsyncWriteExt;

use super::digest::{Digest, HashingReader};
use super::error::ImageError;
use super::http::{next_piece, read_all};
use super::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, LAYERS_MAX, OCI_INDEX, OCI_MANIFEST,
    architecture, select,
};
use super::reference::Reference;
use super::registry::Repository;
use super::store::{PreparedImage, PreparedLayer, Store, Workspace, read_configuration};
use super::{ImageInfo, ProgressCallback, PullOptions, PullProgress, RegistryConfig, blocking};

/// A manifest, index or configuration.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// One compressed layer.
const LAYER_BYTES_MAX: u64 = 16 << 30;
/// Layers fetched and unpacked side by side.
const PARALLEL_LAYERS: usize = 3;
/// A download that breaks off goes on where it was, so many times.
const RESUMES_MAX: u32 = 5;
/// Progress is told in steps of so many bytes.
const PROGRESS_STEP_BYTES: u64 = 256 << 10;

struct Pull<'a> {
    store: &'a Arc<Store>,
    reference: &'a Reference,
    repository: Repository<'a>,
    workspace: Arc<Workspace>,
    progress: Progress,
}

pub(super) async fn pull(
    store: &Arc<Store>,
    registries: &RegistryConfig,
    reference: &Reference,
    options: &PullOptions,
) -> Result<ImageInfo, ImageError> {
    let own_store = store.clone();
    let workspace = blocking(move || own_store.workspace()).await?;
    let pull = Pull {
        store,
        reference,
        repository: Repository::new(reference, options.credentials.as_ref(), registries),
        workspace: Arc::new(workspace),
        progress: Progress::new(options.progress.clone()),
    };
    pull.run().await
}

impl Pull<'_> {
    async fn run(&self) -> Result<ImageInfo, ImageError> {
        let (top_digest, manifest) = self.manifest().await?;
        let (Some(config), Some(layers)) = (&manifest.config, &manifest.layers) else {
            return Err(self.corrupt("its manifest is of a kind that is not supported"));
        };
        let configuration = self.configuration(config).await?;
        let parsed = read_configuration(&configuration, &self.reference.canonical())?;
        let wanted = &parsed.rootfs.diff_ids;
        if wanted.len() != layers.len() || layers.len() > LAYERS_MAX {
            return Err(self.corrupt(&format!(
                "its manifest has {} layers, its configuration {}",
                layers.len(),
                wanted.len()
            )));
        }
        let missing = layers
            .iter()
            .zip(wanted)
            .filter(|(_, digest)| self.store.present_layer(digest).is_none());
        let (count, bytes) = missing.fold((0, 0), |(count, bytes), (layer, _)| {
            (count + 1, bytes + layer.size)
        });
        self.progress
            .begin(layers.len(), layers.len() - count, bytes);
        // Collected, because a stream over the closure itself is not `Send` for every caller.
        let work: Vec<_> = layers
            .iter()
            .zip(wanted)
            .map(|(layer, digest)| self.layer(layer, digest))
            .collect();
        let prepared: Vec<PreparedLayer> = futures::stream::iter(work)
            .buffered(PARALLEL_LAYERS)
            .try_collect()
            .await?;
        let tags = match &self.reference.digest {
            Some(_) => Vec::new(),
            None => vec![self.reference.canonical()],
        };
        let digests = vec![format!("{}@{top_digest}", self.reference.name())];
        let image = PreparedImage {
            config: parsed.image_config(),
            configuration,
            layers: prepared,
            tags,
            digests,
        };
        let (store, workspace) = (self.store.clone(), self.workspace.clone());
        let info = blocking(move || {
            let info = store.commit(image);
            drop(workspace);
            info
        })
        .await?;
        for layer in layers {
            // Unpacked now; fetching it again is all that a failure here could cost.
            let _ = std::fs::remove_file(self.download_path(&layer.digest));
        }
        Ok(info)
    }

    fn corrupt(&self, reason: &str) -> ImageError {
        ImageError::Corrupt {
            source_name: self.reference.canonical(),
            reason: reason.to_owned(),
        }
    }

    /// The manifest for this machine, and the digest of what the reference itself names.
    async fn manifest(&self) -> Result<(Digest, Document), ImageError> {
        let (digest, document) = self
            .document(&self.reference.selector(), self.reference.digest.as_ref())
            .await?;
        let Some(manifests) = &document.manifests else {
            return Ok((digest, document));
        };
        let chosen = select(manifests, architecture()).ok_or_else(|| {
            self.corrupt(&format!("it has no variant for linux/{}", architecture()))
        })?;
        let (_, document) = self
            .document(&chosen.digest.to_string(), Some(&chosen.digest))
            .await?;
        Ok((digest, document))
    }

    async fn document(
        &self,
        selector: &str,
        wanted: Option<&Digest>,
    ) -> Result<(Digest, Document), ImageError> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let answer = self
            .repository
            .get(&format!("manifests/{selector}"), &accept, None)
            .await?;
        let bytes = self.read_document(answer).await?;
        let digest = Digest::of(&bytes);
        if wanted.is_some_and(|wanted| *wanted != digest) {
            return Err(self.corrupt(&format!("the registry sent {digest} instead of {selector}")));
        }
        let document = serde_json::from_slice(&bytes)
            .map_err(|error| self.corrupt(&format!("its manifest: {error}")))?;
        Ok((digest, document))
    }

    async fn configuration(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let answer = self
            .repository
            .get(&format!("blobs/{}", descriptor.digest), "*/*", None)
            .await?;
        let bytes = self.read_document(answer).await?;
        let digest = Digest::of(&bytes);
        match digest == descriptor.digest {
            true => Ok(bytes),
            false => Err(self.corrupt(&format!(
                "its configuration is {digest} instead of {}",
                descriptor.digest
            ))),
        }
    }

    async fn read_document(&self, answer: super::http::Body) -> Result<Vec<u8>, ImageError> {
        let bytes = read_all(answer.into_body(), DOCUMENT_BYTES_MAX).await;
        bytes.map_err(|error| self.repository.registry_error(error.to_string()))
    }

    fn download_path(&self, digest: &Digest) -> PathBuf {
        self.store.downloads().join(digest.hex())
    }

    /// Fetches, checks and unpacks one layer, unless it is here.
    async fn layer(
        &self,
        descriptor: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PreparedLayer, ImageError> {
        if let Some(present) = self.store.present_layer(diff_id) {
            return Ok(present);
        }
        if descriptor.size > LAYER_BYTES_MAX {
            return Err(self.corrupt(&format!(
                "layer {} is larger than allowed",
                descriptor.digest
            )));
        }
        if descriptor.media_type.ends_with("+zstd") {
            return Err(self.corrupt("a layer is compressed with zstd, which is not supported"));
        }
        let path = self.download_path(&descriptor.digest);
        // Two pulls that share a layer, in this process or another, fetch it one after the other: the second finds it.
        let lock_path = path.clone();
        let file = blocking(move || open_locked(&lock_path)).await?;
        self.download(descriptor, &path, &file).await?;
        let (store, workspace, diff_id) =
            (self.store.clone(), self.workspace.clone(), diff_id.clone());
        let (digest, name) = (descriptor.digest.clone(), self.reference.canonical());
        let prepared = blocking(move || {
            check_digest(&path, &digest, &name)?;
            let prepared = store.prepare_layer(&workspace, &path, &diff_id, &name);
            drop(file);
            prepared
        });
        let prepared = prepared.await?;
        self.progress.layer_done();
        Ok(prepared)
    }

    /// Goes on until the whole layer is in the file.
    async fn download(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        file: &File,
    ) -> Result<(), ImageError> {
        let io_error = |error: io::Error| ImageError::Io {
            action: "write",
            path: path.to_path_buf(),
            source: error,
        };
        let mut have = file.metadata().map_err(io_error)?.len();
        if have > descriptor.size {
            file.set_len(0).map_err(io_error)?;
            have = 0;
        }
        self.progress.add(have);
        let mut tries = 0;
        while have < descriptor.size {
            let from = (have > 0).then_some(have);
            let answer = self
                .repository
                .get(&format!("blobs/{}", descriptor.digest), "*/*", from)
                .await?;
            if from.is_some() && !continues_at(&answer, have) {
                file.set_len(0).map_err(io_error)?;
                have = 0;
            }
            let before = have;
            let outcome = self.append(answer, descriptor, path, &mut have).await?;
            let Err(reason) = outcome else { continue };
            tries = if have > before { 1 } else { tries + 1 };
            if tries > RESUMES_MAX {
                return Err(self
                    .repository
                    .registry_error(format!("a layer breaks off again and again: {reason}")));
            }
        }
        Ok(())
    }

    /// Writes one answer's body. The inner error is the registry's and may pass; the outer one is ours.
    async fn append(
        &self,
        answer: super::http::Body,
        descriptor: &Descriptor,
        path: &Path,
        have: &mut u64,
    ) -> Result<Result<(), io::Error>, ImageError> {
        let opened = tokio::fs::OpenOptions::new().append(true).open(path).await;
        let mut file = opened.map_err(ImageError::io("open", path))?;
        let mut body = answer.into_body();
        let outcome = loop {
            let piece = match next_piece(&mut body).await {
                Ok(Some(piece)) => piece,
                Ok(None) if *have < descriptor.size => {
                    break Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if *have + piece.len() as u64 > descriptor.size {
                return Err(self.corrupt(&format!(
                    "layer {} is longer than its manifest says",
                    descriptor.digest
                )));
            }
            file.write_all(&piece)
                .await
                .map_err(ImageError::io("write", path))?;
            *have += piece.len() as u64;
            self.progress.add(piece.len() as u64);
        };
        file.flush().await.map_err(ImageError::io("write", path))?;
        Ok(outcome)
    }
}

/// Opens a download and keeps others off it.
fn open_locked(path: &Path) -> Result<File, ImageError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(ImageError::io("create", path))?;
    file.lock().map_err(ImageError::io("lock", path))?;
    // The one we waited for may have finished and taken the file away; then ours has no name any more.
    if path.exists() {
        return Ok(file);
    }
    drop(file);
    open_locked(path)
}

fn check_digest(path: &Path, wanted: &Digest, source_name: &str) -> Result<(), ImageError> {
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    let digest = HashingReader::new(file, LAYER_BYTES_MAX)
        .finish()
        .map_err(ImageError::io("read", path))?;
    if digest == *wanted {
        return Ok(());
    }
    // The next try begins anew.
    let _ = std::fs::remove_file(path);
    let reason = format!("the registry sent {digest} instead of layer {wanted}");
    Err(ImageError::Corrupt {
        source_name: source_name.to_owned(),
        reason,
    })
}

/// Whether the answer is the rest we asked for, and not everything again.
fn continues_at(answer: &super::http::Body, from: u64) -> bool {
    let range = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    answer.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

struct Progress {
    callback: Option<ProgressCallback>,
    state: Mutex<(PullProgress, u64)>,
}

impl Progress {
    fn new(callback: Option<ProgressCallback>) -> Self {
        let nothing = PullProgress {
            layers_total: 0,
            layers_done: 0,
            bytes_total: 0,
            bytes_done: 0,
        };
        Self {
            callback,
            state: Mutex::new((nothing, 0)),
        }
    }

    fn update(&self, change: impl FnOnce(&mut PullProgress), always: bool) {
        let Some(callback) = &self.callback else {
            return;
        };
        let told = {
            // The pair is whole between any two statements that hold the lock.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state.0);
            if !always && state.0.bytes_done < state.1 + PROGRESS_STEP_BYTES {
                return;
            }
            state.1 = state.0.bytes_done;
            state.0.clone()
        };
        callback(told);
    }

    fn begin(&self, layers_total: usize, layers_done: usize, bytes_total: u64) {
        self.update(
            |state| {
                *state = PullProgress {
                    layers_total,
                    layers_done,
                    bytes_total,
                    bytes_done: 0,
                }
            },
            true,
        );
    }

    fn add(&self, bytes: u64) {
        self.update(|state| state.bytes_done += bytes, false);
    }

    fn layer_done(&self) {
        self.update(|state| state.layers_done += 1, true);
    }
}

//! The store on disk: an index of images, their configurations, and unpacked layers by digest.
//!
//! Layers and images appear whole or not at all: everything is prepared in a workspace of its own and moved in at the end.
//! Several processes may use one store; changes are made under a file lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::ImageError;
use super::manifest::{Configuration, LAYERS_MAX};
use super::reference::Reference;
use super::unpack::{UnpackLimits, unpack};
use super::{ImageConfig, ImageInfo};
use crate::durable::{Durability, read_json, write_json};

const INDEX_VERSION: u32 = 1;
/// A shortened identifier must have this many digits.
const SHORT_ID_LENGTH_MIN: usize = 12;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Index {
    version: u32,
    images: BTreeMap<String, ImageInfo>,
}

/// What tells one version of the index file from another.
type Stamp = (u64, i64, i64, u64);

#[derive(Debug)]
pub(super) struct Store {
    state_dir: PathBuf,
    directory: PathBuf,
    cache: Mutex<Option<(Stamp, Arc<Index>)>>,
}

/// A layer's digest and size, beside its directory.
#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    digest: Digest,
    size_bytes: u64,
}

/// A layer that is ready to be moved in, or is there already.
#[derive(Debug)]
pub(super) struct PreparedLayer {
    digest: Digest,
    size_bytes: u64,
    /// `None`: the store has it.
    unpacked: Option<PathBuf>,
}

/// An image that is ready to be moved in.
pub(super) struct PreparedImage {
    pub(super) configuration: Vec<u8>,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<PreparedLayer>,
    pub(super) tags: Vec<String>,
    pub(super) digests: Vec<String>,
}

/// A directory for work in progress; it vanishes with this value, or with the next opening after a crash.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What stays is removed when the store is opened next.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

impl Store {
    pub(super) fn open(state_dir: &Path) -> Result<Self, ImageError> {
        let directory = state_dir.join("images");
        for name in ["layers", "configs", "work", "downloads"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(ImageError::io("create", path))?;
        }
        let store = Self {
            state_dir: state_dir.to_path_buf(),
            directory,
            cache: Mutex::default(),
        };
        let _guard = store.lock()?;
        store.index()?;
        store.remove_abandoned_work();
        store.remove_unused_layers()?;
        Ok(store)
    }

    pub(super) fn layers_root(&self) -> PathBuf {
        self.directory.join("layers")
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.directory.join("downloads")
    }

    fn index_path(&self) -> PathBuf {
        self.directory.join("index.json")
    }

    fn layer_record(&self, digest: &Digest) -> PathBuf {
        self.layers_root().join(format!("{}.json", digest.short()))
    }

    fn lock(&self) -> Result<File, ImageError> {
        let path = self.directory.join("lock");
        let file = File::create(&path).map_err(ImageError::io("create", &path))?;
        file.lock().map_err(ImageError::io("lock", path))?;
        Ok(file)
    }

    /// The index as it is now; read again only after it was changed.
    fn index(&self) -> Result<Arc<Index>, ImageError> {
        let path = self.index_path();
        let stamp = match fs::metadata(&path) {
            Ok(found) => (found.ino(), found.mtime(), found.mtime_nsec(), found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Arc::new(Index {
                    version: INDEX_VERSION,
                    images: BTreeMap::new(),
                }));
            }
            Err(source) => {
                return Err(ImageError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        // The cached pair is whole between any two statements that hold the lock.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, index)) = &*cache
            && *known == stamp
        {
            return Ok(index.clone());
        }
        let index: Index = read_json(&path).map_err(ImageError::io("read image index", &path))?;
        if index.version != INDEX_VERSION {
            let reason = format!(
                "it has version {}, this program knows {INDEX_VERSION}; use another data directory",
                index.version
            );
            return Err(ImageError::Corrupt {
                source_name: path.display().to_string(),
                reason,
            });
        }
        let index = Arc::new(index);
        *cache = Some((stamp, index.clone()));
        Ok(index)
    }

    fn write_index(&self, index: &Index) -> Result<(), ImageError> {
        let path = self.index_path();
        write_json(&path, index, Durability::Machine).map_err(ImageError::io("write", path))
    }

    /// A workspace whose owner is gone is nobody's.
    fn remove_abandoned_work(&self) {
        let Ok(entries) = fs::read_dir(self.directory.join("work")) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let lock_path = path.with_extension("lock");
            let abandoned = match File::open(&lock_path) {
                Ok(lock) => lock.try_lock().is_ok(),
                Err(_) => true,
            };
            if abandoned {
                let _ = fs::remove_dir_all(path.with_extension(""));
                let _ = fs::remove_file(lock_path);
            }
        }
    }

    /// Takes away layers that no image has: a crash between moving layers in and writing the index leaves such.
    fn remove_unused_layers(&self) -> Result<(), ImageError> {
        let index = self.index()?;
        let used: BTreeSet<String> = index.images.values().flat_map(layer_names).collect();
        let root = self.layers_root();
        let entries = fs::read_dir(&root).map_err(ImageError::io("list", &root))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path
                .file_stem()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if used.contains(&name) {
                continue;
            }
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(ImageError::io("remove unused layer", path))?;
        }
        Ok(())
    }

    pub(super) fn workspace(&self) -> Result<Workspace, ImageError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "{}-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed),
            Timestamp::now().as_nanosecond()
        );
        let path = self.directory.join("work").join(name);
        let lock_path = path.with_extension("lock");
        // Until it is locked it looks abandoned.
        let _guard = self.lock()?;
        let lock = File::create(&lock_path).map_err(ImageError::io("create", &lock_path))?;
        lock.try_lock().map_err(|error| ImageError::Io {
            action: "lock",
            path: lock_path.clone(),
            source: error.into(),
        })?;
        fs::create_dir(&path).map_err(ImageError::io("create", &path))?;
        Ok(Workspace {
            path,
            lock_path,
            _lock: lock,
        })
    }

    /// The layer if the store has it.
    pub(super) fn present_layer(&self, digest: &Digest) -> Option<PreparedLayer> {
        let record: LayerRecord = read_json(&self.layer_record(digest)).ok()?;
        let there = record.digest == *digest && self.layers_root().join(digest.short()).is_dir();
        there.then(|| PreparedLayer {
            digest: digest.clone(),
            size_bytes: record.size_bytes,
            unpacked: None,
        })
    }

    /// Unpacks a layer into the workspace and checks that it is the one that was meant.
    pub(super) fn prepare_layer(
        &self,
        workspace: &Workspace,
        archive: &Path,
        wanted: &Digest,
        source_name: &str,
    ) -> Result<PreparedLayer, ImageError> {
        if let Some(present) = self.present_layer(wanted) {
            return Ok(present);
        }
        let target = workspace.path.join(wanted.hex());
        fs::create_dir_all(&target).map_err(ImageError::io("create", &target))?;
        let file = File::open(archive).map_err(ImageError::io("open", archive))?;
        let corrupt = |reason: String| ImageError::Corrupt {
            source_name: source_name.to_owned(),
            reason,
        };
        let unpacked = unpack(file, &target, UnpackLimits::default())
            .map_err(|error| corrupt(format!("layer {wanted}: {error}")))?;
        if unpacked.digest != *wanted {
            return Err(corrupt(format!(
                "layer {wanted} has the content of {}",
                unpacked.digest
            )));
        }
        Ok(PreparedLayer {
            digest: wanted.clone(),
            size_bytes: unpacked.size_bytes,
            unpacked: Some(target),
        })
    }

    /// Moves a prepared image in and gives its tags to it alone.
    pub(super) fn commit(&self, image: PreparedImage) -> Result<ImageInfo, ImageError> {
        let _guard = self.lock()?;
        let id = Digest::of(&image.configuration);
        for layer in &image.layers {
            self.move_in(layer)?;
        }
        let path = self.directory.join("configs").join(id.hex());
        fs::write(&path, &image.configuration).map_err(ImageError::io("write", path))?;
        let mut index = Index::clone(&*self.index()?);
        for other in index.images.values_mut() {
            other.tags.retain(|tag| !image.tags.contains(tag));
        }
        let info = index
            .images
            .entry(id.to_string())
            .or_insert_with(|| ImageInfo {
                id: id.to_string(),
                tags: Vec::new(),
                digests: Vec::new(),
                size_bytes: image.layers.iter().map(|layer| layer.size_bytes).sum(),
                created_at: Timestamp::now(),
                config: image.config.clone(),
                layers: image
                    .layers
                    .iter()
                    .map(|layer| layer.digest.to_string())
                    .collect(),
            });
        info.tags.extend(image.tags);
        let known: BTreeSet<String> = info.digests.drain(..).chain(image.digests).collect();
        info.digests = known.into_iter().collect();
        let info = info.clone();
        self.write_index(&index)?;
        Ok(info)
    }

    fn move_in(&self, layer: &PreparedLayer) -> Result<(), ImageError> {
        if self.present_layer(&layer.digest).is_some() {
            return Ok(());
        }
        let vanished = || ImageError::Corrupt {
            source_name: layer.digest.to_string(),
            reason: "the layer was removed meanwhile; try again".to_owned(),
        };
        let source = layer
            .unpacked
            .as_ref()
            .filter(|path| path.is_dir())
            .ok_or_else(vanished)?;
        let target = self.layers_root().join(layer.digest.short());
        fs::rename(source, &target).map_err(ImageError::io("move layer to", target))?;
        let record = LayerRecord {
            digest: layer.digest.clone(),
            size_bytes: layer.size_bytes,
        };
        let path = self.layer_record(&layer.digest);
        write_json(&path, &record, Durability::Process).map_err(ImageError::io("write", path))
    }

    pub(super) fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let mut images: Vec<ImageInfo> = self.index()?.images.values().cloned().collect();
        images
            .sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        Ok(images)
    }

    pub(super) fn find(&self, text: &str) -> Result<Option<ImageInfo>, ImageError> {
        let index = self.index()?;
        Ok(find_in(&index, text)?.and_then(|id| index.images.get(&id).cloned()))
    }

    /// Forgets one name; the last one takes the image and its layers along.
    pub(super) fn remove(&self, text: &str) -> Result<(), ImageError> {
        let _guard = self.lock()?;
        let mut index = Index::clone(&*self.index()?);
        let id = find_in(&index, text)?.ok_or_else(|| ImageError::NotPresent(text.to_owned()))?;
        let Some(info) = index.images.get_mut(&id) else {
            return Err(ImageError::NotPresent(text.to_owned()));
        };
        if let Ok(reference) = text.parse::<Reference>() {
            info.tags.retain(|tag| *tag != reference.canonical());
        }
        let by_id = is_id(&id, text);
        if by_id || info.tags.is_empty() {
            if let Some(container) = self.user_of(&id) {
                return Err(ImageError::InUse {
                    reference: text.to_owned(),
                    container,
                });
            }
            index.images.remove(&id);
        }
        self.write_index(&index)?;
        if !index.images.contains_key(&id) {
            let config = id
                .parse::<Digest>()
                .map(|digest| self.directory.join("configs").join(digest.hex()));
            // Only a copy of what the index knows.
            let _ = config.map(fs::remove_file);
        }
        self.remove_unused_layers()
    }

    /// A container that was made from the image.
    fn user_of(&self, id: &str) -> Option<String> {
        let sandboxes = fs::read_dir(crate::layout::sandboxes(&self.state_dir)).ok()?;
        let containers = sandboxes
            .flatten()
            .filter_map(|sandbox| fs::read_dir(sandbox.path().join("containers")).ok());
        let mut users = containers
            .flatten()
            .flatten()
            .filter_map(|entry| crate::runtime::image_in_use(&entry.path()));
        users
            .find(|(image, _)| image == id)
            .map(|(_, container)| container)
    }
}

/// Names of an image's layer directories, lowest first.
pub(super) fn layer_names(image: &ImageInfo) -> Vec<String> {
    image
        .layers
        .iter()
        .filter_map(|layer| layer.parse::<Digest>().ok())
        .map(|digest| digest.short().to_owned())
        .collect()
}

fn is_id(id: &str, text: &str) -> bool {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    id == text || (text.len() >= SHORT_ID_LENGTH_MIN && hex.starts_with(text))
}

fn find_in(index: &Index, text: &str) -> Result<Option<String>, ImageError> {
    let canonical = text
        .parse::<Reference>()
        .map(|reference| reference.canonical());
    let named = |image: &&ImageInfo| match &canonical {
        Ok(canonical) => image.tags.contains(canonical) || image.digests.contains(canonical),
        Err(_) => false,
    };
    let found = index
        .images
        .values()
        .find(named)
        .or_else(|| index.images.values().find(|image| is_id(&image.id, text)));
    match (found, canonical) {
        (Some(image), _) => Ok(Some(image.id.clone())),
        (None, Err(error)) if !text.starts_with("sha256:") => Err(error),
        (None, _) => Ok(None),
    }
}

/// Reads an image's configuration document and checks what we rely on.
pub(super) fn read_configuration(
    bytes: &[u8],
    source_name: &str,
) -> Result<Configuration, ImageError> {
    let corrupt = |reason: String| ImageError::Corrupt {
        source_name: source_name.to_owned(),
        reason,
    };
    let configuration: Configuration = serde_json::from_slice(bytes)
        .map_err(|error| corrupt(format!("its configuration: {error}")))?;
    if configuration.rootfs.diff_ids.len() > LAYERS_MAX {
        return Err(corrupt(format!("it has more than {LAYERS_MAX} layers")));
    }
    Ok(configuration)
}

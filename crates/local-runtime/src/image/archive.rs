//! Loading images from archives: OCI layouts and what `docker save` writes, plain or gzip.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::ImageInfo;
use super::digest::{Digest, HashingReader};
use super::error::ImageError;
use super::manifest::{Descriptor, Document, SavedImage, architecture, select};
use super::reference::Reference;
use super::store::{PreparedImage, Store, Workspace, read_configuration};
use super::unpack::decompress;

/// Files of an archive.
const FILES_MAX: usize = 10_000;
/// All files of an archive together.
const BYTES_MAX: u64 = 64 << 30;
/// A manifest, index or configuration.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;

struct StoredFile {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// The files of an archive, copied to the workspace under numbers: their names are only looked up.
struct Contents {
    source_name: String,
    files: HashMap<String, StoredFile>,
    /// Old `docker save` archives link equal layers to each other.
    links: HashMap<String, String>,
}

/// Blocks.
pub(super) fn load(store: &Store, archive: &Path) -> Result<Vec<ImageInfo>, ImageError> {
    let workspace = store.workspace()?;
    let contents = Contents::read(archive, &workspace)?;
    let prepared = if contents.files.contains_key("manifest.json") {
        contents.prepare_saved(store, &workspace)?
    } else if contents.files.contains_key("index.json") {
        contents.prepare_layout(store, &workspace)?
    } else {
        return Err(contents.corrupt("it has neither manifest.json nor index.json"));
    };
    if prepared.is_empty() {
        return Err(contents.corrupt("it holds no image for this machine"));
    }
    prepared
        .into_iter()
        .map(|image| store.commit(image))
        .collect()
}

impl Contents {
    fn read(archive: &Path, workspace: &Workspace) -> Result<Self, ImageError> {
        let source_name = archive.display().to_string();
        let file = File::open(archive).map_err(ImageError::io("open", archive))?;
        let mut contents = Self {
            source_name,
            files: HashMap::new(),
            links: HashMap::new(),
        };
        contents
            .copy_from(file, workspace)
            .map_err(|error| contents.corrupt(error))?;
        Ok(contents)
    }

    fn copy_from(&mut self, file: File, workspace: &Workspace) -> io::Result<()> {
        let mut archive = Archive::new(decompress(file)?);
        let mut left = BYTES_MAX;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = plain_name(&entry.path_bytes());
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let path = workspace.path.join(format!("file-{}", self.files.len()));
                    let mut target = File::create(&path)?;
                    let mut reader = HashingReader::new(&mut entry, left);
                    let size = io::copy(&mut reader, &mut target)?;
                    left -= size;
                    self.files.insert(
                        name,
                        StoredFile {
                            path,
                            digest: reader.finish()?,
                            size,
                        },
                    );
                }
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    self.links
                        .insert(name.clone(), resolve_link(&name, &target));
                }
                _ => {}
            }
            if self.files.len() + self.links.len() > FILES_MAX {
                return Err(io::Error::other(format!(
                    "it has more than {FILES_MAX} files"
                )));
            }
        }
        Ok(())
    }

    fn corrupt(&self, reason: impl ToString) -> ImageError {
        ImageError::Corrupt {
            source_name: self.source_name.clone(),
            reason: reason.to_string(),
        }
    }

    fn file(&self, name: &str) -> Result<&StoredFile, ImageError> {
        let target = self.links.get(name).map_or(name, String::as_str);
        self.files
            .get(target)
            .ok_or_else(|| self.corrupt(format!("it lacks {name}")))
    }

    fn document(&self, file: &StoredFile, name: &str) -> Result<Vec<u8>, ImageError> {
        if file.size > DOCUMENT_BYTES_MAX {
            return Err(self.corrupt(format!("{name} is larger than allowed")));
        }
        fs::read(&file.path).map_err(ImageError::io("read", &file.path))
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        file: &StoredFile,
        name: &str,
    ) -> Result<T, ImageError> {
        let bytes = self.document(file, name)?;
        serde_json::from_slice(&bytes).map_err(|error| self.corrupt(format!("{name}: {error}")))
    }

    fn blob(&self, digest: &Digest) -> Result<&StoredFile, ImageError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let file = self.file(&name)?;
        match file.digest == *digest {
            true => Ok(file),
            false => Err(self.corrupt(format!("{name} has the content of {}", file.digest))),
        }
    }

    fn prepare_saved(
        &self,
        store: &Store,
        workspace: &Workspace,
    ) -> Result<Vec<PreparedImage>, ImageError> {
        let entries: Vec<SavedImage> = self.parse(self.file("manifest.json")?, "manifest.json")?;
        entries
            .iter()
            .map(|entry| self.prepare_saved_image(store, workspace, entry))
            .collect()
    }

    fn prepare_saved_image(
        &self,
        store: &Store,
        workspace: &Workspace,
        entry: &SavedImage,
    ) -> Result<PreparedImage, ImageError> {
        let config_name = plain_name(entry.config.as_bytes());
        let config = self.file(&config_name)?;
        // The configuration is named by its digest, and it names the layers by theirs.
        let hex = config_name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".json");
        if config.digest.hex() != hex {
            return Err(self.corrupt(format!(
                "{config_name} has the content of {}",
                config.digest
            )));
        }
        let layers: Result<Vec<&StoredFile>, ImageError> = entry
            .layers
            .iter()
            .map(|name| self.file(&plain_name(name.as_bytes())))
            .collect();
        let tags: Result<Vec<String>, ImageError> = entry
            .repo_tags
            .iter()
            .map(|tag| tag.parse::<Reference>().map(|tag| tag.canonical()))
            .collect();
        let bytes = self.document(config, &config_name)?;
        self.prepare_image(store, workspace, bytes, &layers?, (tags?, Vec::new()))
    }

    fn prepare_layout(
        &self,
        store: &Store,
        workspace: &Workspace,
    ) -> Result<Vec<PreparedImage>, ImageError> {
        let index: Document = self.parse(self.file("index.json")?, "index.json")?;
        let mut prepared = Vec::new();
        for descriptor in index.manifests.unwrap_or_default() {
            let name = layout_name(&descriptor.annotations);
            let manifest = self.manifest(&descriptor, 0)?;
            let Some(manifest) = manifest else { continue };
            let (Some(config), Some(layers)) = (&manifest.config, &manifest.layers) else {
                return Err(self.corrupt(format!(
                    "manifest {} names no configuration",
                    descriptor.digest
                )));
            };
            let layers: Result<Vec<&StoredFile>, ImageError> = layers
                .iter()
                .map(|layer| self.blob(&layer.digest))
                .collect();
            let bytes = self.document(self.blob(&config.digest)?, "the configuration")?;
            let names = match name {
                Some(reference) => {
                    let digests = vec![format!("{}@{}", reference.name(), descriptor.digest)];
                    (vec![reference.canonical()], digests)
                }
                None => (Vec::new(), Vec::new()),
            };
            prepared.push(self.prepare_image(store, workspace, bytes, &layers?, names)?);
        }
        Ok(prepared)
    }

    /// Follows indexes down to the manifest for this machine.
    fn manifest(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<Document>, ImageError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(self.corrupt("its indexes are nested too deeply"));
        }
        let document: Document = self.parse(self.blob(&descriptor.digest)?, "a manifest")?;
        match &document.manifests {
            None => Ok(Some(document)),
            Some(manifests) => match select(manifests, architecture()) {
                Some(chosen) => self.manifest(chosen, depth + 1),
                None => Ok(None),
            },
        }
    }

    fn prepare_image(
        &self,
        store: &Store,
        workspace: &Workspace,
        configuration: Vec<u8>,
        layers: &[&StoredFile],
        (tags, digests): (Vec<String>, Vec<String>),
    ) -> Result<PreparedImage, ImageError> {
        let parsed = read_configuration(&configuration, &self.source_name)?;
        let wanted = &parsed.rootfs.diff_ids;
        if wanted.len() != layers.len() {
            let text = format!(
                "it has {} layers, its configuration names {}",
                layers.len(),
                wanted.len()
            );
            return Err(self.corrupt(text));
        }
        let prepared: Result<Vec<_>, _> = layers
            .iter()
            .zip(wanted)
            .map(|(file, digest)| {
                store.prepare_layer(workspace, &file.path, digest, &self.source_name)
            })
            .collect();
        Ok(PreparedImage {
            config: parsed.image_config(),
            configuration,
            layers: prepared?,
            tags,
            digests,
        })
    }
}

/// The reference that a layout gives to a manifest, as containerd, docker and skopeo write it.
fn layout_name(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    let keys = [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ];
    // The second is often only a tag, which names nothing by itself.
    let named = |key: &str| {
        annotations
            .get(key)
            .filter(|name| key == keys[0] || name.contains(['/', ':']))
    };
    keys.into_iter()
        .filter_map(named)
        .find_map(|name| name.parse().ok())
}

/// A name without leading `./` and `/`.
fn plain_name(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    parts.join("/")
}

/// The archive file that a link means. It is only a name to look up; one that leads out finds nothing.
fn resolve_link(name: &str, target: &[u8]) -> String {
    let text = String::from_utf8_lossy(target).into_owned();
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_within_the_archive() {
        assert_eq!(
            resolve_link("b/layer.tar", b"../a/layer.tar"),
            "a/layer.tar"
        );
        assert_eq!(
            resolve_link("b/layer.tar", b"../../../etc/passwd"),
            "etc/passwd"
        );
        assert_eq!(plain_name(b"./blobs//sha256/x"), "blobs/sha256/x");
    }

    #[test]
    fn a_bare_tag_in_a_layout_names_nothing() {
        let annotations =
            |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(layout_name(&annotations("org.opencontainers.image.ref.name", "latest")).is_none());
        let named =
            layout_name(&annotations("org.opencontainers.image.ref.name", "a/b:1")).unwrap();
        assert_eq!(named.canonical(), "docker.io/a/b:1");
        let named = layout_name(&annotations("io.containerd.image.name", "shop")).unwrap();
        assert_eq!(named.canonical(), "docker.io/library/shop:latest");
    }
}

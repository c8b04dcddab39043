//! Making an image from local files.

use std::fs::File;
use std::path::{Path, PathBuf};

use tar::{Builder, Header, HeaderMode};

use super::digest::{Digest, HashingReader};
use super::error::ImageError;
use super::manifest::write_configuration;
use super::reference::Reference;
use super::store::{PreparedImage, Store};
use super::{ImageConfig, ImageInfo, LayerSource};

/// A layer made here.
const LAYER_BYTES_MAX: u64 = 32 << 30;

/// Blocks.
pub(super) fn import(
    store: &Store,
    reference: &Reference,
    config: ImageConfig,
    layers: &[LayerSource],
) -> Result<ImageInfo, ImageError> {
    let workspace = store.workspace()?;
    let name = reference.canonical();
    let (mut digests, mut prepared) = (Vec::new(), Vec::new());
    for (number, layer) in layers.iter().enumerate() {
        let archive = workspace.path.join(format!("layer-{number}.tar"));
        write_layer(layer, &archive)?;
        let file = File::open(&archive).map_err(ImageError::io("open", &archive))?;
        let digest = HashingReader::new(file, LAYER_BYTES_MAX)
            .finish()
            .map_err(ImageError::io("read", &archive))?;
        prepared.push(store.prepare_layer(&workspace, &archive, &digest, &name)?);
        digests.push(digest);
    }
    let configuration = write_configuration(&config, &digests);
    let digest = Digest::of(&configuration);
    // Nobody has a manifest of it; its configuration's digest identifies it as well.
    let digests = vec![format!("{}@{digest}", reference.name())];
    store.commit(PreparedImage {
        configuration,
        config,
        layers: prepared,
        tags: vec![name],
        digests,
    })
}

fn write_layer(layer: &LayerSource, archive: &Path) -> Result<(), ImageError> {
    let file = File::create(archive).map_err(ImageError::io("create", archive))?;
    let mut builder = Builder::new(file);
    builder.mode(HeaderMode::Deterministic);
    builder.follow_symlinks(false);
    match layer {
        LayerSource::Directory(directory) => {
            builder
                .append_dir_all("", directory)
                .map_err(ImageError::io("pack", directory))?;
        }
        LayerSource::Files(files) => {
            for (target, source, mode) in files {
                append_file(&mut builder, target, source, *mode)?;
            }
        }
    }
    builder
        .into_inner()
        .map(drop)
        .map_err(ImageError::io("write", archive))
}

fn append_file(
    builder: &mut Builder<File>,
    target: &str,
    source: &PathBuf,
    mode: u32,
) -> Result<(), ImageError> {
    let file = File::open(source).map_err(ImageError::io("open", source))?;
    let size = file
        .metadata()
        .map_err(ImageError::io("read", source))?
        .len();
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder
        .append_data(&mut header, target.trim_start_matches('/'), file)
        .map_err(ImageError::io("pack", source))
}

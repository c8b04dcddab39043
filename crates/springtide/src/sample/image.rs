//! Builds the sample shop's image at run time: this program and the shared libraries it is running with.
//!
//! The kernel's list of what is mapped into this process names exactly the files the program needs to start,
//! so the image works wherever the program does, without a registry and without a build.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use local_runtime::ImageStore;
use local_runtime::image::{ImageConfig, ImageInfo, LayerSource};

use crate::SAMPLE_SHOP;

/// What the example manifests call it.
pub const REFERENCE: &str = "springtide.local/sample-shop:demo";
/// Where the program lies in the image.
const PROGRAM: &str = "springtide";

/// Puts the image into the store; the same content is stored once.
pub async fn build(store: &ImageStore) -> anyhow::Result<ImageInfo> {
    let program = std::env::current_exe().context("find this program's file")?;
    let maps = std::fs::read_to_string("/proc/self/maps").context("read /proc/self/maps")?;
    let mut files = vec![(PROGRAM.to_string(), program.clone(), 0o755)];
    for library in libraries(&maps, &program) {
        files.push((
            library
                .display()
                .to_string()
                .trim_start_matches('/')
                .to_string(),
            library,
            0o755,
        ));
    }
    if let Some(interpreter) = interpreter(&program)? {
        let inside = interpreter
            .display()
            .to_string()
            .trim_start_matches('/')
            .to_string();
        if !files.iter().any(|(path, _, _)| *path == inside) {
            let real = std::fs::canonicalize(&interpreter)
                .with_context(|| format!("find {}", interpreter.display()))?;
            files.push((inside, real, 0o755));
        }
    }
    let config = ImageConfig {
        entrypoint: vec![format!("/{PROGRAM}"), SAMPLE_SHOP.to_string()],
        working_dir: "/".to_string(),
        stop_signal: "SIGTERM".to_string(),
        user: "65534:65534".to_string(),
        ..ImageConfig::default()
    };
    store
        .import_image(REFERENCE, config, vec![LayerSource::Files(files)])
        .await
        .context("store the sample shop's image")
}

/// Shared objects in a `/proc/<pid>/maps` text, without the program itself.
fn libraries(maps: &str, program: &Path) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path != program)
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.contains(".so")
        })
        .collect()
}

/// The dynamic loader an ELF program names (`PT_INTERP`); `None` for a static one.
/// Layout: System V ABI, "Program Header".
fn interpreter(program: &Path) -> anyhow::Result<Option<PathBuf>> {
    use std::io::{Read, Seek, SeekFrom};
    const SEGMENT_INTERPRETER: u32 = 3;
    let mut file =
        std::fs::File::open(program).with_context(|| format!("open {}", program.display()))?;
    let mut header = [0u8; 64];
    file.read_exact(&mut header)
        .with_context(|| format!("read {}", program.display()))?;
    if &header[..4] != b"\x7fELF" || header[4] != 2 || header[5] != 1 {
        bail!(
            "{} is not a 64-bit little-endian ELF program",
            program.display()
        );
    }
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
    let short = |at: usize| u16::from_le_bytes(header[at..at + 2].try_into().unwrap_or_default());
    let (table, size, count) = (long(32), u64::from(short(54)), u64::from(short(56)));
    for index in 0..count {
        let mut entry = [0u8; 56];
        file.seek(SeekFrom::Start(table + index * size))?;
        file.read_exact(&mut entry)?;
        let field =
            |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap_or_default());
        if u32::from_le_bytes(entry[..4].try_into().unwrap_or_default()) != SEGMENT_INTERPRETER {
            continue;
        }
        let length = usize::try_from(field(32)).unwrap_or(0).min(4096);
        let mut path = vec![0u8; length];
        file.seek(SeekFrom::Start(field(8)))?;
        file.read_exact(&mut path)?;
        let text = String::from_utf8_lossy(&path)
            .trim_end_matches('\0')
            .to_string();
        return Ok(Some(PathBuf::from(text)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_objects_are_taken_from_the_maps() {
        let maps = "7f00-7f01 r-xp 0 08:01 1 /lib/x86_64-linux-gnu/libc.so.6\n7f02-7f03 r-xp 0 08:01 2 /opt/springtide\n7f04-7f05 rw-p 0 00:00 0 [heap]\n7f06-7f07 rw-p 0 00:00 0\n";
        let found = libraries(maps, Path::new("/opt/springtide"));
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")]
        );
    }

    #[test]
    fn this_very_program_names_a_loader_that_exists() {
        let program = std::env::current_exe().unwrap();
        if let Some(loader) = interpreter(&program).unwrap() {
            assert!(loader.exists(), "{}", loader.display());
        }
    }
}

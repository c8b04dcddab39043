//! The container image, as an OCI archive written here: no Docker, no shell inside, an ordinary user, the same bytes for
//! the same commit.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::program::{Program, VERSION, architecture, source_time};

/// Neither root nor anybody of the host.
const USER: u64 = 65_532;
/// HTTPS needs somebody to trust; Debian's package ca-certificates brings this file.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How the image is built.
#[derive(clap::Args)]
pub struct Image {
    #[command(flatten)]
    program: Program,
    /// The image's name.
    #[arg(long, default_value_t = format!("ghcr.io/springtide/springtide:{VERSION}"))]
    name: String,
    /// Where the archive is written.
    #[arg(long, default_value = "springtide-image.tar")]
    output: PathBuf,
}

/// Builds the archive.
pub fn build(image: &Image) -> anyhow::Result<()> {
    let program = image.program.provide()?;
    let time = source_time()?;
    let layer = layer(&program, time)?;
    let archive = archive(&image.name, &layer, time)?;
    std::fs::write(&image.output, archive)
        .with_context(|| format!("write {}", image.output.display()))?;
    println!("{}  {}", image.output.display(), image.name);
    Ok(())
}

struct Tar {
    builder: tar::Builder<Vec<u8>>,
    time: u64,
}

impl Tar {
    fn new(time: u64) -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
            time,
        }
    }

    fn header(&self, mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header
    }

    fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        let mut header = self.header(mode, 0, tar::EntryType::Directory);
        let added = self
            .builder
            .append_data(&mut header, path, std::io::empty());
        added.with_context(|| format!("add {path}"))
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let mut header = self.header(mode, content.len() as u64, tar::EntryType::Regular);
        let added = self.builder.append_data(&mut header, path, content);
        added.with_context(|| format!("add {path}"))
    }

    fn finish(self) -> anyhow::Result<Vec<u8>> {
        self.builder.into_inner().context("finish the archive")
    }
}

fn layer(program: &Path, time: u64) -> anyhow::Result<Vec<u8>> {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        std::io::Read::read_to_end(&mut file, &mut bytes)
            .with_context(|| format!("read {}", path.display()))?;
        anyhow::Ok(bytes)
    };
    if !Path::new(AUTHORITIES).exists() {
        bail!("{AUTHORITIES} is missing; install the Debian package ca-certificates");
    }
    let mut layer = Tar::new(time);
    for folder in ["etc/", "etc/ssl/", "etc/ssl/certs/", "usr/", "usr/bin/"] {
        layer.folder(folder, 0o755)?;
    }
    let passwd = format!("root:x:0:0:root:/:/\nspringtide:x:{USER}:{USER}:springtide:/:/\n");
    layer.file("etc/passwd", 0o644, passwd.as_bytes())?;
    let group = format!("root:x:0:\nspringtide:x:{USER}:\n");
    layer.file("etc/group", 0o644, group.as_bytes())?;
    let authorities = read(Path::new(AUTHORITIES))?;
    layer.file(&AUTHORITIES[1..], 0o644, &authorities)?;
    layer.file("usr/bin/springtide", 0o755, &read(program)?)?;
    layer.folder("tmp/", 0o1777)?;
    layer.finish()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len()})
}

/// Seconds since 1970 as RFC 3339, by the civil calendar (days are counted from 0000-03-01).
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn archive(name: &str, layer: &[u8], time: u64) -> anyhow::Result<Vec<u8>> {
    let created = timestamp(time);
    let config = json!({
        "architecture": architecture(), "os": "linux", "created": created,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": ["/usr/bin/springtide"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "springtide",
                "org.opencontainers.image.description": "Elastic capacity for Kubernetes",
                "org.opencontainers.image.version": VERSION,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.created": created
            }
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))]},
        "history": [{"created": created, "created_by": "cargo xtask image"}]
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config.as_bytes()),
        "layers": [descriptor(LAYER, layer)]
    })
    .to_string();
    let mut entry = descriptor(MANIFEST, manifest.as_bytes());
    entry["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name
    });
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let mut archive = Tar::new(time);
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, index.as_bytes())?;
    archive.folder("blobs/", 0o755)?;
    archive.folder("blobs/sha256/", 0o755)?;
    for blob in [config.as_bytes(), manifest.as_bytes(), layer] {
        archive.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_by_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(timestamp(1_790_000_000), "2026-09-21T14:13:20Z");
    }

    #[test]
    fn the_same_commit_gives_the_same_bytes() {
        let first = archive("a/b:c", b"layer", 1_790_000_000).unwrap();
        assert_eq!(first, archive("a/b:c", b"layer", 1_790_000_000).unwrap());
    }
}

//! Debian's source package: fetched by apt's own client, believed by its checksum, unpacked within bounds.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

const POOL: &str = "pool/main/k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz";
const SHA256: &str = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc";
/// Where Debian's packages are when apt names no mirror.
const DEBIAN: &str = "http://deb.debian.org/debian/";
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// Much more than it holds, much less than would hurt.
const MAX_BYTES: u64 = 600 << 20;
const MAX_ENTRIES: usize = 60_000;
/// What programs are built from; the rest (documents, tests, clusters' scripts) stays in the archive.
const NEEDED: &[&str] = &[
    "api",
    "cmd",
    "pkg",
    "plugin",
    "staging",
    "third_party",
    "vendor",
];

/// The archive in `folder`, fetched unless it is there already.
pub(crate) fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    let archive = folder.join("kubernetes.orig.tar.gz");
    if archive.exists() && checksum(&archive)? == SHA256 {
        return Ok(archive);
    }
    ensure!(
        Path::new(APT_HELPER).exists(),
        "{APT_HELPER} is missing: the source package comes from a Debian mirror; fetch {DEBIAN}{POOL} yourself and put it at {}",
        archive.display()
    );
    let url = format!("{}{POOL}", mirror());
    let status = Command::new(APT_HELPER)
        .args(["-qq", "download-file", &url])
        .arg(&archive)
        .arg(format!("SHA256:{SHA256}"))
        .status()
        .context("start apt-helper")?;
    ensure!(status.success(), "apt-helper cannot fetch {url} ({status})");
    let found = checksum(&archive)?;
    ensure!(
        found == SHA256,
        "{url} is not what is built here: its SHA-256 is {found}, not {SHA256}"
    );
    Ok(archive)
}

/// The Debian mirror that this machine's apt uses.
fn mirror() -> String {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let found = text.ok().and_then(|text| mirror_of(&text));
    found.unwrap_or_else(|| DEBIAN.to_string())
}

fn mirror_of(targets: &str) -> Option<String> {
    let url = targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian "))?
        .trim();
    url.contains("://")
        .then(|| format!("{}/", url.trim_end_matches('/')))
}

fn checksum(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file
            .read(&mut buffer)
            .with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
    }
    let digest = context.finish();
    Ok(digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Unpacks what is needed of the archive's one folder into `target`.
pub(crate) fn unpack(archive: &Path, target: &Path) -> anyhow::Result<()> {
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    unpack_from(GzDecoder::new(file), target, MAX_BYTES)
        .with_context(|| format!("unpack {}", archive.display()))
}

fn unpack_from(reader: impl Read, target: &Path, max_bytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(target)?;
    let mut left = max_bytes;
    let mut archive = Archive::new(reader);
    for (index, entry) in archive.entries()?.enumerate() {
        ensure!(index < MAX_ENTRIES, "more than {MAX_ENTRIES} entries");
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(inner) = inside(&path)? else {
            continue;
        };
        left = left
            .checked_sub(entry.size())
            .with_context(|| format!("more than {max_bytes} bytes"))?;
        let kind = entry.header().entry_type();
        let place = target.join(&inner);
        if kind.is_symlink() {
            let link = entry
                .link_name()?
                .context("a link to nowhere")?
                .into_owned();
            ensure!(
                stays_inside(&inner, &link),
                "{} leads outside",
                inner.display()
            );
            create_parent(&place)?;
            std::os::unix::fs::symlink(&link, &place)?;
        } else if kind.is_dir() {
            std::fs::create_dir_all(&place)?;
        } else if kind.is_file() {
            create_parent(&place)?;
            let mut file =
                File::create_new(&place).with_context(|| format!("create {}", place.display()))?;
            std::io::copy(&mut entry, &mut file)?;
        } else if !kind.is_pax_global_extensions() {
            bail!("{} is of a kind that no source has", inner.display());
        }
    }
    Ok(())
}

fn create_parent(place: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(place.parent().context("an entry without a folder")?)
        .map_err(Into::into)
}

/// The path below the archive's folder when it is needed.
fn inside(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    ensure!(plain, "{} leads outside", path.display());
    let inner: PathBuf = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .skip(1)
        .collect();
    let first = inner
        .components()
        .next()
        .and_then(|part| part.as_os_str().to_str());
    Ok(first
        .is_some_and(|first| NEEDED.contains(&first))
        .then_some(inner))
}

/// Whether a link at `place` points into the tree it is in.
fn stays_inside(place: &Path, link: &Path) -> bool {
    let mut depth = place.components().count() - 1;
    link.components().all(|part| match part {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => {
            let above = depth.checked_sub(1);
            depth = above.unwrap_or_default();
            above.is_some()
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            // Written by hand: the library refuses to make what it should also refuse to read.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let body = if *kind == EntryType::Symlink {
                header.set_link_name(content).unwrap();
                ""
            } else {
                content
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn outcome(entries: &[(&str, EntryType, &str)]) -> (tempfile::TempDir, Result<(), String>) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(entries);
        let outcome = unpack_from(&bytes[..], &folder.path().join("tree"), 16);
        (folder, outcome.map_err(|error| error.to_string()))
    }

    #[test]
    fn what_is_needed_is_unpacked_with_its_links_and_nothing_else() {
        let (folder, outcome) = outcome(&[
            ("k-1/vendor/io/api", EntryType::Symlink, "../../staging/api"),
            ("k-1/staging/api/a.go", EntryType::Regular, "package a"),
            (
                "k-1/docs/long",
                EntryType::Regular,
                "far too much for the limit",
            ),
        ]);
        outcome.unwrap();
        let tree = folder.path().join("tree");
        assert_eq!(
            std::fs::read(tree.join("vendor/io/api/a.go")).unwrap(),
            b"package a"
        );
        assert!(!tree.join("docs").exists());
    }

    #[test]
    fn what_leads_outside_or_is_too_much_is_refused() {
        let refusal = |entry| outcome(&[entry]).1.unwrap_err();
        assert!(refusal(("k-1/pkg/../../x", EntryType::Regular, "")).contains("leads outside"));
        assert!(refusal(("k-1/pkg/x", EntryType::Symlink, "../../x")).contains("leads outside"));
        assert!(refusal(("k-1/pkg/x", EntryType::Symlink, "/etc")).contains("leads outside"));
        assert!(refusal(("k-1/pkg/x", EntryType::Fifo, "")).contains("of a kind"));
        assert!(
            refusal(("k-1/pkg/x", EntryType::Regular, "seventeen letters"))
                .contains("more than 16")
        );
    }

    #[test]
    fn the_mirror_is_the_one_of_this_machines_apt() {
        let targets = "Debian-Security http://a/debian-security/\nDebian http://b/debian\n";
        assert_eq!(mirror_of(targets).unwrap(), "http://b/debian/");
        assert_eq!(mirror_of("Debian "), None);
        assert_eq!(mirror_of("Ubuntu http://c/ubuntu/\n"), None);
    }
}

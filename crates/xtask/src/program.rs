//! The program as it is shipped: one static file, and a check that it really is one.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run;

/// `PT_INTERP` of the ELF specification: the segment that names a dynamic loader.
const INTERPRETER: u32 = 3;

/// Which program is packed.
#[derive(clap::Args)]
pub struct Program {
    /// Pack this file instead of building one; it has to be static, too.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Build without optimisation (for tests).
    #[arg(long)]
    debug: bool,
}

impl Program {
    /// Whether it is only for tests, which would rather be quick than small.
    pub fn is_debug(&self) -> bool {
        self.debug
    }

    /// Builds the program, or takes the one that is named.
    pub fn provide(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.program {
            Some(path) => path.clone(),
            None => build(self.debug)?,
        };
        check_static(&path)?;
        Ok(path)
    }
}

/// Links the C library in as well: glibc when no musl target is installed, which Debian's libc6-dev can do.
fn build(debug: bool) -> anyhow::Result<PathBuf> {
    let mut arguments = vec!["rustc", "--package", "springtide", "--bin", "springtide"];
    if !debug {
        arguments.push("--release");
    }
    // Only the last step differs from an ordinary build, so nothing else is built again.
    arguments.extend([
        "--",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=debuginfo",
    ]);
    run::cargo(&arguments)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(run::root().join("target"), PathBuf::from);
    Ok(target
        .join(if debug { "debug" } else { "release" })
        .join("springtide"))
}

fn check_static(path: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    match interpreter(&bytes) {
        None => bail!(
            "{} is not a 64-bit little-endian ELF program",
            path.display()
        ),
        Some(true) => bail!(
            "{} needs a dynamic loader, which the image does not have; on Debian install libc6-dev, elsewhere \
             `rustup target add x86_64-unknown-linux-musl` with its C compiler, and build it with \
             `-C target-feature=+crt-static`",
            path.display()
        ),
        Some(false) => Ok(()),
    }
}

/// Whether an ELF program names a loader; `None` when it is no such program.
fn interpreter(bytes: &[u8]) -> Option<bool> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let short = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            bytes.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let table = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let table = usize::try_from(table).ok()?;
    let (size, count) = (short(54)?, short(56)?);
    for index in 0..count {
        let at = table.checked_add(index * size)?;
        let kind = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        if kind == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

/// When the sources were last changed, in seconds: two builds of one commit are the same to the byte.
pub fn source_time() -> anyhow::Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text
            .parse()
            .context("SOURCE_DATE_EPOCH is a number of seconds");
    }
    let output = std::process::Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(run::root())
        .output()
        .context("ask git for the time of the last commit")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .context("the time of the last commit is not known; set SOURCE_DATE_EPOCH")
}

/// The workspace's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The machine's architecture as images and Debian call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without_and_from_no_program() {
        let mut elf = vec![0u8; 64 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        assert_eq!(interpreter(&elf), Some(false));
        elf[64 + 56] = 3;
        assert_eq!(interpreter(&elf), Some(true));
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter(&elf[..70]), None, "cut off");
    }
}

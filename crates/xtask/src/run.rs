//! Running other programs from the workspace's root, with their failures as errors.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Runs cargo with these arguments.
pub fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    program(&cargo, arguments)
}

/// Runs a program; its output goes to ours.
pub fn program(name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let line = format!("{name} {}", arguments.join(" "));
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    // What cargo tells the program it runs is not meant for a cargo started by it: build scripts would run again.
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
    let status = command
        .status()
        .with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

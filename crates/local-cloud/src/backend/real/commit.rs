//! Making an image of what a running container has become.
//!
//! The machine's own `tar` reads the container's file tree: it opens every directory without following links, so
//! nothing that the container does meanwhile leads it out. Volumes, `/proc`, `/sys` and `/dev` are other file systems
//! and stay out. The image has one layer, the settings of the one it came from, and lands in the machine's own
//! store; nothing is pushed to a registry.

use crate::backend::BackendError;
use local_runtime::ImageStore;
use local_runtime::image::ImageConfig;
use ring::digest;
use serde_json::json;
use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The longest that reading a container's files may take.
const LONGEST: Duration = Duration::from_secs(600);
const CHUNK_BYTES: usize = 1024 * 1024;

fn failed(what: &str, error: impl std::fmt::Display) -> BackendError {
    BackendError::new("CommitFailed", format!("{what}: {error}"))
}

/// Makes the image from the process's file tree, by way of a directory that the caller removes.
pub(super) async fn commit(
    images: &ImageStore,
    workspace: &Path,
    pid: i32,
    base: &str,
    reference: &str,
) -> Result<(), BackendError> {
    let base = images.find(base).await;
    let base = base.map_err(|error| BackendError::from_error("CommitFailed", &error))?;
    let config = base.map(|base| base.config).unwrap_or_default();
    tokio::fs::create_dir_all(workspace)
        .await
        .map_err(|error| failed("workspace", error))?;
    let root = format!("/proc/{pid}/root");
    let layer = workspace.join("layer.tar");
    tar(&layer, Path::new(&root), &["--one-file-system", "."]).await?;
    let hash = {
        let layer = layer.clone();
        tokio::task::spawn_blocking(move || sha256(&layer)).await
    };
    let hash = hash
        .map_err(|error| failed("hash", error))?
        .map_err(|error| failed("hash", error))?;
    let configuration = configuration(&config, &hash).to_string();
    // An image's configuration is named after its content.
    let name = format!(
        "{}.json",
        hex(digest::digest(&digest::SHA256, configuration.as_bytes()))
    );
    let manifest = json!([{
        "Config": name, "RepoTags": [reference], "Layers": ["layer.tar"],
    }]);
    for (name, content) in [
        (name.as_str(), configuration),
        ("manifest.json", manifest.to_string()),
    ] {
        tokio::fs::write(workspace.join(name), content)
            .await
            .map_err(|error| failed(name, error))?;
    }
    let archive = workspace.join("image.tar");
    tar(&archive, workspace, &["manifest.json", &name, "layer.tar"]).await?;
    let loaded = images.load(&archive).await;
    loaded
        .map(|_| ())
        .map_err(|error| BackendError::from_error("CommitFailed", &error))
}

async fn tar(archive: &Path, directory: &Path, what: &[&str]) -> Result<(), BackendError> {
    let mut command = Command::new("tar");
    command
        .args(["--create", "--numeric-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(directory)
        .args(what)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output()).await;
    let output = output.map_err(|_| failed("tar", "it took too long"))?;
    let output = output.map_err(|error| failed("tar (a Debian package)", error))?;
    match output.status.code() {
        // 1 says that a file changed while it was read, which files of running programs do.
        Some(0 | 1) => Ok(()),
        _ => Err(failed(
            "tar",
            String::from_utf8_lossy(&output.stderr).trim(),
        )),
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => context.update(&chunk[..count]),
        }
    }
    Ok(hex(context.finish()))
}

fn hex(hash: digest::Digest) -> String {
    let bytes = hash.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The image's configuration in the usual form.
fn configuration(config: &ImageConfig, layer_sha256: &str) -> serde_json::Value {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.command,
            "WorkingDir": config.working_dir, "User": config.user, "StopSignal": config.stop_signal,
            "Labels": config.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_sha256}")]},
    })
}

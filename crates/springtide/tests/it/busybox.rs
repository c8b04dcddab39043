//! The smallest real image: Debian's static busybox in a `docker save` archive.

use std::path::{Path, PathBuf};

use serde_json::json;

pub const REFERENCE: &str = "docker.io/library/busybox:test";

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, content).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes the archive into `folder`.
pub fn archive(folder: &Path) -> PathBuf {
    let program = std::fs::read("/bin/busybox")
        .expect("busybox is installed (Debian package busybox-static)");
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", 0o755, &program);
    add(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\n",
    );
    for applet in [
        "sh", "cat", "echo", "sleep", "httpd", "wget", "nslookup", "ls", "id", "true", "false",
        "hostname", "mount", "grep", "env", "kill", "touch", "test", "seq", "tar", "stty", "wc",
        "mkdir", "head",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [],
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        json!([{"Config": config_name, "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}])
            .to_string();
    let mut image = tar::Builder::new(Vec::new());
    add(&mut image, &config_name, 0o644, config.as_bytes());
    add(&mut image, "layer.tar", 0o644, &layer);
    add(&mut image, "manifest.json", 0o644, manifest.as_bytes());
    let path = folder.join("busybox.tar");
    std::fs::write(&path, image.into_inner().unwrap()).unwrap();
    path
}

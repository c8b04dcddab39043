//! The image that `cargo xtask image` builds, in a container of a local cluster.

use std::process::Command;

use serde_json::json;

use crate::cluster::{TestCluster, wait_for};

const NAME: &str = "ghcr.io/springtide/springtide:shipped";

#[test]
fn the_shipped_image_loads_and_runs_without_shell_and_root() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    let archive = cluster.folder.path().join("image.tar");
    let built = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "image",
            "--debug",
        ])
        .args(["--name", NAME, "--output"])
        .arg(&archive)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    cluster.load_image(&archive);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "shipped", "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true},
            "containers": [{
                "name": "main", "image": NAME, "imagePullPolicy": "Never", "args": ["--version"],
                "securityContext": {"readOnlyRootFilesystem": true}
            }]
        }
    });
    cluster.apply(&pod.to_string());
    cluster.wait_for_value(&["pod", "shipped"], "/status/phase", &json!("Succeeded"));
    wait_for("the version in the log", 30, || {
        let logs = cluster.kubectl(&["logs", "shipped"]);
        if logs.trim() == concat!("springtide ", env!("CARGO_PKG_VERSION")) {
            Ok(())
        } else {
            Err(logs)
        }
    });
    cluster.down();
}

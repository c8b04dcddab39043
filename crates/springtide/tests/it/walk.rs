//! The walks in `examples/`: every command of their README is run as it stands there.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::{PROGRAM, TestCluster, refusal};

/// The `sh` blocks of a README, one after the other.
fn commands(readme: &str) -> String {
    let mut inside = false;
    let lines = readme.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside = if fence { *line == "```sh" } else { inside };
        inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The files of an example in a folder of their own.
///
/// Ports that they name are only for readers: `ports` are replaced by ones that are free.
fn copied(example: &str, ports: &[&str]) -> tempfile::TempDir {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let free = ports.iter().map(|port| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (*port, listener)
    });
    // All at once, so that no two get the same.
    let free: Vec<_> = free.collect();
    let copy = tempfile::tempdir().unwrap();
    let mut named = Vec::new();
    for file in std::fs::read_dir(examples.join(example)).unwrap() {
        let file = file.unwrap();
        let mut text = std::fs::read_to_string(file.path()).unwrap();
        for (port, listener) in &free {
            let begun = format!(":{port}");
            if text.contains(&begun) {
                named.push(*port);
                let other = listener.local_addr().unwrap().port();
                text = text.replace(&begun, &format!(":{other}"));
            }
        }
        std::fs::write(copy.path().join(file.file_name()), text).unwrap();
    }
    for port in ports {
        assert!(named.contains(port), "the walk names no port {port}");
    }
    copy
}

/// Runs a walk with a shell that stops at the first step that fails and then ends what it started.
fn walk(example: &str, ports: &[&str]) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes namespaces, mounts and cgroups; run it as root"
    );
    let folder = copied(example, ports);
    let script = commands(&std::fs::read_to_string(folder.path().join("README.md")).unwrap());
    let home = tempfile::tempdir().unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let script = format!(
        "set -euo pipefail -x\ncleanup() {{ set +e; kill $(jobs -p); tail -n 40 \"${{WALK:-/nowhere}}\"/*.log; \
         springtide down --purge --data-dir \"${{WALK:-/nowhere}}/cluster\"; }} 2> /dev/null\n\
         trap 'test $? = 0 || cleanup >&2' EXIT\n{script}\n"
    );
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .process_group(0);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn the_walk_of_the_virtual_node_goes_as_its_readme_says() {
    walk("virtual-node", &["9443"]);
}

/// Devices, log service, exporter, a real Prometheus, metrics API, autoscaler, overflow; up, and down again.
#[test]
fn the_walk_of_the_active_devices_goes_as_its_readme_says() {
    walk("active-devices", &["9118", "9090"]);
}

#[test]
fn the_walk_of_the_tidal_cron_goes_as_its_readme_says() {
    walk("tidal-cron", &[]);
}

#[test]
fn a_cluster_that_runs_the_parts_itself_refuses_the_addon_and_says_why() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    let kubeconfig = kubeconfig.to_str().unwrap();
    let install = [
        "addon",
        "install",
        "ack-virtual-node",
        "--region",
        "cn-hangzhou",
    ];
    let install = [&install[..], &["--kubeconfig", kubeconfig]].concat();
    let run = [
        "virtual-node",
        "run",
        "--kubeconfig",
        kubeconfig,
        "--health-listen",
        "127.0.0.1:0",
    ];
    for arguments in [&install[..], &run] {
        let refusal = refusal(arguments);
        assert!(
            refusal.contains("springtide up --without-addon"),
            "{refusal}"
        );
    }
    assert!(
        !cluster
            .kubectl(&["-n", "kube-system", "get", "sa", "-o", "name"])
            .contains("virtual-kubelet")
    );
    cluster.down();
}

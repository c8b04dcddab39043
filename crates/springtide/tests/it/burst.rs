//! The main job, shortened, judged by the cluster's and the cloud's own records and not by what the demo prints.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{PROGRAM, wait_for};

fn string(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string()
}

/// Pods as an outside observer sees them through kubectl's watch.
struct Observer {
    lines: std::sync::mpsc::Receiver<Value>,
    child: std::process::Child,
}

impl Observer {
    fn start(kubeconfig: &str) -> Self {
        let mut child = Command::new("kubectl")
            .args([
                "get",
                "pods",
                "-n",
                "flash-sale",
                "--watch",
                "--output-watch-events",
                "-o",
                "json",
            ])
            .env("KUBECONFIG", kubeconfig)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for event in serde_json::Deserializer::from_reader(stdout)
                .into_iter::<Value>()
                .flatten()
            {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { lines, child }
    }
}

#[test]
fn a_flash_sale_overflows_keeps_serving_and_gives_everything_back() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test runs a cluster; run it as root"
    );
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("cluster");
    let log = std::fs::File::create(folder.path().join("demo.log")).unwrap();
    let mut demo = Command::new(PROGRAM)
        .args([
            "--log",
            "info",
            "demo",
            "--users",
            "250",
            "--duration",
            "45s",
            "--keep",
        ])
        .arg("--data-dir")
        .arg(&data_dir)
        .arg("--report-dir")
        .arg(folder.path())
        .stderr(log)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(folder.path().join("demo.log")).unwrap_or_default();
    let kubeconfig = data_dir.join("kubeconfig").display().to_string();
    wait_for("the shop's namespace", 60, || {
        let output = Command::new("kubectl")
            .args(["get", "namespace", "flash-sale"])
            .env("KUBECONFIG", &kubeconfig)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(said())
        }
    });
    let mut observer = Observer::start(&kubeconfig);
    wait_for("the report", 240, || {
        if let Some(status) = demo.try_wait().unwrap() {
            panic!("the demo ended with {status}: {}", said());
        }
        if folder.path().join("report.json").exists() {
            Ok(())
        } else {
            Err(said())
        }
    });

    // The cluster's own record: what the watch told.
    let _ = observer.child.kill();
    let _ = observer.child.wait();
    let (mut owned, mut serverless) = (
        std::collections::BTreeSet::new(),
        std::collections::BTreeSet::new(),
    );
    let mut served_by_cloud = 0;
    for event in observer.lines.iter() {
        let pod = &event["object"];
        let name = string(pod, "/metadata/name");
        let is_serverless = name.contains("-unit-");
        let deleting = pod.pointer("/metadata/deletionTimestamp").is_some();
        if event["type"] == "DELETED" {
            serverless.remove(&name);
            owned.remove(&name);
            continue;
        }
        if is_serverless {
            if serverless.insert(name) {
                assert!(
                    owned.len() >= 4,
                    "a serverless pod while the source has only {owned:?}\n{}",
                    said()
                );
            }
            let node = string(pod, "/spec/nodeName");
            assert!(
                node.is_empty() || node.starts_with("virtual-kubelet-"),
                "{pod:#}"
            );
            served_by_cloud += usize::from(string(pod, "/status/phase") == "Running");
        } else if deleting {
            assert!(
                serverless.is_empty(),
                "owned pod {name} goes while {serverless:?} live\n{}",
                said()
            );
            owned.remove(&name);
        } else {
            owned.insert(name);
        }
    }
    assert!(served_by_cloud > 0, "nothing overflowed\n{}", said());
    assert!(
        serverless.is_empty(),
        "serverless pods are left: {serverless:?}"
    );

    // The cloud's own record.
    let status: Value =
        serde_json::from_slice(&std::fs::read(data_dir.join("status.json")).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let groups = runtime.block_on(async {
        let credentials = cloud_api::Credentials::new(
            string(&status, "/cloud/accessKeyId"),
            string(&status, "/cloud/accessKeySecret"),
        );
        let config = cloud_api::EciConfig::new(
            format!("http://{}", string(&status, "/cloud/eci/endpoint")),
            string(&status, "/cloud/region"),
            credentials,
        );
        let client = cloud_api::EciClient::new(config, cloud_api::ClientSources::system()).unwrap();
        client
            .all_container_groups(Default::default())
            .await
            .unwrap()
    });
    assert!(groups.is_empty(), "{groups:?}");

    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    for promise in report["promises"].as_array().unwrap() {
        assert_eq!(promise["kept"], true, "{promise}\n{}", said());
    }
    assert!(
        std::fs::read_to_string(folder.path().join("report.html"))
            .unwrap()
            .contains("<svg")
    );

    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(demo.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(demo.wait().unwrap().success(), "{}", said());
    let down = crate::cluster::springtide(&[
        "down",
        "--purge",
        "--data-dir",
        &data_dir.display().to_string(),
    ]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
}

//! The main job, shortened, judged by the cluster's and the cloud's own records and not by what the demo prints.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

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
    lines: Receiver<Value>,
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

/// A shortened demo, kept up after its report.
struct Demo {
    folder: tempfile::TempDir,
    child: std::process::Child,
    ended: bool,
}

impl Drop for Demo {
    /// A failed test takes its cluster down as well.
    fn drop(&mut self) {
        if !self.ended {
            self.terminate();
        }
    }
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("demo.log")).unwrap();
        // Long enough for a machine that shares its cores with other tests.
        let shortened = ["--users", "250", "--duration", "90s", "--keep"];
        let child = Command::new(PROGRAM)
            .args(["--log", "info", "demo"])
            .args(shortened)
            .arg("--data-dir")
            .arg(folder.path().join("cluster"))
            .arg("--report-dir")
            .arg(folder.path())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            folder,
            child,
            ended: false,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    fn kubeconfig(&self) -> String {
        self.data_dir().join("kubeconfig").display().to_string()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("demo.log")).unwrap_or_default()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.path().join(file)).unwrap()).unwrap()
    }

    fn wait_for_namespace(&self) {
        wait_for("the shop's namespace", 180, || {
            let output = Command::new("kubectl")
                .args(["get", "namespace", "flash-sale"])
                .env("KUBECONFIG", self.kubeconfig())
                .output()
                .unwrap();
            output
                .status
                .success()
                .then_some(())
                .ok_or_else(|| self.said())
        });
    }

    fn wait_for_report(&mut self) {
        let report = self.folder.path().join("report.json");
        wait_for("the report", 420, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the demo ended with {status}: {}", self.said());
            }
            report.exists().then_some(()).ok_or_else(|| self.said())
        });
    }

    /// Whether it ended well.
    fn terminate(&mut self) -> bool {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap().success()
    }

    fn stop(mut self) {
        self.ended = true;
        assert!(self.terminate(), "{}", self.said());
        let folder = self.data_dir().display().to_string();
        let down = crate::cluster::springtide(&["down", "--purge", "--data-dir", &folder]);
        let complaint = String::from_utf8_lossy(&down.stderr);
        assert!(down.status.success(), "{complaint}");
    }
}

/// Own nodes first in, serverless first out, by what the watch told. The report is written when no container group is
/// left; the last pod's end and what kubectl says of it may follow a moment later.
fn judge_pods(events: &Receiver<Value>, said: &str) {
    let (mut owned, mut serverless) = (BTreeSet::new(), BTreeSet::new());
    let mut served_by_cloud = 0;
    loop {
        let over = served_by_cloud > 0 && serverless.is_empty();
        let wait = Duration::from_secs(if over { 1 } else { 60 });
        let Ok(event) = events.recv_timeout(wait) else {
            break;
        };
        let pod = &event["object"];
        let name = string(pod, "/metadata/name");
        let deleting = pod.pointer("/metadata/deletionTimestamp").is_some();
        if event["type"] == "DELETED" {
            serverless.remove(&name);
            owned.remove(&name);
        } else if name.contains("-unit-") {
            if serverless.insert(name) {
                let full = owned.len() >= 4;
                assert!(
                    full,
                    "a serverless pod while the source has only {owned:?}\n{said}"
                );
            }
            let node = string(pod, "/spec/nodeName");
            let virtual_node = node.is_empty() || node.starts_with("virtual-kubelet-");
            assert!(virtual_node, "{pod:#}");
            served_by_cloud += usize::from(string(pod, "/status/phase") == "Running");
        } else if deleting {
            let none = serverless.is_empty();
            assert!(
                none,
                "owned pod {name} goes while {serverless:?} live\n{said}"
            );
            owned.remove(&name);
        } else {
            owned.insert(name);
        }
    }
    assert!(served_by_cloud > 0, "nothing overflowed\n{said}");
    assert!(
        serverless.is_empty(),
        "serverless pods are left: {serverless:?}"
    );
}

/// The cloud's own record of what is left.
fn container_groups(status: &Value) -> usize {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let credentials = cloud_api::Credentials::new(
            string(status, "/cloud/accessKeyId"),
            string(status, "/cloud/accessKeySecret"),
        );
        let config = cloud_api::EciConfig::new(
            format!("http://{}", string(status, "/cloud/eci/endpoint")),
            string(status, "/cloud/region"),
            credentials,
        );
        let client = cloud_api::EciClient::new(config, cloud_api::ClientSources::system()).unwrap();
        let groups = client.all_container_groups(Default::default()).await;
        groups.unwrap().len()
    })
}

#[test]
fn a_flash_sale_overflows_keeps_serving_and_gives_everything_back() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test runs a cluster; run it as root"
    );
    let mut demo = Demo::start();
    demo.wait_for_namespace();
    let mut observer = Observer::start(&demo.kubeconfig());
    demo.wait_for_report();
    judge_pods(&observer.lines, &demo.said());
    let _ = observer.child.kill();
    let _ = observer.child.wait();
    assert_eq!(container_groups(&demo.json("cluster/status.json")), 0);

    let report = demo.json("report.json");
    for promise in report["promises"].as_array().unwrap() {
        assert_eq!(promise["kept"], true, "{promise}\n{}", demo.said());
    }
    let steps = report["timeline"].as_array().unwrap();
    let numbers: BTreeSet<u64> = steps
        .iter()
        .filter_map(|step| step["number"].as_u64())
        .collect();
    // Step 1, the first request of the rise, is the load tester's to tell; step 11 is told by an event that may come
    // after the next rise has begun.
    let told: BTreeSet<u64> = (2..=10).collect();
    assert!(numbers.is_superset(&told), "{steps:#?}");
    let page = std::fs::read_to_string(demo.folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg"));
    demo.stop();
}

//! Devices write to the local log service, the exporter pulls a number, a real Prometheus (Debian package) scrapes it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cluster::{PROGRAM, TestCluster, refusal, run, springtide, wait_for};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/active-devices");

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cluster_folder(cluster: &TestCluster) -> String {
    cluster
        .folder
        .path()
        .join("cluster")
        .to_str()
        .unwrap()
        .to_string()
}

/// Runs `springtide cloud logs …`; gives what it printed.
fn logs(cluster: &TestCluster, arguments: &[&str]) -> String {
    let folder = cluster_folder(cluster);
    let mut all = vec!["cloud", "--data-dir", &folder, "logs"];
    all.extend(arguments);
    let output = springtide(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{all:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

const PLACE: [&str; 4] = ["--project", "chat", "--logstore", "devices"];

fn query(cluster: &TestCluster, query: &str) -> Value {
    let mut arguments = vec!["query"];
    arguments.extend(PLACE);
    arguments.extend([query, "--last", "10m"]);
    let text = logs(cluster, &arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn replay(cluster: &TestCluster, lasting: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([
        "cloud",
        "--data-dir",
        &cluster_folder(cluster),
        "logs",
        "replay",
    ]);
    command.args(PLACE);
    command.args([
        "--curve",
        &format!("{EXAMPLE}/demand.csv"),
        "--day",
        "2014-09-18",
    ]);
    command.args(["--lasting", lasting, "--peak", "400"]);
    command
}

/// The example's exporter on a port of its own; gives that too.
fn exporter(cluster: &TestCluster) -> (Running, String) {
    let mut process = Command::new(PROGRAM)
        .args([
            "exporter",
            "sls",
            "--local",
            "--data-dir",
            &cluster_folder(cluster),
        ])
        .args([
            "--config",
            &format!("{EXAMPLE}/exporter.yaml"),
            "--listen",
            "127.0.0.1:0",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(process.stderr.take().unwrap()).lines();
    let told = errors.find_map(|line| {
        let line = line.unwrap();
        Some(
            line.split_once("http://")?
                .1
                .strip_suffix("/metrics")?
                .to_string(),
        )
    });
    // Read on, or the exporter would one day wait for somebody to do so.
    std::thread::spawn(move || errors.for_each(drop));
    (
        Running(process),
        told.expect("the exporter tells its address"),
    )
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn prometheus(cluster: &TestCluster, target: &str) -> (Running, String) {
    let folder = cluster.folder.path();
    let file = folder.join("prometheus.yml");
    let text = std::fs::read_to_string(format!("{EXAMPLE}/prometheus.yml")).unwrap();
    std::fs::write(&file, text.replace("127.0.0.1:9118", target)).unwrap();
    let address = free_address();
    let process = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("series").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is installed (Debian package prometheus)");
    (Running(process), format!("http://{address}"))
}

#[test]
fn a_number_of_the_log_service_reaches_a_real_prometheus() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    let mut create = vec!["create"];
    create.extend(PLACE);
    create.extend(["--field", "device_id=text", "--field", "event=text"]);
    logs(&cluster, &create);
    let (_exporter, address) = exporter(&cluster);
    let (_prometheus, server) = prometheus(&cluster, &address);
    let replaying = Running(
        replay(&cluster, "10m")
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_for("prometheus has the number", 120, || {
        let expression = "active_devices{service=\"nginx\",namespace=\"default\"} > 100";
        let mut command = Command::new("promtool");
        command.args(["query", "instant", &server, expression]);
        let answer = run(&mut command, None)?;
        if answer.contains("=> ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    drop(replaying);
    let counted = query(
        &cluster,
        "event: heartbeat | select count(distinct device_id) as n, count(1) as beats",
    );
    let number = |name: &str| counted[0][name].as_str().unwrap().parse::<u32>().unwrap();
    assert!(
        number("n") > 100 && number("beats") >= number("n"),
        "{counted}"
    );

    // Nobody writes any more: the window empties, and the number is nought, not what it was.
    wait_for("the number falls to nought", 120, || {
        let mut command = Command::new("promtool");
        command.args(["query", "instant", &server, "active_devices == 0"]);
        let answer = run(&mut command, None)?;
        if answer.contains("=> 0") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    cluster.down();
}

#[test]
fn mistakes_are_told_with_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    let path = file.to_str().unwrap();
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refusal(&["exporter", "sls", "--config", path, "--check"])
    };
    let one = "queries:\n- name: a\n  project: p\n  logstore: l\n  query: '* | select 1'\n";
    let message = told(&format!("{one}  interval: 1ms\n"));
    assert!(message.contains("queries[0].interval"), "{message}");
    let message = told(&format!("{one}  values: n\n"));
    assert!(message.contains("values"), "{message}");
    std::fs::write(&file, one).unwrap();
    let message = refusal(&["exporter", "sls", "--config", path]);
    assert!(message.contains("--region"), "{message}");
    let example = format!("{EXAMPLE}/exporter.yaml");
    let output = springtide(&["exporter", "sls", "--config", &example, "--check"]);
    assert!(output.status.success(), "{output:?}");
}

//! The parts of `examples/active-devices`: devices that write, the exporter, a real Prometheus (Debian package).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::cluster::{PROGRAM, TestCluster, springtide};

/// The example's folder.
pub const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/active-devices");

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The cluster's data directory.
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
pub fn logs(cluster: &TestCluster, arguments: &[&str]) -> String {
    let folder = cluster_folder(cluster);
    let mut all = vec!["cloud", "--data-dir", &folder, "logs"];
    all.extend(arguments);
    let output = springtide(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{all:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Where the devices write.
pub const PLACE: [&str; 4] = ["--project", "chat", "--logstore", "devices"];

/// One day of the curve in a shorter time, so many devices at its highest.
pub fn replay(cluster: &TestCluster, lasting: &str, peak: &str) -> Running {
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
    command.args(["--lasting", lasting, "--peak", peak]);
    Running(command.stderr(Stdio::null()).spawn().unwrap())
}

/// The example's exporter on a port of its own; gives that too.
pub fn exporter(cluster: &TestCluster) -> (Running, String) {
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

/// An address nobody uses now.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A real Prometheus at `address` with the example's configuration.
pub fn prometheus(cluster: &TestCluster, target: &str, address: &str) -> Running {
    let folder = cluster.folder.path();
    let file = folder.join("prometheus.yml");
    let text = std::fs::read_to_string(format!("{EXAMPLE}/prometheus.yml")).unwrap();
    std::fs::write(&file, text.replace("127.0.0.1:9118", target)).unwrap();
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
    Running(process)
}

/// Project and logstore as the example makes them.
pub fn create_logstore(cluster: &TestCluster) {
    let mut create = vec!["create"];
    create.extend(PLACE);
    create.extend(["--field", "device_id=text", "--field", "event=text"]);
    logs(cluster, &create);
}

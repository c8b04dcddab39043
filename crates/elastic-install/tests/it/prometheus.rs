//! A real Prometheus (Debian package `prometheus`) that scrapes nothing: queries with values of their own are enough.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::DEADLINE;

/// Gone when dropped.
pub struct Prometheus {
    pub url: String,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("prometheus.yml"), "global: {}\n").unwrap();
        // It chooses no port by itself; one that was free a moment ago is free still, or the next one is tried.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut process = Command::new("prometheus")
                .current_dir(&directory)
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=series"])
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("prometheus is installed (Debian package prometheus)");
            if is_ready(&mut process, port).await {
                return Self {
                    url: format!("http://127.0.0.1:{port}"),
                    process,
                    _directory: directory,
                };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("Prometheus does not start");
    }
}

async fn is_ready(process: &mut Child, port: u16) -> bool {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        let asked = Command::new("promtool")
            .args([
                "query",
                "instant",
                &format!("http://127.0.0.1:{port}"),
                "vector(1)",
            ])
            .output()
            .expect("promtool is installed (Debian package prometheus)");
        if asked.status.success() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    false
}

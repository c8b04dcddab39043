//! A day with an unmodified `kubectl` from PATH against the TLS listener. Without one the test says so and ends.

use base64::Engine;
use local_apiserver::testing::TestServer;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

struct Kubectl {
    directory: tempfile::TempDir,
}

impl Kubectl {
    async fn new(server: &TestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        server.server.serve(listener);
        let credentials = server.server.credentials();
        let authority = base64::engine::general_purpose::STANDARD.encode(&credentials.ca_pem);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": {"token": credentials.admin_token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config"), config.to_string()).unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Output of a command that must succeed.
    async fn run(&self, arguments: &str, input: &str) -> String {
        let mut child = Command::new("kubectl")
            .args(arguments.split(' '))
            .env("KUBECONFIG", self.path().join("config"))
            .env("HOME", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let waited =
            tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output());
        let output = waited.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kubectl {arguments}: {text}{errors}"
        );
        text
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_creates_applies_shows_changes_and_deletes() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .await
        .is_err()
    {
        println!("no kubectl on PATH, nothing tried");
        return;
    }
    let server = TestServer::start().await;
    let kubectl = Kubectl::new(&server).await;
    kubectl.run("create namespace shop", "").await;
    let applied = kubectl.run("apply -f -", DEPLOYMENT).await;
    assert_eq!(applied, "deployment.apps/web created\n");
    let again = kubectl.run("apply -f -", DEPLOYMENT).await;
    assert_eq!(again, "deployment.apps/web unchanged\n");
    let changed = kubectl
        .run("apply -f -", &DEPLOYMENT.replace("nginx", "nginx:2"))
        .await;
    assert_eq!(changed, "deployment.apps/web configured\n");
    kubectl
        .run("-n shop scale deploy/web --replicas=5", "")
        .await;
    let shown = kubectl.run("-n shop get deploy", "").await;
    assert!(shown.contains("web    0/5"), "{shown}");
    kubectl
        .run("-n shop create configmap m --from-literal=a=b", "")
        .await;
    kubectl.run("-n shop label configmap m x=y", "").await;
    let labelled = kubectl
        .run("-n shop get configmap -l x=y -o name", "")
        .await;
    assert_eq!(labelled, "configmap/m\n");
    kubectl
        .run(
            "apply --server-side -f -",
            &DEPLOYMENT.replace("web", "other"),
        )
        .await;
    assert_eq!(kubectl.run("auth can-i create pods", "").await, "yes\n");
    assert!(
        kubectl
            .run("api-resources", "")
            .await
            .contains("deployments")
    );
    assert!(
        kubectl
            .run("explain deployment.spec.replicas", "")
            .await
            .contains("replicas")
    );
    kubectl.run("-n shop describe deploy web", "").await;
    kubectl.run("-n shop delete deploy web other", "").await;
    assert_eq!(kubectl.run("-n shop get deploy -o name", "").await, "");
}

//! The real kubectl, where it depends on the schemas the server publishes.
//!
//! `KUBECTL` names another program than the one on PATH, to try an older release.

use base64::Engine;
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// kubectl with a home of its own.
struct Kubectl {
    server: TestServer,
    home: TempDir,
}

impl Kubectl {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        server.server.serve(listener);
        let home = tempfile::tempdir().unwrap();
        let credentials = server.server.credentials();
        let authority = base64::engine::general_purpose::STANDARD.encode(&credentials.ca_pem);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": {"token": credentials.admin_token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(home.path().join("config"), config.to_string()).unwrap();
        Self { server, home }
    }

    /// Runs it; whether it succeeded, and all it said.
    async fn run(&self, arguments: &[&str], input: &Value) -> (bool, String) {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_string();
        let work = move || {
            let mut child = command.spawn().expect("kubectl must be on PATH");
            let mut stdin = child.stdin.take().unwrap();
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(work).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    async fn apply(&self, input: &Value) -> (bool, String) {
        self.run(&["apply", "-f", "-"], input).await
    }
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "sample", "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": 1, "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}},
    })
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

#[tokio::test]
async fn a_list_is_applied_and_one_with_an_unknown_field_is_refused_by_its_name() {
    let kubectl = Kubectl::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    let both = list(&[deployment("web"), map.clone()]);
    let (done, said) = kubectl.apply(&both).await;
    assert!(done, "{said}");
    assert!(said.contains("deployment.apps/web created"), "{said}");
    assert!(said.contains("configmap/m created"), "{said}");
    let (done, said) = kubectl.apply(&both).await;
    assert!(done && said.contains("configmap/m unchanged"), "{said}");

    let mut wrong = deployment("other");
    wrong["spec"]["replcias"] = 3.into();
    for document in [list(&[wrong.clone(), map]), wrong] {
        let (done, said) = kubectl.apply(&document).await;
        assert!(!done && said.contains("replcias"), "{said}");
    }
}

#[tokio::test]
async fn a_custom_resource_is_validated_with_the_schema_of_its_definition() {
    let kubectl = Kubectl::start().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gears.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gears", "kind": "Gear"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "teeth": {"type": "integer"},
                    "port": {"x-kubernetes-int-or-string": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}}]},
    });
    let (done, said) = kubectl.apply(&definition).await;
    assert!(done, "{said}");
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd/gears.example.com",
    ];
    let (done, said) = kubectl.run(&wait, &Value::Null).await;
    assert!(done, "{said}");
    let gear = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Gear", "metadata": {"name": "g"}, "spec": spec});
    let good = gear(json!({"teeth": 3, "port": 80, "free": {"any": [1]}}));
    let (done, said) = kubectl.apply(&list(&[good])).await;
    assert!(
        done && said.contains("gear.example.com/g created"),
        "{said}"
    );
    let wrong = gear(json!({"teeth": 3, "tooth": 1}));
    for document in [wrong.clone(), list(&[wrong])] {
        let (done, said) = kubectl.apply(&document).await;
        assert!(!done && said.contains("tooth"), "{said}");
    }
}

#[tokio::test]
async fn everyday_commands_and_a_server_side_dry_run_find_what_they_need() {
    let kubectl = Kubectl::start().await;
    let create = ["create", "deployment", "made", "--image=sample"];
    let (done, said) = kubectl.run(&create, &Value::Null).await;
    assert!(done, "{said}");
    let (done, said) = kubectl.apply(&deployment("web")).await;
    assert!(done, "{said}");
    let dry = ["apply", "--dry-run=server", "-f", "-"];
    let (done, said) = kubectl.run(&dry, &deployment("dry")).await;
    assert!(done && said.contains("created (server dry run)"), "{said}");
    for arguments in [
        &["get", "pods"][..],
        &["get", "deployments", "-o", "wide"],
        &["explain", "deployment.spec.replicas"],
        &["scale", "deployment/web", "--replicas=3"],
        &["delete", "deployment", "made", "--cascade=background"],
    ] {
        let (done, said) = kubectl.run(arguments, &Value::Null).await;
        assert!(done, "{arguments:?}: {said}");
    }
    drop(kubectl.server);
}

//! `springtide cron next` against an API server: the object that is there, read in the zone that its controller uses.

use std::path::Path;
use std::process::Output;

use elastic_core::CronHorizontalPodAutoscaler;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};

use crate::cluster::springtide;

/// A cluster with a schedule that names no zone, and a kubeconfig for it.
async fn served(folder: &Path) -> (TestServer, String) {
    let server = TestServer::start().await;
    elastic_controllers::install_definitions(&server.client())
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server.server.serve(listener);
    let credentials = server.server.credentials();
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, &credentials.ca_pem).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{address}"), "certificate-authority": authority}}],
        "users": [{"name": "test", "user": {"token": credentials.admin_token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]
    });
    let file = folder.join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let objects = objects(&server);
    let object = json!({
        "metadata": {"name": "tide"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "jobs": [{"name": "morning", "schedule": "0 30 7 * * *", "targetSize": 8}]
        }
    });
    let object = serde_json::from_value(object).unwrap();
    objects
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    (server, file.display().to_string())
}

fn objects(server: &TestServer) -> Api<CronHorizontalPodAutoscaler> {
    Api::default_namespaced(server.client())
}

async fn next(kubeconfig: &str, more: &[&str]) -> Output {
    let mut arguments = vec!["cron", "next"];
    arguments.extend(more);
    arguments.extend(["--kubeconfig", kubeconfig]);
    tokio::task::block_in_place(|| springtide(&arguments))
}

fn words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_a_cluster_is_shown_in_its_controllers_zone() {
    let folder = tempfile::tempdir().unwrap();
    let (server, kubeconfig) = served(folder.path()).await;
    let shown = next(&kubeconfig, &["tide", "--time-zone", "Europe/Berlin"]).await;
    let text = words(&shown.stdout);
    assert!(shown.status.success(), "{}", words(&shown.stderr));
    assert!(text.contains("07:30:00 Europe/Berlin morning 8"), "{text}");
    // The controller has looked at it, and its zone is another one than what the caller supposes.
    let condition = json!({"name": "morning", "schedule": "0 30 7 * * *", "targetSize": 8, "state": "Submitted", "timeZone": "Asia/Shanghai"});
    let status = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let params = PatchParams::default();
    let patched = objects(&server)
        .patch_status("tide", &params, &status)
        .await;
    patched.unwrap();
    let arguments = [
        "tide",
        "--time-zone",
        "Europe/Berlin",
        "-n",
        "default",
        "-o",
        "json",
    ];
    let shown = next(&kubeconfig, &arguments).await;
    let answers: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let first = &answers[0]["nextRuns"][0];
    assert_eq!(first["job"], "morning", "{answers:#}");
    let local = first["localTime"].as_str().unwrap();
    assert!(local.ends_with("07:30:00 Asia/Shanghai"), "{local}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_cluster_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, kubeconfig) = served(folder.path()).await;
    let shown = next(&kubeconfig, &["ebb", "-n", "default"]).await;
    let said = words(&shown.stderr);
    assert!(!shown.status.success());
    assert!(
        said.contains("default/ebb") && said.contains(".yaml"),
        "{said}"
    );
}

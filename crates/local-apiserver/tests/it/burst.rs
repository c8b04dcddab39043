//! Many pods at once: created, bound and running, with watchers that see every step.
//!
//! `BURST_PODS=1000` sets the number; the test prints how long each step took.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WATCHERS: usize = 4;
const WORKERS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(120);

fn pod(number: usize) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{number:04}"), "labels": {"app": "web", "pod-template-hash": "abc"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "11111111-1111-1111-1111-111111111111", "controller": true}]},
        "spec": {"containers": [{"name": "web", "image": "registry.example/shop:1", "ports": [{"containerPort": 8080}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}]}
    }))
    .unwrap()
}

/// Runs `step` for every pod with some workers at a time.
async fn each<F, Fut>(pods: usize, step: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let step = step.clone();
        workers.spawn(async move {
            for number in (worker..pods).step_by(WORKERS) {
                step(number).await;
            }
        });
    }
    workers.join_all().await;
}

async fn watch_until_running(client: Client, pods: usize) {
    let api: Api<Pod> = Api::all(client);
    let mut events = api
        .watch(&WatchParams::default().timeout(290), "0")
        .await
        .unwrap()
        .boxed();
    let mut running = HashSet::new();
    while running.len() < pods {
        let Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) =
            events.try_next().await.unwrap()
        else {
            continue;
        };
        if pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            == Some("Running")
        {
            running.insert(pod.name_any());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_pods_is_created_bound_and_running_before_every_watcher() {
    let pods: usize = std::env::var("BURST_PODS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    let server = TestServer::start().await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(server.client(), "default");
    accounts
        .create(
            &PostParams::default(),
            &serde_json::from_value(account).unwrap(),
        )
        .await
        .unwrap();
    let api: Api<Pod> = Api::namespaced(server.client(), "default");
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        watchers.spawn(watch_until_running(server.client(), pods));
    }
    let start = Instant::now();
    let creating = api.clone();
    each(pods, move |number| {
        let api = creating.clone();
        async move {
            api.create(&PostParams::default(), &pod(number))
                .await
                .unwrap();
        }
    })
    .await;
    let created = start.elapsed();
    let client = server.client();
    each(pods, move |number| {
        let client = client.clone();
        async move {
            let name = format!("p{number:04}");
            let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "node-a"}});
            let request = http::Request::post(format!("/api/v1/namespaces/default/pods/{name}/binding"))
                .header("content-type", "application/json")
                .body(body.to_string().into_bytes())
                .unwrap();
            client.request::<serde_json::Value>(request).await.unwrap();
        }
    })
    .await;
    let bound = start.elapsed();
    each(pods, move |number| {
        let api = api.clone();
        async move {
            let status = json!({"status": {"phase": "Running", "podIP": "10.30.1.5", "podIPs": [{"ip": "10.30.1.5"}], "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "image": "i", "imageID": "d", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
            api.patch_status(&format!("p{number:04}"), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
        }
    })
    .await;
    let running = start.elapsed();
    tokio::time::timeout(PATIENCE, watchers.join_all())
        .await
        .expect("every watcher saw every pod run");
    println!(
        "{pods} pods: created {created:?}, bound {bound:?}, running {running:?}, seen by {WATCHERS} watchers {:?}",
        start.elapsed()
    );
}

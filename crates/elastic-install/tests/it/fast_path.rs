//! The fast path in an installed add-on: pushed metrics, read and acted on with the rights of the installation alone.

use std::sync::Arc;

use elastic_controllers::WebhookAddress;
use elastic_install::apply;
use elastic_install::manifests::{self, Options};
use elastic_metrics::write_request;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams};
use local_apiserver::testing::TestServer;
use serde_json::json;

use crate::support::{Scene, ToLoopback, eventually};

const ACCOUNT: &str = "system:serviceaccount:kube-system:virtual-kubelet";
const TOKEN: &str = "a-token-of-the-account";
const GROUPS: [&str; 3] = [
    "system:serviceaccounts",
    "system:serviceaccounts:kube-system",
    "system:authenticated",
];
/// The replica's address as the cluster knows it; every address leads to loopback.
const REPLICA: &str = "10.10.0.1";

async fn scene() -> Scene {
    let server = TestServer::start_with(|config| {
        config.dialer = Arc::new(ToLoopback);
        let groups = GROUPS.map(str::to_owned).to_vec();
        let account = (ACCOUNT.to_owned(), "account".to_owned(), groups);
        config.static_tokens.insert(TOKEN.to_owned(), account);
    });
    let scene = Scene::start_on(server.await).await;
    for object in manifests::objects(&Options::default()) {
        apply::apply(&scene.client, &object, false).await.unwrap();
    }
    scene
}

/// What the cluster's own controller would do for the Service.
async fn lead_service_to(scene: &Scene, port: u16) {
    let slices: Api<EndpointSlice> = Api::namespaced(scene.client.clone(), "kube-system");
    let services: Api<Service> = Api::namespaced(scene.client.clone(), "kube-system");
    let service = services.get("elastic-metrics").await.unwrap();
    let name = service.spec.unwrap().ports.unwrap()[0].name.clone();
    let slice = json!({
        "metadata": {"name": "elastic-metrics-test", "labels": {"kubernetes.io/service-name": "elastic-metrics"}},
        "addressType": "IPv4",
        "ports": [{"name": name.unwrap_or_default(), "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [REPLICA], "conditions": {"ready": true}}]
    });
    let slice = serde_json::from_value(slice).unwrap();
    slices.create(&PostParams::default(), &slice).await.unwrap();
}

async fn push(scene: &Scene, value: f64) -> Result<(), String> {
    let body = write_request(&[("queue_depth", &[].into(), value)], Timestamp::now());
    let path = "/apis/pushed.autoscaling.alibabacloud.com/v1/namespaces/default/pushedmetrics";
    let request = http::Request::post(path)
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .body(body)
        .unwrap();
    let answer = scene.client.request_text(request).await;
    answer.map(drop).map_err(|error| error.to_string())
}

async fn create_autoscaled(scene: &Scene) -> Api<Deployment> {
    let deployments: Api<Deployment> = Api::default_namespaced(scene.client.clone());
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "shop:1"}]}}}
    });
    let deployment = serde_json::from_value(deployment).unwrap();
    let params = PostParams::default();
    deployments.create(&params, &deployment).await.unwrap();
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(scene.client.clone());
    let autoscaler = json!({
        "metadata": {"name": "web", "annotations": {"autoscaling.alibabacloud.com/fast-sync-period": "pushed"}},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 50,
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue_depth"},
                "target": {"type": "AverageValue", "averageValue": "10"}}}],
            "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}}}
    });
    let autoscaler = serde_json::from_value(autoscaler).unwrap();
    autoscalers.create(&params, &autoscaler).await.unwrap();
    deployments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushed_metrics_scale_with_the_rights_that_were_installed_and_no_others() {
    let scene = scene().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    lead_service_to(&scene, listener.local_addr().unwrap().port()).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let own = scene.server.server.client_as(ACCOUNT, &GROUPS);
    let replica = scene.replica_as(own, "only", |config| {
        let settings = [
            ("METRICS_APIS", "external,pushed"),
            ("SERVICE_ACCOUNT_TOKEN_FILE", token.to_str().unwrap()),
        ];
        for (name, value) in settings {
            config.environment.insert(name.to_owned(), value.to_owned());
        }
        config.webhook.as_mut().unwrap().address = WebhookAddress::Service {
            namespace: "kube-system".into(),
            name: "vk-webhook".into(),
            port: 443,
        };
        config.metrics = Some(listener);
    });
    let replica = replica.await;
    scene.leads("only").await;
    let pushed = async || push(&scene, 20.0).await;
    let accepted = eventually("metrics can be pushed", pushed, Result::is_ok).await;
    accepted.unwrap();
    let deployments = create_autoscaled(&scene).await;
    let events: Api<Event> = Api::default_namespaced(scene.client.clone());
    for (value, wanted) in [(60.0, 6), (230.0, 23)] {
        let state = async || {
            // Whoever leads may have begun to listen after a push; a value that is the same wakes nobody.
            push(&scene, value).await.unwrap();
            let told = events.list(&ListParams::default()).await.unwrap();
            let told: Vec<_> = told.into_iter().filter_map(|one| one.message).collect();
            let spec = deployments.get("web").await.unwrap().spec.unwrap();
            (spec.replicas, told)
        };
        eventually("replicas", state, |(replicas, _)| *replicas == Some(wanted)).await;
    }
    let told = events.list(&ListParams::default()).await.unwrap();
    let blind: Vec<_> = told
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("FastPathBlind"))
        .filter_map(|event| event.message)
        .collect();
    assert!(blind.is_empty(), "{blind:?}");
    replica.stop().await;
}

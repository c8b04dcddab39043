//! What the tests of the policies share.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use elastic_controllers::{
    AdmissionConfig, AdmissionIdentity, WebhookAddress, follow_routing, run_admission,
};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Revision of the ReplicaSet that [`create_workload`] makes.
pub const HASH: &str = "7d9c";

const DEADLINE: Duration = Duration::from_secs(40);

/// Looks again and again until `done`; shows the last state when it never is.
pub async fn eventually<T: Debug>(
    what: &str,
    look: impl AsyncFn() -> T,
    done: impl Fn(&T) -> bool,
) -> T {
    let started = tokio::time::Instant::now();
    loop {
        let state = look().await;
        if done(&state) {
            return state;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: {state:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An object of any kind, as in a file of a user.
pub async fn create(client: &Client, object: Value) -> Value {
    let api = api_of(client, &object);
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    json!(api.create(&PostParams::default(), &object).await.unwrap())
}

/// The objects' namespace is always the default one.
pub fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let (group, version) = match object["apiVersion"].as_str().unwrap().split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", "v1"),
    };
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
    let resource = ApiResource::from_gvk(&kind);
    let namespaced = !matches!(kind.kind.as_str(), "Node" | "CustomResourceDefinition");
    if namespaced {
        Api::default_namespaced_with(client.clone(), &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

/// A file below `examples/successors`.
pub fn example(name: &str) -> Value {
    let path = format!(
        "{}/../../examples/successors/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Reasons of all events.
pub async fn reasons(client: &Client) -> Vec<String> {
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let list = events.list(&ListParams::default()).await.unwrap();
    list.items
        .into_iter()
        .filter_map(|event| event.reason)
        .collect()
}

/// Status and message of a condition.
pub fn condition(object: &Value, kind: &str) -> (String, String) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind);
    let text = |key: &str| {
        found
            .map_or("", |found| found[key].as_str().unwrap_or_default())
            .to_owned()
    };
    (text("status"), text("message"))
}

/// What a scheduler says about a pod that fits nowhere, since this many seconds.
pub async fn say_unschedulable(client: &Client, pod: &str, seconds: i64) {
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    let status = json!({"status": {"phase": "Pending", "conditions": [condition]}});
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.patch_status(pod, &PatchParams::default(), &Patch::Strategic(status))
        .await
        .unwrap();
}

/// The webhook, registered with the API server.
pub async fn serve_webhook(client: &Client, shutdown: &CancellationToken) {
    let identity = AdmissionIdentity::generate(&["127.0.0.1".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (view, following) = follow_routing(client.clone(), BTreeMap::new(), shutdown.clone());
    tokio::spawn(following);
    let config = AdmissionConfig {
        listener,
        address: WebhookAddress::Url(format!("https://{address}")),
        identity: watch::channel(identity).1,
    };
    let (client, stop) = (client.clone(), shutdown.clone());
    tokio::spawn(async move { run_admission(client, config, view, stop).await.unwrap() });
}

/// The Deployment and its ReplicaSet, whose UID is given back.
pub async fn create_workload(client: &Client) -> String {
    let template = |labels: Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "shop", "image": "i:1"}]}});
    let deployment = create(
        client,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
            "spec": {"replicas": 6, "selector": {"matchLabels": {"app": "shop"}}, "template": template(json!({"app": "shop"}))}}),
    )
    .await;
    let labels = json!({"app": "shop", "pod-template-hash": HASH});
    let set = create(
        client,
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {
                "name": "shop-7d9c", "labels": labels, "annotations": {"deployment.kubernetes.io/revision": "1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": deployment["metadata"]["uid"], "controller": true}]},
            "spec": {"replicas": 6, "selector": {"matchLabels": labels}, "template": template(labels)}}),
    )
    .await;
    set["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A pod of that ReplicaSet.
pub fn pod_of_set(set_uid: &str, hash: &str) -> Value {
    json!({
        "metadata": {
            "generateName": "shop-", "labels": {"app": "shop", "pod-template-hash": hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d9c", "uid": set_uid, "controller": true}]
        },
        "spec": {"containers": [{"name": "shop", "image": "i:1"}]}
    })
}

/// Waits until the API server has been told to ask about pods where there are policies.
pub async fn until_asked_about_policies(client: &Client) {
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let asked = async || {
        let hook = hooks.get_opt("vk-webhook").await.unwrap();
        let entries = hook.and_then(|hook| hook.webhooks).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    };
    eventually("registered", asked, |names: &Vec<String>| {
        names.iter().any(|name| name.starts_with("policy."))
    })
    .await;
}

//! Replicas: who leads, what happens when the leader dies, and what settings and keys do.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{KEY, NODE, Scene, eventually};

const NODES: [&str; 2] = [NODE, "virtual-kubelet-cn-hangzhou-i"];

pub async fn ask(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn profile(scene: &Scene, v_switches: &str) {
    let api: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "kube-system");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "eci-profile"},
        "data": {"vSwitchIds": v_switches}
    });
    let parameters = PatchParams::apply("a-user").force();
    api.patch("eci-profile", &parameters, &Patch::Apply(map))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_replica_takes_over_from_a_dead_leader_and_touches_no_group() {
    let scene = Scene::start().await;
    let first = scene.replica("first", |_| ()).await;
    scene.leads("first").await;
    let second = scene.replica("second", |_| ()).await;
    scene.nodes_become(&NODES).await;
    for name in ["web-1", "web-2", "web-3"] {
        scene.create_pod(name, NODE).await;
        scene.runs(name).await;
    }
    let before: Vec<String> = ids(&scene).await;
    assert_eq!(before.len(), 3);
    first.kill();
    scene.leads("second").await;
    scene.create_pod("web-4", NODE).await;
    scene.runs("web-4").await;
    let after = ids(&scene).await;
    assert_eq!(after.len(), 4, "{after:?}");
    assert!(before.iter().all(|id| after.contains(id)), "{after:?}");
    assert!(
        ask(second.health, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask(second.health, "/metrics")
            .await
            .contains("springtide_leader 1")
    );
    eventually(
        "the metrics show four groups and one creation",
        async || ask(second.health, "/metrics").await,
        |text| {
            text.contains("springtide_container_groups 4")
                && text.contains(
                    "springtide_cloud_calls_total{action=\"CreateContainerGroup\",code=\"OK\"} 1",
                )
                && !text.contains("springtide_cost_per_hour 0\n")
                && text.contains("springtide_pod_stage_seconds_count{stage=\"pull\"}")
                && text.contains("springtide_pod_stage_seconds_count{stage=\"start\"}")
        },
    )
    .await;
    second.stop().await;
    assert_eq!(scene.leader().await, None, "let go at once");
    assert_eq!(ids(&scene).await.len(), 4, "groups go on running");
}

async fn ids(scene: &Scene) -> Vec<String> {
    let groups = scene.groups().await.into_iter();
    groups.map(|group| group.container_group_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_profile_acts_at_once_and_a_bad_one_is_told_and_changes_nothing() {
    let scene = Scene::start().await;
    profile(&scene, "vsw-local-h").await;
    let replica = scene.replica("only", |_| ()).await;
    scene.nodes_become(&[NODE]).await;
    scene.create_pod("web-1", NODE).await;
    scene.runs("web-1").await;
    profile(&scene, "vsw-local-h,vsw-nowhere").await;
    eventually(
        "an event names the unknown vSwitch",
        async || scene.events().await,
        |events| events.iter().any(|text| text.contains("vsw-nowhere")),
    )
    .await;
    scene.create_pod("web-2", NODE).await;
    scene.runs("web-2").await;
    profile(&scene, "vsw-local-h,vsw-local-j").await;
    scene
        .nodes_become(&[NODE, "virtual-kubelet-cn-hangzhou-j"])
        .await;
    assert_eq!(ids(&scene).await.len(), 2, "running groups are not touched");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_beats_the_environment() {
    let scene = Scene::start().await;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), "kube-system");
    let secret = json!({
        "metadata": {"name": "alibaba-addon-secret"},
        "stringData": {"access-key-id": KEY.0, "access-key-secret": KEY.1}
    });
    secrets
        .create(
            &PostParams::default(),
            &serde_json::from_value(secret).unwrap(),
        )
        .await
        .unwrap();
    let replica = scene
        .replica("only", |config| {
            config
                .environment
                .insert("ECI_SECRET_KEY".into(), "wrong".into());
        })
        .await;
    scene.nodes_become(&NODES).await;
    scene.create_pod("web-1", NODE).await;
    scene.runs("web-1").await;
    replica.stop().await;
}

/// A metadata service in its hardened form: no token, no answer.
async fn metadata(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                let request = String::from_utf8_lossy(&buffer[..read]).to_lowercase();
                let line = request.lines().next().unwrap_or_default().to_owned();
                let (status, body) = if line.starts_with("put /latest/api/token") {
                    ("200 OK", "the-token".to_owned())
                } else if !request.contains("x-aliyun-ecs-metadata-token: the-token") {
                    ("403 Forbidden", String::new())
                } else if line.contains("/security-credentials/ ") {
                    ("200 OK", "NodeRole".to_owned())
                } else {
                    // The key exists in the local cloud without a token, so none is checked there.
                    let key = json!({"AccessKeyId": KEY.0, "AccessKeySecret": KEY.1, "SecurityToken": "t", "Code": "Success"});
                    ("200 OK", key.to_string())
                };
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machines_role_is_asked_for_when_there_is_no_other_key() {
    let scene = Scene::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = tokio::spawn(metadata(listener));
    let none = elastic_install::operator::settings::Texts::new();
    let (credentials, source) =
        elastic_install::operator::credentials::find(&scene.client, &none, &endpoint)
            .await
            .unwrap();
    assert_eq!(source.to_string(), "RAM role NodeRole");
    assert_eq!(credentials.access_key_id, KEY.0);
    assert_eq!(credentials.security_token.as_deref(), Some("t"));
    service.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_routes_labelled_pods_and_its_key_outlives_the_replica() {
    let scene = Scene::start().await;
    let replica = scene.replica("first", |_| ()).await;
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(scene.client.clone());
    let bundle = async || {
        let found = hooks.get_opt("vk-webhook").await.unwrap()?;
        found.webhooks?.first()?.client_config.ca_bundle.clone()
    };
    let first = eventually("webhook registered", bundle, Option::is_some).await;
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    let labelled = json!({"metadata": {"name": "vk", "labels": {"alibabacloud.com/eci": "true"}}});
    namespaces
        .create(
            &PostParams::default(),
            &serde_json::from_value(labelled).unwrap(),
        )
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), "vk");
    let number = std::sync::atomic::AtomicU32::new(0);
    let routed = async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pod = json!({
            "metadata": {"name": format!("pod-{number}")},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}
        });
        let created = pods
            .create(
                &PostParams::default(),
                &serde_json::from_value(pod).unwrap(),
            )
            .await;
        created.unwrap().spec.unwrap().node_selector
    };
    eventually("pods are routed", routed, |selector| {
        selector
            .as_ref()
            .is_some_and(|selector| selector.contains_key("type"))
    })
    .await;
    replica.stop().await;
    let next = scene.replica("second", |_| ()).await;
    scene.leads("second").await;
    assert_eq!(bundle().await, first, "the authority is kept in its Secret");
    next.stop().await;
}

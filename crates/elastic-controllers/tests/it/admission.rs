//! The webhook over a real TLS connection.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use elastic_controllers::{
    AdmissionConfig, AdmissionIdentity, IdentityFiles, WebhookAddress, follow_routing,
    run_admission, run_burst,
};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, PodSpec, Toleration};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use local_apiserver::testing::TestServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Looks again and again until `done`; shows the last state when it never is.
async fn eventually<T: Debug>(
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
        assert!(started.elapsed().as_secs() < 30, "{what}: {state:#?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn post(port: u16, authority_pem: &str, path: &str, body: &str) -> (String, Value) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap())
        .unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: webhook\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.lines().next().unwrap().to_owned(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

/// Serves the webhook for a client until the returned token is cancelled.
struct Webhook {
    address: std::net::SocketAddr,
    identity: watch::Sender<AdmissionIdentity>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Webhook {
    async fn start(client: &Client) -> Self {
        let identity = AdmissionIdentity::generate(&["127.0.0.1".to_owned()]).unwrap();
        let (sender, receiver) = watch::channel(identity);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (view, following) = follow_routing(client.clone(), BTreeMap::new(), shutdown.clone());
        tokio::spawn(following);
        let config = AdmissionConfig {
            listener,
            address: WebhookAddress::Url(format!("https://{address}")),
            identity: receiver,
        };
        let (client, stop) = (client.clone(), shutdown.clone());
        let task =
            tokio::spawn(async move { run_admission(client, config, view, stop).await.unwrap() });
        Self {
            address,
            identity: sender,
            shutdown,
            task,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_over_tls_is_answered_and_a_new_certificate_is_shown_at_once() {
    let server = TestServer::start().await;
    let webhook = Webhook::start(&server.client()).await;
    let port = webhook.address.port();
    let review = json!({"request": {"uid": "r-1", "object": {
        "metadata": {"labels": {"eci": "true"}}, "spec": {"containers": []}}}});
    let authority = webhook.identity.borrow().authority_pem.clone();
    let (status, answer) = post(port, &authority, "/mutate/pod-label", &review.to_string()).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["patch"].is_string());
    let (status, _) = post(port, &authority, "/mutate/pod-label", "nonsense").await;
    assert_eq!(status, "HTTP/1.1 400 Bad Request");

    // A rotated certificate comes by the files of a mounted Secret; a broken one changes nothing.
    let directory = tempfile::tempdir().unwrap();
    let next = AdmissionIdentity::generate(&["127.0.0.1".to_owned()]).unwrap();
    let files = IdentityFiles::in_directory(directory.path());
    std::fs::write(&files.authority, &next.authority_pem).unwrap();
    std::fs::write(&files.certificate, &next.certificate_pem).unwrap();
    std::fs::write(&files.private_key, &next.private_key_pem).unwrap();
    let broken = AdmissionIdentity {
        private_key_pem: String::new(),
        ..next.clone()
    };
    webhook.identity.send_replace(broken);
    webhook.identity.send_replace(files.load().await.unwrap());
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(server.client());
    let registered = async || {
        let found = configurations.get_opt("vk-webhook").await.unwrap()?;
        let bundle = found.webhooks?.first()?.client_config.ca_bundle.clone()?;
        String::from_utf8(bundle.0).ok()
    };
    eventually("registered", registered, |found| {
        found.as_deref() == Some(next.authority_pem.as_str())
    })
    .await;
    let (status, _) = post(
        port,
        &next.authority_pem,
        "/mutate/pod-label",
        &review.to_string(),
    )
    .await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    webhook.stop().await;
}

/// Creates a pod and returns its spec as the API server admitted it.
async fn admitted(client: &Client, namespace: &str, name: &str, labels: Value) -> PodSpec {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeSelector": {"disk": "ssd"}}
    });
    let created = pods
        .create(
            &PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await;
    created.unwrap().spec.unwrap()
}

fn is_virtual_only(spec: &PodSpec) -> bool {
    spec.node_selector
        .as_ref()
        .is_some_and(|all| all.contains_key("type"))
}

async fn create_namespace(client: &Client, name: &str, labels: Value) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
}

/// The API server may take a moment to act on the registration.
async fn until_routed(client: &Client, namespace: &str, labels: Value) -> PodSpec {
    let number = AtomicU32::new(0);
    let look = async || {
        let name = format!("early-{}", number.fetch_add(1, Ordering::SeqCst));
        admitted(client, namespace, &name, labels.clone()).await
    };
    eventually("pods are routed", look, is_virtual_only).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labelled_pods_and_namespaces_are_routed_by_the_api_server() {
    let server = TestServer::start().await;
    let client = server.client();
    let webhook = Webhook::start(&client).await;
    create_namespace(
        &client,
        "vk",
        json!({"virtual-node-affinity-injection": "enabled"}),
    )
    .await;
    let spec = until_routed(&client, "default", json!({"alibabacloud.com/eci": "true"})).await;
    assert_eq!(spec.node_selector.unwrap().len(), 1);
    let tolerations = spec.tolerations.unwrap_or_default();
    let provider = |found: &Toleration| found.key.as_deref() == Some("virtual-kubelet.io/provider");
    assert!(tolerations.iter().any(provider));
    assert!(is_virtual_only(
        &admitted(&client, "vk", "plain", json!({})).await
    ));
    let out = json!({"alibabacloud.com/eci": "false"});
    assert!(!is_virtual_only(&admitted(&client, "vk", "out", out).await));
    assert!(!is_virtual_only(
        &admitted(&client, "default", "plain", json!({})).await
    ));
    webhook.stop().await;
    // With the webhook away, pods are admitted as they are.
    assert!(!is_virtual_only(
        &admitted(&client, "vk", "later", json!({})).await
    ));
}

async fn write_selectors(client: &Client, selectors: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "eci-profile"},
        "data": {"selectors": selectors.to_string()}});
    let apply = PatchParams::apply("test").force();
    maps.patch("eci-profile", &apply, &Patch::Apply(map))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_the_profile_route_as_soon_as_they_are_written() {
    let server = TestServer::start().await;
    let client = server.client();
    let webhook = Webhook::start(&client).await;
    create_namespace(&client, "shop", json!({"burst": "on"})).await;
    write_selectors(&client, json!([
        {"name": "prefer", "objectSelector": {"matchLabels": {"lane": "p"}}, "policy": "normalNodePrefer"},
        {"name": "burst", "namespaceSelector": {"matchLabels": {"burst": "on"}}}
    ]))
    .await;
    until_routed(&client, "shop", json!({})).await;
    let prefers = admitted(&client, "shop", "prefers", json!({"lane": "p"})).await;
    assert!(!is_virtual_only(&prefers), "an earlier rule decides");
    assert!(!is_virtual_only(
        &admitted(&client, "default", "plain", json!({})).await
    ));
    write_selectors(&client, json!([])).await;
    let number = AtomicU32::new(0);
    let look = async || {
        let name = format!("late-{}", number.fetch_add(1, Ordering::SeqCst));
        admitted(&client, "shop", &name, json!({})).await
    };
    eventually("rules are gone", look, |spec| !is_virtual_only(spec)).await;
    webhook.stop().await;
}

async fn create_annotated(client: &Client, name: &str, value: &str) -> Result<Pod, kube::Error> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": {"name": name, "annotations": {"alibabacloud.com/burst-resource": value}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await
}

/// Says about a pod what the scheduler says when it finds no node.
async fn call_unschedulable(client: &Client, name: &str) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    pods.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn tolerates(client: &Client, name: &str) -> bool {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let spec = pods.get(name).await.unwrap().spec.unwrap();
    let provider = |found: &Toleration| found.key.as_deref() == Some("virtual-kubelet.io/provider");
    spec.tolerations.iter().flatten().any(provider)
}

async fn event_reasons(client: &Client, about: &str) -> Vec<String> {
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let about = all
        .into_iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(about));
    about.filter_map(|event| event.reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_nodes_come_first_and_only_a_pod_without_room_bursts() {
    let server = TestServer::start().await;
    let client = server.client();
    let webhook = Webhook::start(&client).await;
    until_routed(&client, "default", json!({"eci": "true"})).await;
    let bursting = CancellationToken::new();
    let (view, following) = follow_routing(client.clone(), BTreeMap::new(), bursting.clone());
    tokio::spawn(following);
    tokio::spawn(run_burst(client.clone(), view, bursting.clone()));
    let only = create_annotated(&client, "only", "eci_only").await.unwrap();
    assert!(is_virtual_only(&only.spec.unwrap()));
    let refused = create_annotated(&client, "odd", "spot").await.unwrap_err();
    assert!(
        refused.to_string().contains("\"spot\" is no request type"),
        "{refused}"
    );
    for name in ["first", "fits"] {
        let pod = create_annotated(&client, name, "eci").await.unwrap();
        assert!(!is_virtual_only(&pod.spec.unwrap()));
        assert!(!tolerates(&client, name).await);
    }
    call_unschedulable(&client, "first").await;
    eventually(
        "first bursts",
        async || tolerates(&client, "first").await,
        |yes| *yes,
    )
    .await;
    let told = async || event_reasons(&client, "first").await;
    eventually("told", told, |reasons| {
        reasons.contains(&"BurstToVirtualNode".to_owned())
    })
    .await;
    assert!(
        !tolerates(&client, "fits").await,
        "nothing is done before the scheduler has spoken"
    );

    // The webhook goes away: a labelled pod is admitted as it is, and repaired when it finds no room.
    let labels = json!({"alibabacloud.com/eci": "true"});
    webhook.stop().await;
    let missed = "missed";
    assert!(!is_virtual_only(
        &admitted(&client, "default", missed, labels).await
    ));
    call_unschedulable(&client, missed).await;
    eventually(
        "repaired",
        async || tolerates(&client, missed).await,
        |yes| *yes,
    )
    .await;
    let told = async || event_reasons(&client, missed).await;
    eventually("told", told, |reasons| {
        reasons.contains(&"RoutingRepaired".to_owned())
    })
    .await;
    bursting.cancel();
}

//! Metrics from a kubelet through the API server, as the autoscaler and `kubectl top` read them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elastic_metrics::{KubeletOptions, MetricsConfig, MetricsTls, run_metrics};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kubelet_api::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ClusterReviewer,
    ContainerUsage, ExecRequest, ExecSession, KubeletServer, LogOptions, NodeBackend, PodUsage,
    ServerTls, Usage,
};
use local_apiserver::{ApiServer, ApiServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{CONTROL, Cluster, ToLoopback};

const DEADLINE: Duration = Duration::from_secs(60);

/// A kubelet whose one container uses half a core.
struct HalfACore(Instant);

fn unsupported<T>() -> Result<T, BackendError> {
    Err(BackendError::Unsupported {
        message: "not in this test".to_owned(),
    })
}

#[async_trait]
impl NodeBackend for HalfACore {
    async fn pods(&self) -> Vec<Pod> {
        Vec::new()
    }

    async fn container_logs(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: LogOptions,
    ) -> Result<ByteStream, BackendError> {
        unsupported()
    }

    async fn exec(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: ExecRequest,
    ) -> Result<ExecSession, BackendError> {
        unsupported()
    }

    async fn attach(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: AttachRequest,
    ) -> Result<ExecSession, BackendError> {
        unsupported()
    }

    async fn check_pod(&self, _: &str, _: &str) -> Result<(), BackendError> {
        unsupported()
    }

    async fn port_forward(
        &self,
        _: &str,
        _: &str,
        _: u16,
    ) -> Result<(ByteReader, ByteWriter), BackendError> {
        unsupported()
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, BackendError> {
        let usage = |working_set_bytes| Usage {
            cpu_nanos: u64::try_from(self.0.elapsed().as_nanos() / 2).unwrap(),
            working_set_bytes,
            ..Usage::default()
        };
        Ok(vec![PodUsage {
            namespace: "default".to_owned(),
            name: "web-1".to_owned(),
            at: jiff::Timestamp::now(),
            total: usage(20_971_520),
            containers: vec![ContainerUsage {
                name: "web".to_owned(),
                usage: usage(10_485_760),
                ..ContainerUsage::default()
            }],
            ..PodUsage::default()
        }])
    }
}

/// A node `worker-1` whose kubelet listens on loopback.
async fn start_kubelet(server: &ApiServer, shutdown: CancellationToken) {
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let (certificate_pem, key_pem) = server
        .issue_serving_certificate(&["worker-1".to_owned()], &[address])
        .unwrap();
    let tls = ServerTls {
        certificate_pem,
        key_pem,
        client_ca_pem: server.credentials().ca_pem,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backend = Arc::new(HalfACore(Instant::now()));
    let reviewer = Arc::new(ClusterReviewer::new(server.client()));
    let kubelet = KubeletServer::new("worker-1", backend, &tls, reviewer).unwrap();
    tokio::spawn(kubelet.serve(listener, shutdown));
    let nodes: Api<Node> = Api::all(server.client());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "worker-1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}
    }});
    nodes
        .patch_status("worker-1", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

async fn start_metrics(server: &ApiServer, shutdown: CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = SocketAddr::new(CONTROL.into(), port);
    let name = "metrics-server.kube-system.svc".to_owned();
    let (certificate_pem, key_pem) = server
        .issue_serving_certificate(&[name], &[address.ip()])
        .unwrap();
    let authority_pem = server.credentials().ca_pem;
    let tls = MetricsTls {
        certificate_pem,
        key_pem,
        authority_pem,
        client_authority_pem: None,
    };
    let mut config = MetricsConfig::new(address, tls);
    config.interval = Duration::from_millis(250);
    let client = server.client();
    tokio::spawn(async move {
        run_metrics(client, config, listener, shutdown)
            .await
            .unwrap()
    });
}

async fn get(server: &ApiServer, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    server
        .client()
        .request(request)
        .await
        .unwrap_or_else(|error| json!({"error": error.to_string()}))
}

/// Waits until pods with the label are shown.
async fn shown_pods(server: &ApiServer) -> Value {
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dweb";
    let started = Instant::now();
    loop {
        let list = get(server, path).await;
        if list["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
        {
            return list;
        }
        assert!(started.elapsed() < DEADLINE, "{list:#}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_served_as_an_aggregated_api() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = ApiServerConfig::new(directory.path());
    config.dialer = Arc::new(ToLoopback);
    let server = ApiServer::start(config).await.unwrap();
    let shutdown = CancellationToken::new();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let pod = json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "shop:1"}]}
    });
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    start_kubelet(&server, shutdown.clone()).await;
    start_metrics(&server, shutdown.clone()).await;
    let list = shown_pods(&server).await;
    let usage = &list["items"][0]["containers"][0]["usage"];
    let cpu = elastic_core::quantity::millis(usage["cpu"].as_str().unwrap()).unwrap();
    assert!((400..=600).contains(&cpu), "{list:#}");
    assert_eq!(usage["memory"], "10240Ki");
    let node = get(&server, "/apis/metrics.k8s.io/v1beta1/nodes/worker-1").await;
    assert_eq!(node["usage"]["memory"], "20480Ki", "{node:#}");
    let none = get(
        &server,
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Ddb",
    )
    .await;
    assert_eq!(none["items"], json!([]));
    shutdown.cancel();
}

/// A token of an account that may read the nodes' metrics and nothing else, in a file.
async fn token_file(cluster: &Cluster, directory: &std::path::Path) -> std::path::PathBuf {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "usage"},
        "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
    });
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    cluster
        .apply(&format!("{roles}/clusterroles/usage"), role)
        .await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "usage"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "usage"},
        "subjects": [{"kind": "ServiceAccount", "name": "usage", "namespace": "shop"}]
    });
    cluster
        .apply(&format!("{roles}/clusterrolebindings/usage"), binding)
        .await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "usage", "namespace": "shop"}});
    cluster
        .apply("/api/v1/namespaces/shop/serviceaccounts/usage", account)
        .await;
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), "shop");
    let made = accounts
        .create_token_request("usage", &PostParams::default(), &request)
        .await
        .unwrap();
    let path = directory.join("token");
    std::fs::write(&path, format!("{}\n", made.status.unwrap().token)).unwrap();
    path
}

/// Kubelets asked at their own addresses: by whom they are vouched for, or whoever vouches for them.
async fn asked_directly(change: impl FnOnce(&mut KubeletOptions)) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let cluster = Cluster::prepare().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let pod = json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "shop:1"}]}
    });
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    start_kubelet(&cluster.api.server, cluster.shutdown.clone()).await;
    let mut kubelets = KubeletOptions {
        interval: Duration::from_millis(250),
        token_file: token_file(&cluster, &path).await,
        authority_file: path.join("authority.pem"),
        ..KubeletOptions::default()
    };
    std::fs::write(
        &kubelets.authority_file,
        cluster.api.server.credentials().ca_pem,
    )
    .unwrap();
    change(&mut kubelets);
    cluster
        .serve(|config| {
            config.groups.resource = true;
            config.kubelets = kubelets;
        })
        .await;
    shown_pods(&cluster.api.server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_with_the_right_to_metrics_alone_suffices() {
    let list = asked_directly(|_| {}).await;
    assert_eq!(
        list["items"][0]["containers"][0]["usage"]["memory"], "10240Ki",
        "{list:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_with_certificates_of_their_own_are_believed_when_asked_for() {
    let list = asked_directly(|kubelets| {
        kubelets.authority_file = "/nowhere".into();
        kubelets.insecure_tls = true;
    })
    .await;
    assert_eq!(list["items"][0]["metadata"]["name"], "web-1");
}

//! A cluster whose API server reaches listeners on loopback, with the metrics APIs registered.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elastic_metrics::{CustomMetricsConfig, FrontProxy, MetricsTls, run_custom_metrics};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use local_apiserver::Dialer;
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(60);
/// The metrics server's address as the cluster knows it; Endpoints take no loopback addresses.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);

/// The cluster's network, in which every address leads here.
pub struct ToLoopback;

#[async_trait]
impl Dialer for ToLoopback {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", address.port())).await
    }
}

#[async_trait]
impl elastic_metrics::Dialer for ToLoopback {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        Dialer::connect(self, address).await
    }
}

/// The token of a user who is called pusher and has no rights.
pub const PUSHERS_TOKEN: &str = "a-token-of-pusher";

/// A cluster; gone when dropped.
pub struct Cluster {
    pub api: TestServer,
    pub shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    /// With the metrics APIs as `change` wants them.
    pub async fn start(change: impl FnOnce(&mut CustomMetricsConfig)) -> Self {
        let cluster = Self::prepare().await;
        cluster.serve(change).await;
        cluster
    }

    /// With the kinds and a namespace, nothing served yet.
    pub async fn prepare() -> Self {
        let api = TestServer::start_with(|config| {
            config.dialer = Arc::new(ToLoopback);
            let pusher = ("pusher".to_owned(), "pusher".to_owned(), Vec::new());
            config
                .static_tokens
                .insert(PUSHERS_TOKEN.to_owned(), pusher);
        })
        .await;
        let cluster = Self {
            api,
            shutdown: CancellationToken::new(),
        };
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        cluster.apply("/api/v1/namespaces/shop", shop).await;
        cluster.install_definitions().await;
        cluster
    }

    /// Serves the metrics APIs as `change` wants them.
    pub async fn serve(&self, change: impl FnOnce(&mut CustomMetricsConfig)) {
        self.serve_at(CONTROL, true, change).await;
    }

    /// One replica of the metrics APIs. Another one than the first registers nothing, and stands beside it.
    pub async fn serve_at(
        &self,
        address: Ipv4Addr,
        is_first: bool,
        change: impl FnOnce(&mut CustomMetricsConfig),
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::new(address.into(), listener.local_addr().unwrap().port());
        let server = &self.api.server;
        let name = "elastic-metrics.kube-system.svc".to_owned();
        let (certificate_pem, key_pem) = server
            .issue_serving_certificate(&[name], &[address.ip()])
            .unwrap();
        let authority_pem = server.credentials().ca_pem;
        let tls = MetricsTls {
            certificate_pem,
            key_pem,
            authority_pem: authority_pem.clone(),
            client_authority_pem: None,
        };
        let front_proxy = FrontProxy::new(authority_pem, vec!["front-proxy-client".to_owned()]);
        let registered = is_first.then_some(address);
        let mut config = CustomMetricsConfig::new(registered, tls, front_proxy);
        config.relist = Duration::from_millis(500);
        config.pod_dialer = Arc::new(ToLoopback);
        change(&mut config);
        let (client, shutdown) = (self.client(), self.shutdown.clone());
        tokio::spawn(async move {
            run_custom_metrics(client, config, listener, shutdown)
                .await
                .unwrap()
        });
        if !is_first {
            self.add_to_service(address).await;
        }
    }

    async fn add_to_service(&self, address: SocketAddr) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "elastic-metrics-more", "labels": {"kubernetes.io/service-name": "elastic-metrics"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}]
        });
        let path =
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/elastic-metrics-more";
        self.apply(path, slice).await;
    }

    pub fn client(&self) -> Client {
        self.api.client()
    }

    async fn install_definitions(&self) {
        for definition in elastic_core::definitions::definitions() {
            let api: Api<CustomResourceDefinition> = Api::all(self.client());
            api.create(&Default::default(), &definition).await.unwrap();
        }
        self.wait_for("the kinds are served", async || {
            let answer = self
                .get("/apis/autoscaling.alibabacloud.com/v1beta1/elasticmetrics")
                .await;
            answer["items"].is_array().then_some(()).ok_or(answer)
        })
        .await;
    }

    /// An answer, or the Status of a refusal.
    pub async fn get(&self, path: &str) -> Value {
        get(&self.client(), path).await
    }

    /// Creates or changes an object.
    pub async fn apply(&self, path: &str, object: Value) -> Value {
        let params = PatchParams::apply("test").force();
        let request = kube::api::Request::new(path.rsplit_once('/').unwrap().0);
        let request = request
            .patch(
                path.rsplit_once('/').unwrap().1,
                &params,
                &Patch::Apply(&object),
            )
            .unwrap();
        self.client().request(request).await.unwrap()
    }

    /// An ElasticMetric in `shop`.
    pub async fn apply_metric(&self, name: &str, spec: Value) -> Value {
        let object = json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec
        });
        self.apply(&format!("{METRICS}/{name}"), object).await
    }

    /// Waits until an ElasticMetric's condition has this reason, and returns the object.
    pub async fn wait_for_reason(&self, name: &str, reason: &str) -> Value {
        self.wait_for(&format!("{name} is {reason}"), async || {
            let metric = self.get(&format!("{METRICS}/{name}")).await;
            let conditions = metric["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let found = conditions.iter().any(|one| one["reason"] == reason);
            if found {
                Ok(metric)
            } else {
                Err(metric["status"].clone())
            }
        })
        .await
    }

    /// Waits until `look` finds what it wants; it returns the last state otherwise.
    pub async fn wait_for<T>(&self, what: &str, look: impl AsyncFn() -> Result<T, Value>) -> T {
        let started = Instant::now();
        loop {
            let last = match look().await {
                Ok(found) => return found,
                Err(last) => last,
            };
            assert!(started.elapsed() < DEADLINE, "{what}: {last:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the first value at `path` is `wanted`.
    pub async fn wait_for_value(&self, path: &str, wanted: &str) -> Value {
        self.wait_for(&format!("{path} is {wanted}"), async || {
            let answer = self.get(path).await;
            if answer["items"][0]["value"] == wanted {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await
    }
}

/// ElasticMetrics in `shop`.
pub const METRICS: &str =
    "/apis/autoscaling.alibabacloud.com/v1beta1/namespaces/shop/elasticmetrics";

/// An answer, or the Status of a refusal.
pub async fn get(client: &Client, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match client.request::<Value>(request).await {
        Ok(answer) => answer,
        Err(kube::Error::Api(status)) => {
            json!({"code": status.code, "reason": status.reason, "message": status.message})
        }
        Err(error) => json!({"error": error.to_string()}),
    }
}

//! An API server, the controllers, nodes and the stand-in kubelet, in one process.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{Client, Resource};
use local_apiserver::testing::TestServer;
use local_controllers::shared::Cluster;
use local_controllers::{ControllersConfig, start_all};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that runs; ends when dropped.
pub struct World {
    pub client: Client,
    pub shutdown: CancellationToken,
    _server: TestServer,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    /// All controllers, no nodes.
    pub async fn start(config: ControllersConfig) -> Self {
        // What the controllers warn of belongs to a failing test's output.
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let server = TestServer::start().await;
        let shutdown = CancellationToken::new();
        let cluster = Cluster::new(server.client(), shutdown.clone());
        start_all(&cluster, config);
        tokio::spawn(super::kubelet::run(server.client(), shutdown.clone()));
        World {
            client: server.client(),
            shutdown,
            _server: server,
        }
    }

    /// What somebody else has started.
    pub fn around(server: TestServer, client: Client, shutdown: CancellationToken) -> Self {
        World {
            client,
            shutdown,
            _server: server,
        }
    }

    /// With three nodes like those of the recordings.
    pub async fn with_nodes() -> Self {
        let config = ControllersConfig {
            ca_pem: Some("a certificate".to_owned()),
            ..ControllersConfig::default()
        };
        let world = Self::start(config).await;
        for (name, zone) in [
            ("node-a", "zone-1"),
            ("node-b", "zone-2"),
            ("node-c", "zone-1"),
        ] {
            world.add_node(name, zone, "16", "110").await;
        }
        world
    }

    /// Adds a node.
    pub async fn add_node(&self, name: &str, zone: &str, cpu: &str, pods: &str) {
        let amounts = json!({"cpu": cpu, "memory": "64Gi", "pods": pods});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady",
                 "lastHeartbeatTime": "2026-11-21T11:00:00Z", "lastTransitionTime": "2026-11-21T11:00:00Z"}]},
        });
        let _: Node = self.create(None, node).await;
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let _: Namespace = self.create(None, json!({"metadata": {"name": name}})).await;
    }

    fn path<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> String {
        K::url_path(&(), namespace)
    }

    /// Creates an object.
    pub async fn create<K>(&self, namespace: Option<&str>, mut object: Value) -> K
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let path = Self::path::<K>(namespace);
        let request = http::Request::post(format!("{path}?fieldManager=test"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request(request).await.unwrap()
    }

    /// Sends any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body);
        self.client.request(request.unwrap()).await
    }

    /// Sends a request that must go through, with a patch's type where it is one.
    pub async fn act(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" {
            "application/strategic-merge-patch+json"
        } else {
            "application/json"
        };
        match self.send(method, path, kind, &body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Asks until the answer suits.
    pub async fn until(&self, path: &str, what: &str, suits: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = match self
                .send("GET", path, "application/json", &Value::Null)
                .await
            {
                Ok(answer) => answer,
                Err(kube::Error::Api(status)) => {
                    json!({"code": status.code, "message": status.message})
                }
                Err(error) => json!({"error": error.to_string()}),
            };
            if suits(&answer) {
                return answer;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: never at {path}, last {answer:#}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

//! An API server, a cloud, and virtual nodes between them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use elastic_node::{NodeEndpoint, VSwitch, VirtualNodeConfig, run_virtual_nodes};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use local_cloud::backend::{SimulatedBackend, StartDelay};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig, VSwitchConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const ZONES: [&str; 2] = ["cn-hangzhou-h", "cn-hangzhou-i"];
/// The first is the cloud's default.
pub const SECURITY_GROUPS: [&str; 2] = ["sg-local", "sg-other"];
pub const CLUSTER: &str = "c-test";

pub struct Scene {
    pub server: TestServer,
    pub cloud: LocalCloud,
    pub eci: EciClient,
    pub pods: Api<Pod>,
    pub client: Client,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    _directory: TempDir,
}

pub fn node(zone: &str) -> String {
    format!("virtual-kubelet-{zone}")
}

fn switch(zone: &str) -> String {
    format!("vsw-{zone}")
}

impl Scene {
    /// Everything, with virtual nodes in [`ZONES`].
    pub async fn start() -> Self {
        let mut scene = Self::without_nodes().await;
        scene.start_nodes();
        scene
    }

    pub async fn without_nodes() -> Self {
        let server = TestServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::new("id", "secret");
        let mut config = LocalCloudConfig::new(directory.path().to_owned(), credentials.clone());
        let wide = |(zone, number): (&&str, u32)| VSwitchConfig {
            id: switch(zone),
            zone: (*zone).to_owned(),
            cidr: format!("10.{number}.0.0/16"),
        };
        config.security_groups = SECURITY_GROUPS.map(str::to_owned).to_vec();
        config.v_switches = ZONES.iter().zip(4..).map(wide).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Arc::new(SimulatedBackend::new(
            StartDelay::default(),
            Arc::new(jiff::Timestamp::now),
        ));
        let cloud = LocalCloud::start(config, backend, listener, CloudSources::system())
            .await
            .unwrap();
        let config = EciConfig::new(cloud.endpoint(), "cn-hangzhou", credentials).without_limits();
        let eci = EciClient::new(config, ClientSources::system()).unwrap();
        let client = server.client();
        Self {
            pods: Api::default_namespaced(client.clone()),
            client,
            server,
            cloud,
            eci,
            running: None,
            _directory: directory,
        }
    }

    pub fn start_nodes(&mut self) {
        let endpoint = |zone: &&str| NodeEndpoint {
            zone: (*zone).to_owned(),
            address: "127.0.0.1".parse().unwrap(),
            port: 10250,
            listener: None,
        };
        self.start_nodes_at(ZONES.iter().map(endpoint).collect());
    }

    pub fn start_nodes_at(&mut self, endpoints: Vec<NodeEndpoint>) {
        self.start_nodes_with(endpoints, |_| {});
    }

    pub fn start_nodes_with(
        &mut self,
        endpoints: Vec<NodeEndpoint>,
        change: impl FnOnce(&mut VirtualNodeConfig),
    ) {
        let switches = ZONES.iter().map(|zone| VSwitch {
            id: switch(zone),
            zone: (*zone).to_owned(),
        });
        let mut config = VirtualNodeConfig::new(CLUSTER, switches.collect(), endpoints);
        config.settings.cluster_dns = vec!["10.96.0.10".to_owned()];
        config.timing.lost_after = Duration::from_millis(600);
        config.timing.orphan_after = Duration::from_millis(600);
        config.timing.sweep = Duration::from_millis(400);
        config.timing.retry_first = Duration::from_millis(200);
        config.timing.retry_most = Duration::from_millis(400);
        change(&mut config);
        let shutdown = CancellationToken::new();
        let (client, eci, token) = (self.client.clone(), self.eci.clone(), shutdown.clone());
        let task =
            tokio::spawn(
                async move { run_virtual_nodes(client, eci, config, token).await.unwrap() },
            );
        self.running = Some((shutdown, task));
    }

    pub async fn stop_nodes(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    /// A pod as the scheduler would have bound it.
    pub async fn create_pod(&self, name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": node(ZONES[0]),
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "web", "image": "shop:1",
                    "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}
                }]
            }
        });
        change(&mut pod);
        self.pods
            .create(
                &PostParams::default(),
                &serde_json::from_value(pod).unwrap(),
            )
            .await
            .unwrap()
    }

    pub async fn pod(&self, name: &str) -> Value {
        serde_json::to_value(self.pods.get_opt(name).await.unwrap()).unwrap()
    }

    pub async fn runs(&self, name: &str) -> Value {
        eventually("pod runs", async || self.pod(name).await, is_ready).await
    }

    pub async fn events(&self) -> Vec<(String, String)> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let list = events.list(&ListParams::default()).await.unwrap().items;
        list.into_iter()
            .map(|event| {
                (
                    event.reason.unwrap_or_default(),
                    event.message.unwrap_or_default(),
                )
            })
            .collect()
    }

    pub async fn pod_names(&self) -> Vec<String> {
        let list = self.pods.list(&ListParams::default()).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some((shutdown, _)) = &self.running {
            shutdown.cancel();
        }
    }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

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
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

//! An API server, a cloud, and replicas of the controller between them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest, Tag};
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use elastic_controllers::WebhookAddress;
use elastic_install::operator::{self, ElectionTiming, OperatorConfig, WebhookServing};
use elastic_node::Timing;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use local_cloud::backend::{SimulatedBackend, StartDelay};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const CLUSTER: &str = "c-install";
pub const KEY: (&str, &str) = ("LTAI-install", "secret-install");
pub const NODE: &str = "virtual-kubelet-cn-hangzhou-h";

/// The cluster's network, in which every address leads to this machine.
pub struct ToLoopback;

#[async_trait]
impl local_apiserver::Dialer for ToLoopback {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", address.port())).await
    }
}

pub struct Scene {
    pub server: TestServer,
    pub cloud: LocalCloud,
    pub eci: EciClient,
    pub client: Client,
    _directory: TempDir,
}

/// One running replica, with threads of its own so that it can die like a process.
pub struct Replica {
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
    threads: Option<Runtime>,
    pub health: SocketAddr,
}

impl Replica {
    /// As SIGTERM does.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await;
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) {
        let task = self.task.take().unwrap();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    /// As `kill -9` does: everything of it ends where it stands, and nothing is released.
    pub fn kill(self) {}
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Scene {
    pub async fn start() -> Self {
        let server = TestServer::start_with(|config| config.dialer = Arc::new(ToLoopback));
        Self::start_on(server.await).await
    }

    /// Around an API server of one's own.
    pub async fn start_on(server: TestServer) -> Self {
        // The log of a failed test is part of what it says.
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter("warn,elastic_install=info,elastic_node=info")
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::new(KEY.0, KEY.1);
        let config = LocalCloudConfig::new(directory.path().to_owned(), credentials.clone());
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
        Self {
            client: server.client(),
            server,
            cloud,
            eci,
            _directory: directory,
        }
    }

    /// What a replica is told by its environment; the key is in it.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("ECI_REGION", "cn-hangzhou".to_owned()),
            ("ECI_ENDPOINT", self.cloud.endpoint()),
            ("ECI_VSWITCH", "vsw-local-h,vsw-local-i".to_owned()),
            ("ALIYUN_CLUSTERID", CLUSTER.to_owned()),
            ("ECI_ACCESS_KEY", KEY.0.to_owned()),
            ("ECI_SECRET_KEY", KEY.1.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// A replica as administrator, with a clock that tests can wait for.
    pub async fn replica(
        &self,
        identity: &str,
        change: impl FnOnce(&mut OperatorConfig),
    ) -> Replica {
        self.replica_as(self.client.clone(), identity, change).await
    }

    /// A replica as somebody.
    pub async fn replica_as(
        &self,
        client: Client,
        identity: &str,
        change: impl FnOnce(&mut OperatorConfig),
    ) -> Replica {
        let hook = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        hook.set_nonblocking(true).unwrap();
        let url = format!("https://{}", hook.local_addr().unwrap());
        let health = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = health.local_addr().unwrap();
        let mut config = OperatorConfig {
            identity: identity.to_owned(),
            environment: self.environment(),
            node_address: "127.0.0.1".parse().unwrap(),
            kubelet_bind: "127.0.0.1".parse().unwrap(),
            kubelet_port: 0,
            webhook: Some(WebhookServing {
                listener: hook,
                address: WebhookAddress::Url(url),
            }),
            metrics: None,
            health: Some(health),
            election: ElectionTiming {
                lease: Duration::from_secs(4),
                renew: Duration::from_secs(3),
                retry: Duration::from_millis(300),
            },
            timing: Timing {
                sweep: Duration::from_millis(500),
                ..Timing::default()
            },
            metadata_endpoint: "http://127.0.0.1:1".to_owned(),
        };
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = operator::run(client, config, shutdown.clone());
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Replica {
            task: Some(threads.spawn(running)),
            threads: Some(threads),
            shutdown,
            health: address,
        }
    }

    pub async fn leader(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        let lease = leases
            .get_opt("ack-virtual-node-controller")
            .await
            .unwrap()?;
        let holder = lease.spec?.holder_identity?;
        Some(holder).filter(|holder| !holder.is_empty())
    }

    pub async fn leads(&self, identity: &str) {
        let wanted = Some(identity.to_owned());
        eventually(
            "leader",
            async || self.leader().await,
            |found| *found == wanted,
        )
        .await;
    }

    pub async fn nodes(&self) -> Vec<String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut names: Vec<String> = nodes
            .list(&ListParams::default())
            .await
            .unwrap()
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        names.sort();
        names
    }

    pub async fn nodes_become(&self, wanted: &[&str]) {
        eventually(
            "nodes",
            async || self.nodes().await,
            |found| found == wanted,
        )
        .await;
    }

    /// A pod as the scheduler would have bound it.
    pub async fn create_pod(&self, name: &str, node: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": "shop:1", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}]
            }
        });
        self.pods()
            .create(
                &PostParams::default(),
                &serde_json::from_value(pod).unwrap(),
            )
            .await
            .unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub async fn runs(&self, name: &str) {
        let phase = async || {
            let pod = self.pods().get_opt(name).await.unwrap();
            serde_json::to_value(pod.map(|pod| pod.status)).unwrap()
        };
        eventually("pod runs", phase, |status: &Value| {
            status["phase"] == "Running"
        })
        .await;
    }

    /// The cloud's list of this cluster's groups.
    pub async fn groups(&self) -> Vec<ContainerGroup> {
        let question = DescribeContainerGroupsRequest {
            tag: vec![Tag {
                key: "springtide/cluster".into(),
                value: CLUSTER.into(),
            }],
            ..DescribeContainerGroupsRequest::default()
        };
        self.eci.all_container_groups(question).await.unwrap()
    }

    pub async fn events(&self) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "kube-system");
        let list = events.list(&ListParams::default()).await.unwrap();
        list.into_iter()
            .map(|event| event.message.unwrap_or_default())
            .collect()
    }
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

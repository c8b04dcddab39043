//! What the virtual nodes have to be told.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use elastic_core::eci_profile::Environment;
use elastic_core::names::VIRTUAL_NODE_PREFIX;
use jiff::Timestamp;
use kubelet_api::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::backend::{DirectDialer, PodDialer};
use crate::tokens::LONG_LIFE;

/// One vSwitch groups may be put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VSwitch {
    /// Its id.
    pub id: String,
    /// The zone it lies in.
    pub zone: String,
}

/// Where one virtual node's kubelet API is reached.
pub struct NodeEndpoint {
    /// The zone; the node is called `virtual-kubelet-<zone>`.
    pub zone: String,
    /// The node's InternalIP.
    pub address: IpAddr,
    /// Port under which the API server reaches the listener.
    pub port: u16,
    /// Serves logs, exec and metrics, with the newest of the keys; without one the node has no kubelet API.
    pub listener: Option<(TcpListener, watch::Receiver<ServerTls>)>,
}

/// Opens the kubelet API of nodes that are added while the others run: a zone that appears in the profile, an arm64 node.
#[async_trait]
pub trait OpenEndpoint: Send + Sync {
    /// The endpoint of node `name`. The error is told on the node's events and the node runs without a kubelet API.
    async fn open(&self, name: &str, zone: &str) -> Result<NodeEndpoint, String>;
}

/// Finds the zones of vSwitches that the profile names and nobody has described.
#[async_trait]
pub trait FindZone: Send + Sync {
    /// The zone of a vSwitch; `None` when there is no such vSwitch. After an error the profile is looked at again later.
    async fn zone(&self, v_switch: &str) -> Result<Option<String>, String>;
}

/// Architecture of a virtual node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    #[default]
    Amd64,
    Arm64,
}

impl Architecture {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Which virtual node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeSpec {
    pub(crate) zone: String,
    pub(crate) architecture: Architecture,
}

impl NodeSpec {
    pub(crate) fn name(&self) -> String {
        match self.architecture {
            Architecture::Amd64 => format!("{VIRTUAL_NODE_PREFIX}{}", self.zone),
            Architecture::Arm64 => format!("{VIRTUAL_NODE_PREFIX}{}-arm64", self.zone),
        }
    }
}

/// What a virtual node claims to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// vCPU, as a quantity.
    pub cpu: String,
    /// Memory, as a quantity.
    pub memory: String,
    /// Ephemeral storage, as a quantity.
    pub ephemeral_storage: String,
    /// Pods.
    pub pods: u32,
    /// GPUs; nodes for arm64 have none.
    pub gpus: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            cpu: "10000".into(),
            memory: "40Ti".into(),
            ephemeral_storage: "100Ti".into(),
            pods: 20_000,
            gpus: 1_000,
        }
    }
}

/// Settings of the cluster that groups inherit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Addresses of the cluster's DNS; without any, groups use the cloud's.
    pub cluster_dns: Vec<String>,
    /// Addresses at which the cluster's DNS is reached without ClusterIPs; without any, groups that get none ask the
    /// cloud's.
    pub direct_dns: Vec<String>,
    /// Usually `cluster.local`.
    pub cluster_domain: String,
    /// Host and port of the API inside the cluster, for `KUBERNETES_SERVICE_*`.
    pub kubernetes_service: Option<(String, u16)>,
    /// Host and port of the API as groups reach it without ClusterIPs.
    pub api_server: Option<(String, u16)>,
    /// Default security group.
    pub security_group: Option<String>,
    /// Default resource group.
    pub resource_group: Option<String>,
    /// The network, for what is noted on pods.
    pub vpc: Option<String>,
    /// Whether groups reach Services by ClusterIP.
    pub cluster_ip: bool,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            cluster_dns: Vec::new(),
            direct_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            kubernetes_service: None,
            api_server: None,
            security_group: None,
            resource_group: None,
            vpc: None,
            cluster_ip: true,
        }
    }
}

/// How often things are looked at.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between looks while groups start or stop; stretched when a look takes long.
    pub quick_poll: Duration,
    /// Between looks for changes when nothing moves.
    pub steady_poll: Duration,
    /// Between complete comparisons of both lists; longer when there are many groups.
    pub sweep: Duration,
    /// How long a group must have been absent from the cloud's list before its pod is reported lost.
    pub lost_after: Duration,
    /// How long a group without a pod is spared, for a pod list that lags.
    pub orphan_after: Duration,
    /// First wait after a failed creation; doubled up to [`Self::retry_most`].
    pub retry_first: Duration,
    /// Longest wait between creations.
    pub retry_most: Duration,
    /// How long a zone that had no stock or no addresses is tried last.
    pub zone_rest: Duration,
    /// A pod that is not running after this gets a status that says what it waits for.
    pub pending_status_after: Duration,
    /// Renewal of the nodes' leases.
    pub lease_renewal: Duration,
    /// Complete writes of the nodes' status.
    pub node_status: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quick_poll: Duration::from_millis(60),
            steady_poll: Duration::from_secs(1),
            sweep: Duration::from_secs(5),
            lost_after: Duration::from_secs(4),
            orphan_after: Duration::from_secs(3),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
            zone_rest: Duration::from_secs(20),
            pending_status_after: Duration::from_millis(700),
            lease_renewal: Duration::from_secs(10),
            node_status: Duration::from_secs(60),
        }
    }
}

/// How service account tokens in the files of running groups are kept valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// Tokens are asked for with at least this life; a pod that asks for a longer one gets it.
    pub least_life: Duration,
    /// Whether tokens are renewed in running groups when four fifths of their life are over. Else, and where a group had
    /// better not be changed, tokens last long, and an event warns when they are about to end.
    pub renew_in_place: bool,
}

impl Default for TokenPolicy {
    /// For a cloud that does not say what a change of files does to running containers: renew, but seldom.
    fn default() -> Self {
        Self {
            least_life: LONG_LIFE,
            renew_in_place: true,
        }
    }
}

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Counts that the virtual nodes keep up to date, for whoever shows them.
#[derive(Debug, Default)]
pub struct Figures {
    groups: AtomicUsize,
    orphans: AtomicUsize,
}

impl Figures {
    /// Container groups of this cluster in the cloud.
    pub fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }

    /// Those of them that have no pod.
    pub fn orphans(&self) -> usize {
        self.orphans.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, groups: usize, orphans: usize) {
        self.groups.store(groups, Ordering::Relaxed);
        self.orphans.store(orphans, Ordering::Relaxed);
    }
}

/// Everything about the virtual nodes of one cluster.
pub struct VirtualNodeConfig {
    /// The cluster's id; groups with another one are never touched.
    pub cluster_id: String,
    /// Known vSwitches, in the order in which zones are tried unless the profile lists some of them in another one.
    pub v_switches: Vec<VSwitch>,
    /// Endpoints that are open already; one is used when its zone has a node.
    pub nodes: Vec<NodeEndpoint>,
    /// Opens the others; without it they share the first endpoint's address and have no kubelet API.
    pub open_endpoint: Option<Arc<dyn OpenEndpoint>>,
    /// Asked about vSwitches that are not among the known ones.
    pub find_zone: Option<Arc<dyn FindZone>>,
    /// Initial values of `eci-profile`.
    pub environment: Environment,
    /// What each node claims to have.
    pub capacity: Capacity,
    /// What groups inherit.
    pub settings: ClusterSettings,
    /// Shown as the kubelet's version; made from the API server's when absent.
    pub kubelet_version: Option<String>,
    /// How often things are looked at.
    pub timing: Timing,
    /// Most calls to the cloud at the same time.
    pub max_cloud_calls: usize,
    /// Most writes to the API at the same time.
    pub max_api_writes: usize,
    /// Whether the region sells the finer steps of sizes (for the size written on the pod).
    pub large_region: bool,
    /// How port-forward reaches the addresses of groups.
    pub pod_dialer: Arc<dyn PodDialer>,
    /// How service account tokens are kept valid.
    pub tokens: TokenPolicy,
    /// The clock by which tokens are renewed.
    pub clock: Clock,
    /// Kept up to date while the virtual nodes run, and zero afterwards.
    pub figures: Arc<Figures>,
}

impl VirtualNodeConfig {
    /// A configuration with defaults for everything that has one.
    pub fn new(
        cluster_id: impl Into<String>,
        v_switches: Vec<VSwitch>,
        nodes: Vec<NodeEndpoint>,
    ) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            v_switches,
            nodes,
            open_endpoint: None,
            find_zone: None,
            environment: Environment::default(),
            capacity: Capacity::default(),
            settings: ClusterSettings::default(),
            kubelet_version: None,
            timing: Timing::default(),
            max_cloud_calls: 256,
            max_api_writes: 256,
            large_region: true,
            pod_dialer: Arc::new(DirectDialer),
            tokens: TokenPolicy::default(),
            clock: Arc::new(Timestamp::now),
            figures: Arc::default(),
        }
    }

    /// Takes what the environment variables say: capacity, domain, the API's address and initial values of the profile.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        let quota = environment.quota.clone();
        self.capacity.cpu = quota.cpu.unwrap_or(self.capacity.cpu);
        self.capacity.memory = quota.memory.unwrap_or(self.capacity.memory);
        self.capacity.pods = quota.pods.unwrap_or(self.capacity.pods);
        self.capacity.gpus = quota.gpus.unwrap_or(self.capacity.gpus);
        if let Some(domain) = environment.cluster_domain.clone() {
            self.settings.cluster_domain = domain;
        }
        if let Some(seconds) = environment.token_least_life_seconds {
            self.tokens.least_life = Duration::from_secs(seconds.into());
        }
        let renewal = environment.token_renewal;
        self.tokens.renew_in_place = renewal.unwrap_or(self.tokens.renew_in_place);
        self.settings.api_server = environment.api_server.clone().or(self.settings.api_server);
        self.environment = environment;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_sets_capacity_and_domain() {
        let variables = [
            ("ECI_QUOTA_CPU", "1000"),
            ("ECI_QUOTA_POD", "7"),
            ("ECI_QUOTA_GPU", "3"),
            ("CLUSTER_DOMAIN", "shop.local"),
            ("KUBERNETES_APISERVER_HOST", "10.0.0.9"),
            ("ECI_TOKEN_LEAST_LIFE_SECONDS", "7200"),
            ("ECI_TOKEN_RENEWAL", "off"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::parse(&variables.into()).unwrap();
        let config = VirtualNodeConfig::new("c", Vec::new(), Vec::new());
        let config = config.with_environment(environment);
        assert_eq!(
            (config.capacity.cpu.as_str(), config.capacity.pods),
            ("1000", 7)
        );
        assert_eq!(config.capacity.gpus, 3);
        assert_eq!(config.capacity.memory, Capacity::default().memory);
        let expected = TokenPolicy {
            least_life: Duration::from_secs(7_200),
            renew_in_place: false,
        };
        assert_eq!(config.tokens, expected);
        assert_eq!(config.settings.cluster_domain, "shop.local");
        assert_eq!(
            config.settings.api_server,
            Some(("10.0.0.9".to_owned(), 6443))
        );
    }
}

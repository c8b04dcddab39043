//! What the virtual nodes have to be told.

use std::net::IpAddr;
use std::time::Duration;

use kubelet_api::ServerTls;
use tokio::net::TcpListener;

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
    /// Serves logs, exec and metrics; without one the node has no kubelet API.
    pub listener: Option<(TcpListener, ServerTls)>,
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
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            cpu: "10000".into(),
            memory: "40Ti".into(),
            ephemeral_storage: "100Ti".into(),
            pods: 20_000,
        }
    }
}

/// Settings of the cluster that groups inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Addresses of the cluster's DNS; without any, groups use the cloud's.
    pub cluster_dns: Vec<String>,
    /// Usually `cluster.local`.
    pub cluster_domain: String,
    /// Host and port of the API inside the cluster, for `KUBERNETES_SERVICE_*`.
    pub kubernetes_service: Option<(String, u16)>,
    /// Default security group.
    pub security_group: Option<String>,
}

/// How often things are looked at.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between looks while groups start or stop; stretched when a look takes long.
    pub quick_poll: Duration,
    /// Between looks when nothing changes, for each 200 groups.
    pub steady_poll: Duration,
    /// Between complete comparisons of both lists.
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

/// Everything about the virtual nodes of one cluster.
pub struct VirtualNodeConfig {
    /// The cluster's id; groups with another one are never touched.
    pub cluster_id: String,
    /// vSwitches, in the order in which zones are tried.
    pub v_switches: Vec<VSwitch>,
    /// One per zone.
    pub nodes: Vec<NodeEndpoint>,
    /// What each node claims to have.
    pub capacity: Capacity,
    /// What groups inherit.
    pub settings: ClusterSettings,
    /// Shown as the kubelet's version, such as `v1.34.0-springtide.0.1.0`.
    pub kubelet_version: String,
    /// How often things are looked at.
    pub timing: Timing,
    /// Most calls to the cloud at the same time.
    pub max_cloud_calls: usize,
    /// Most writes to the API at the same time.
    pub max_api_writes: usize,
    /// Whether the region sells the finer steps of sizes (for the size written on the pod).
    pub large_region: bool,
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
            capacity: Capacity::default(),
            settings: ClusterSettings {
                cluster_domain: "cluster.local".to_owned(),
                ..ClusterSettings::default()
            },
            kubelet_version: concat!("v1.34.0-springtide.", env!("CARGO_PKG_VERSION")).to_owned(),
            timing: Timing::default(),
            max_cloud_calls: 256,
            max_api_writes: 256,
            large_region: true,
        }
    }
}

/// The name of the virtual node of `zone`.
pub(crate) fn node_name(zone: &str) -> String {
    format!("{}{zone}", elastic_core::names::VIRTUAL_NODE_PREFIX)
}

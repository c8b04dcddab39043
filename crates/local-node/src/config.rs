//! What one worker is given.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use kubelet_api::ServerTls;

/// What a worker may hand out; the limits really bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Most pods at once.
    pub pods: u32,
}

/// One worker.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Node name.
    pub name: String,
    /// The node's InternalIP inside the cluster network; its kubelet listens there.
    pub address: Ipv4Addr,
    /// Port of the kubelet.
    pub kubelet_port: u16,
    /// Range of pod addresses, for example `10.30.1.0/24`.
    pub pod_cidr: String,
    /// What the node offers; also the limit of all its pods together.
    pub capacity: Capacity,
    /// Zone label.
    pub zone: String,
    /// Region label.
    pub region: String,
    /// Address of the cluster's DNS server.
    pub cluster_dns: Ipv4Addr,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Where volumes are made, one folder a pod.
    pub volumes_dir: PathBuf,
    /// Keys of the kubelet server.
    pub tls: ServerTls,
}

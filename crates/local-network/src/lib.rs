//! The network of a local cluster: a layer-3 router in a network namespace of its own, an address and a namespace
//! for each pod, service addresses balanced in user space, and cluster DNS.
//!
//! No bridge, no packet filter, no address translation: everything a cluster ever set up lives in its namespaces and
//! vanishes with them. The crate refuses to know Kubernetes: services come in as a plain [`ServiceTable`].

mod cluster;
mod dns;
mod error;
mod links;
mod names;
mod netlink;
mod netns;
mod pod;
mod pool;
mod proxy;
mod sockets;
mod table;

pub use cluster::{ClusterNetwork, NetworkConfig, PodNetwork, PodReach};
pub use dns::{DnsConfig, DnsServer};
pub use error::NetworkError;
pub use links::{CONTROL_ADDRESS, GATEWAY_ADDRESS, SERVICE_NETWORK, SERVICE_NETWORK_BITS};
pub use pool::{AddressPool, PoolError};
pub use proxy::{
    ServiceProxy,
    balance::{Backends, Lease},
    tcp::TcpRelay,
    udp::UdpRelay,
};
pub use sockets::SocketFactory;
pub use table::{
    Backend, BackendState, Balancing, Host, Protocol, Service, ServiceKey, ServicePort,
    ServiceTable,
};

//! The services of a cluster as a plain table: what the proxy, the DNS server and the gateway work from.
//!
//! Whoever fills it sends a new table with every change; readers compare and keep what did not change.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// All services of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// The services by namespace and name.
    pub services: BTreeMap<ServiceKey, Service>,
}

/// Which service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl ServiceKey {
    /// The key of a service.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// The address it is reached by; none for headless services and external names.
    pub cluster_ip: Option<Ipv4Addr>,
    /// The name outside the cluster that this service stands for.
    pub external_name: Option<String>,
    /// How long a client's connections go to the same backend, when they should.
    pub client_affinity: Option<Duration>,
    /// Its ports with their backends.
    pub ports: Vec<ServicePort>,
    /// The addresses behind it, for names. They can exist without any port.
    pub hosts: Vec<Host>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; may be empty when it is the only one.
    pub name: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number clients use.
    pub port: u16,
    /// What is balanced at entry points from outside; inside the cluster always connections.
    pub balancing: Balancing,
    /// Where connections and requests can go.
    pub backends: Vec<Backend>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The unit of balancing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balancing {
    /// Each connection goes to one backend.
    #[default]
    PerConnection,
    /// Each HTTP/1 request goes to the backend that suits best at that moment.
    PerRequest,
}

/// One place where connections can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// Whether it should be used.
    pub state: BackendState,
}

/// Whether a backend should be used. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendState {
    /// It takes new work.
    Ready,
    /// It is on its way out but still serves: new work only when nothing is ready.
    Terminating,
    /// It gets no new work; what it has goes on.
    NotReady,
}

/// An address that has a name below its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The address.
    pub ip: Ipv4Addr,
    /// Its own name, when it has one; otherwise it is named after its address.
    pub hostname: Option<String>,
    /// Only ready hosts are told to those who ask for the service.
    pub ready: bool,
}

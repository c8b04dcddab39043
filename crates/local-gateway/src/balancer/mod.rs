//! The load balancers: a listening port for each port of each service of type LoadBalancer, kept as the services and the
//! table say, and what has to be said about them on the services.

pub(crate) mod addresses;
pub(crate) mod port;
pub(crate) mod wanted;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use local_network::{Balancing, Protocol, Service, ServiceKey, ServicePort, ServiceTable};

use crate::HttpReport;
use addresses::{Addresses, LoopbackNetwork};
use port::{OpenPort, PortContext};
use wanted::WantedBalancer;

/// One port of a load balancer, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerReport {
    /// The service.
    pub service: ServiceKey,
    /// The service's port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// What is balanced.
    pub balancing: Balancing,
    /// What has been served, when requests are balanced.
    pub http: Option<HttpReport>,
}

/// What the gateway is doing. Cloning is cheap; all clones show the same.
#[derive(Clone, Default)]
pub struct Reports {
    ports: Arc<Mutex<BTreeMap<PortKey, OpenPort>>>,
}

impl Reports {
    /// Every open port, ordered by service.
    pub fn snapshot(&self) -> Vec<BalancerReport> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |(key, open): (&PortKey, &OpenPort)| {
            let http = open.report();
            let balancing = if http.is_some() {
                Balancing::PerRequest
            } else {
                Balancing::PerConnection
            };
            let (service, port, protocol) = key.clone();
            BalancerReport {
                service,
                port,
                protocol,
                address: open.address,
                balancing,
                http,
            }
        };
        ports.iter().map(report).collect()
    }
}

type PortKey = (ServiceKey, u16, Protocol);

/// What came of one port, to be told to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortOutcome {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// The number it listens on instead of its own.
    pub(crate) instead: Option<u16>,
    /// Why it does not listen at all.
    pub(crate) error: Option<String>,
}

/// What came of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None` when no address is left.
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ports: Vec<PortOutcome>,
}

pub(crate) struct Balancers {
    addresses: Addresses,
    context: PortContext,
    reports: Reports,
    failed: bool,
}

impl Balancers {
    pub(crate) fn new(network: LoopbackNetwork, context: PortContext, reports: Reports) -> Self {
        Self {
            addresses: Addresses::new(network),
            context,
            reports,
            failed: false,
        }
    }

    /// Makes the open ports what is wanted, and says what came of it.
    pub(crate) async fn follow(
        &mut self,
        wanted: &BTreeMap<ServiceKey, WantedBalancer>,
        table: &ServiceTable,
    ) -> BTreeMap<ServiceKey, Outcome> {
        let earlier = wanted
            .iter()
            .map(|(key, balancer)| (key.clone(), balancer.earlier))
            .collect();
        let addresses = self.addresses.assign(&earlier);
        self.close_unwanted(&addresses, table);
        let mut outcomes = BTreeMap::new();
        self.failed = false;
        for (key, balancer) in wanted {
            // Without a cluster address yet: nothing is promised before it can be kept.
            let Some(service) = table.services.get(key) else {
                continue;
            };
            let ip = addresses.get(key).copied();
            let mut ports = Vec::new();
            if let Some(ip) = ip {
                for port in &service.ports {
                    ports.push(self.follow_port(key, ip, service, port, balancer).await);
                }
            }
            self.failed |= ports.iter().any(|port| port.error.is_some());
            outcomes.insert(key.clone(), Outcome { ip, ports });
        }
        outcomes
    }

    /// True when some port is not served, or under another number than its own: another try may do better.
    pub(crate) fn wants_another_try(&self) -> bool {
        self.failed || self.ports().values().any(|open| !open.as_wanted)
    }

    fn ports(&self) -> std::sync::MutexGuard<'_, BTreeMap<PortKey, OpenPort>> {
        self.reports
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn close_unwanted(&self, addresses: &BTreeMap<ServiceKey, Ipv4Addr>, table: &ServiceTable) {
        self.ports().retain(|(key, number, protocol), open| {
            let service = addresses.get(key).zip(table.services.get(key));
            service.is_some_and(|(ip, service)| {
                let port = service
                    .ports
                    .iter()
                    .find(|port| port.port == *number && port.protocol == *protocol);
                port.is_some_and(|port| open.suits(*ip, port, service))
            })
        });
    }

    async fn follow_port(
        &self,
        key: &ServiceKey,
        ip: Ipv4Addr,
        service: &Service,
        port: &ServicePort,
        balancer: &WantedBalancer,
    ) -> PortOutcome {
        let port_key = (key.clone(), port.port, port.protocol);
        let substitute = self
            .ports()
            .get(&port_key)
            .is_some_and(|open| !open.as_wanted);
        if substitute && port::is_free(ip, port).await {
            self.ports().remove(&port_key);
        }
        let mut outcome = PortOutcome {
            port: port.port,
            protocol: port.protocol,
            instead: None,
            error: None,
        };
        if !self.ports().contains_key(&port_key) {
            let fallback = balancer
                .substitutes
                .get(&(port.port, port.protocol))
                .copied();
            let affinity = service.client_affinity.is_some();
            match OpenPort::open(&self.context, key, ip, port, affinity, fallback).await {
                Ok(open) => drop(self.ports().insert(port_key.clone(), open)),
                Err(error) => {
                    tracing::warn!(service = %key, port = port.port, %error, "load balancer port cannot be opened");
                    outcome.error = Some(error.to_string());
                }
            }
        }
        if let Some(open) = self.ports().get(&port_key) {
            open.update(port, service);
            outcome.instead = (!open.as_wanted).then_some(open.address.port());
        }
        outcome
    }
}

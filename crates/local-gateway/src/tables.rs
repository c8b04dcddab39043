//! From services and endpoint slices, as the API has them, to the plain table the network works from. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Service as ApiService, ServicePort as ApiServicePort},
    discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
};
use local_network::{
    Backend, BackendState, Balancing, Host, Protocol, Service, ServiceKey, ServicePort,
    ServiceTable,
};

/// The label that says which service a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// What `sessionAffinity: ClientIP` means when no time is given.
const AFFINITY_DEFAULT_SECONDS: i32 = 10_800;
const HEADLESS: &str = "None";

/// Builds the table. What cannot be understood is left out: the API refuses it where users can see it.
pub(crate) fn build(services: &[Arc<ApiService>], slices: &[Arc<EndpointSlice>]) -> ServiceTable {
    let mut slices_of: HashMap<ServiceKey, Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let service = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let namespace = slice.metadata.namespace.as_ref();
        if let (Some(service), Some(namespace)) = (service, namespace) {
            slices_of
                .entry(ServiceKey::new(namespace, service))
                .or_default()
                .push(slice);
        }
    }
    let services = services.iter().filter_map(|service| {
        let key = key_of(service)?;
        let slices = slices_of.get(&key).map(Vec::as_slice).unwrap_or_default();
        let service = service_entry(service, slices)?;
        Some((key, service))
    });
    ServiceTable {
        services: services.collect(),
    }
}

/// A service's key; `None` for an object the API cannot have sent.
pub(crate) fn key_of(service: &ApiService) -> Option<ServiceKey> {
    Some(ServiceKey::new(
        service.metadata.namespace.clone()?,
        service.metadata.name.clone()?,
    ))
}

fn service_entry(service: &ApiService, slices: &[&EndpointSlice]) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some(Service {
            external_name: spec.external_name.clone(),
            ..Service::default()
        });
    }
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    if address.is_empty() {
        // The API has not given it an address yet; it must not look headless meanwhile.
        return None;
    }
    let cluster_ip = match address {
        HEADLESS => None,
        address => Some(address.parse().ok()?),
    };
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| port_entry(port, slices))
        .collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref());
        let seconds = configured
            .and_then(|client| client.timeout_seconds)
            .unwrap_or(AFFINITY_DEFAULT_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    });
    Some(Service {
        cluster_ip,
        external_name: None,
        client_affinity: affinity,
        ports,
        hosts: hosts(slices),
    })
}

fn port_entry(port: &ApiServicePort, slices: &[&EndpointSlice]) -> Option<ServicePort> {
    let protocol = protocol(port.protocol.as_deref())?;
    let name = port.name.clone().unwrap_or_default();
    let mut backends: BTreeMap<SocketAddrV4, BackendState> = BTreeMap::new();
    for slice in slices {
        let numbers = slice.ports.iter().flatten().filter(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == name
                && self::protocol(candidate.protocol.as_deref()) == Some(protocol)
        });
        for number in numbers.filter_map(|candidate| u16::try_from(candidate.port?).ok()) {
            for (ip, endpoint) in addressed(&slice.endpoints) {
                let state = state(endpoint.conditions.as_ref());
                // While slices are rearranged an endpoint can be in two; the better news is the newer.
                let known = backends
                    .entry(SocketAddrV4::new(ip, number))
                    .or_insert(state);
                *known = (*known).min(state);
            }
        }
    }
    let backends = backends
        .into_iter()
        .map(|(address, state)| Backend { address, state })
        .collect();
    let balancing = balancing(port.app_protocol.as_deref());
    Some(ServicePort {
        name,
        protocol,
        port: u16::try_from(port.port).ok()?,
        balancing,
        backends,
    })
}

fn hosts(slices: &[&EndpointSlice]) -> Vec<Host> {
    let mut hosts: BTreeMap<Ipv4Addr, Host> = BTreeMap::new();
    for (ip, endpoint) in slices.iter().flat_map(|slice| addressed(&slice.endpoints)) {
        let ready = state(endpoint.conditions.as_ref()) == BackendState::Ready;
        let host = hosts.entry(ip).or_insert(Host {
            ip,
            hostname: endpoint.hostname.clone(),
            ready,
        });
        host.ready |= ready;
    }
    hosts.into_values().collect()
}

/// The endpoints with their address. Several addresses of one endpoint mean the same; the first one counts.
fn addressed(endpoints: &[Endpoint]) -> impl Iterator<Item = (Ipv4Addr, &Endpoint)> {
    endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint.addresses.first()?.parse().ok()?, endpoint)))
}

fn state(conditions: Option<&EndpointConditions>) -> BackendState {
    let ready = conditions
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let serving = conditions
        .and_then(|conditions| conditions.serving)
        .unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => BackendState::Ready,
        (false, true) => BackendState::Terminating,
        (false, false) => BackendState::NotReady,
    }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// HTTP/1 in clear text is balanced by request; everything else cannot be looked into or must not be taken apart.
fn balancing(app_protocol: Option<&str>) -> Balancing {
    match app_protocol.map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "http/1.1" | "kubernetes.io/http" | "kubernetes.io/ws") => {
            Balancing::PerRequest
        }
        _ => Balancing::PerConnection,
    }
}

#[cfg(test)]
mod tests;

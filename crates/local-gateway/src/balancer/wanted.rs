//! Which services want a load balancer, and what they say about the one they had. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use k8s_openapi::api::core::v1::Service as ApiService;
use local_network::{Protocol, ServiceKey};

use super::{Outcome, PortOutcome, addresses};
use crate::tables;

/// On a service: the port numbers used instead of those that other programs have, as `80/TCP=41234,…`.
pub const SUBSTITUTE_PORTS_ANNOTATION: &str = "springtide.io/load-balancer-ports";

/// A service that wants a load balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedBalancer {
    /// The address it had.
    pub(crate) earlier: Option<Ipv4Addr>,
    /// The port numbers that were used instead of its own.
    pub(crate) substitutes: BTreeMap<(u16, Protocol), u16>,
}

/// The services that want a load balancer from us: of that type, of no other provider's class, and not being deleted.
pub(crate) fn wanted(services: &[Arc<ApiService>]) -> BTreeMap<ServiceKey, WantedBalancer> {
    let wanting = services.iter().filter(|service| wants_balancer(service));
    let entry = |service: &Arc<ApiService>| {
        let earlier = recorded_address(service);
        Some((
            tables::key_of(service)?,
            WantedBalancer {
                earlier,
                substitutes: recorded_substitutes(service),
            },
        ))
    };
    wanting.filter_map(entry).collect()
}

pub(crate) fn wants_balancer(service: &ApiService) -> bool {
    let spec = service.spec.as_ref();
    service.metadata.deletion_timestamp.is_none()
        && spec.is_some_and(|spec| {
            spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
        })
}

/// The address in the status, when it is one of ours.
pub(crate) fn recorded_address(service: &ApiService) -> Option<Ipv4Addr> {
    let ingress = service
        .status
        .as_ref()?
        .load_balancer
        .as_ref()?
        .ingress
        .as_ref()?;
    let mut addresses = ingress
        .iter()
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok());
    addresses.find(|ip| addresses::is_ours(*ip))
}

/// The annotation that an outcome asks for; `None` when every port has its own number.
pub(crate) fn substitutes_annotation(outcome: &Outcome) -> Option<String> {
    let substitute = |port: &PortOutcome| {
        Some(format!(
            "{}/{}={}",
            port.port,
            name(port.protocol),
            port.instead?
        ))
    };
    let list: Vec<_> = outcome.ports.iter().filter_map(substitute).collect();
    (!list.is_empty()).then(|| list.join(","))
}

pub(crate) fn recorded_annotation(service: &ApiService) -> Option<&str> {
    service
        .metadata
        .annotations
        .as_ref()?
        .get(SUBSTITUTE_PORTS_ANNOTATION)
        .map(String::as_str)
}

fn recorded_substitutes(service: &ApiService) -> BTreeMap<(u16, Protocol), u16> {
    let entries = recorded_annotation(service).unwrap_or_default().split(',');
    let parse = |entry: &str| {
        let (port, instead) = entry.split_once('=')?;
        let (number, protocol) = port.split_once('/')?;
        let protocol = match protocol {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        Some(((number.parse().ok()?, protocol), instead.parse().ok()?))
    };
    entries.filter_map(parse).collect()
}

/// The protocol's name in the API.
pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn service(mut object: Value) -> Arc<ApiService> {
        object["metadata"]["namespace"] = json!("default");
        object["metadata"]["name"] = json!("shop");
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn only_our_load_balancers_are_wanted() {
        let wants = |object: Value| !wanted(&[service(object)]).is_empty();
        assert!(wants(json!({"spec": {"type": "LoadBalancer"}})));
        assert!(!wants(json!({"spec": {"type": "ClusterIP"}})));
        assert!(!wants(
            json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}})
        ));
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"type": "LoadBalancer"}});
        assert!(!wants(deleted));
    }

    #[test]
    fn only_addresses_of_ours_are_taken_up_again() {
        let recorded = |ip: &str| {
            let status = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
            recorded_address(&service(json!({"status": status})))
        };
        assert_eq!(recorded("127.83.4.5"), Some(Ipv4Addr::new(127, 83, 4, 5)));
        assert_eq!(recorded("192.0.2.1"), None);
        assert_eq!(recorded("nonsense"), None);
    }

    proptest! {
        #[test]
        fn an_annotation_says_what_it_was_made_from(ports in prop::collection::btree_map((any::<u16>(), any::<bool>()), any::<u16>(), 1..5)) {
            let protocol = |tcp| if tcp { Protocol::Tcp } else { Protocol::Udp };
            let outcome = |((port, tcp), instead): (&(u16, bool), &u16)| PortOutcome {
                port: *port, protocol: protocol(*tcp), instead: Some(*instead), error: None,
            };
            let outcome = Outcome { ip: None, ports: ports.iter().map(outcome).collect() };
            let annotation = substitutes_annotation(&outcome).unwrap();
            let annotated = service(json!({"metadata": {"annotations": {SUBSTITUTE_PORTS_ANNOTATION: annotation}}}));
            let expected: BTreeMap<_, _> = ports.into_iter().map(|((port, tcp), instead)| ((port, protocol(tcp)), instead)).collect();
            prop_assert_eq!(recorded_substitutes(&annotated), expected);
        }

        #[test]
        fn any_annotation_is_survived(text in ".*") {
            let annotated = service(json!({"metadata": {"annotations": {SUBSTITUTE_PORTS_ANNOTATION: text}}}));
            recorded_substitutes(&annotated);
        }
    }
}

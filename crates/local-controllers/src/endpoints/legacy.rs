//! From members to the Endpoints object that older clients read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service,
};
use serde_json::{Value, json};

use super::members::{Member, MemberPort, inherited_labels, is_headless, publishes_not_ready};

/// Upstream's bound; the rest is only in slices.
const ADDRESSES_MAX: usize = 1000;
const MANAGER_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The ports that several members share, and the members.
type Group<'a> = (Vec<&'a MemberPort>, Vec<&'a Member>);

/// The subsets: addresses that share the same ports stand together.
pub fn subsets(service: &Service, members: &[Member]) -> Vec<EndpointSubset> {
    let keeps_going = publishes_not_ready(service);
    let counted: Vec<&Member> = members
        .iter()
        .filter(|member| keeps_going || !member.is_terminating)
        .take(ADDRESSES_MAX)
        .collect();
    let mut by_port: BTreeMap<Option<&MemberPort>, Vec<&Member>> = BTreeMap::new();
    for member in &counted {
        if member.ports.is_empty() && is_headless(service) {
            by_port.entry(None).or_default().push(member);
        }
        for port in &member.ports {
            by_port.entry(Some(port)).or_default().push(member);
        }
    }
    let mut by_members: BTreeMap<Vec<(&str, &str)>, Group<'_>> = BTreeMap::new();
    for (port, members) in by_port {
        let key = members
            .iter()
            .map(|member| (member.ip.as_str(), member.uid.as_str()))
            .collect();
        let group = by_members.entry(key).or_default();
        group.0.extend(port);
        group.1 = members;
    }
    by_members
        .into_values()
        .map(|(ports, members)| subset(&ports, &members))
        .collect()
}

fn subset(ports: &[&MemberPort], members: &[&Member]) -> EndpointSubset {
    let listed = |ready: bool| {
        let mut addresses: Vec<EndpointAddress> = members
            .iter()
            .filter(|member| member.is_ready == ready)
            .map(|member| address(member))
            .collect();
        addresses.sort_by(|one, other| one.ip.cmp(&other.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|port| EndpointPort {
            name: (!port.name.is_empty()).then(|| port.name.clone()),
            port: port.number,
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    EndpointSubset {
        addresses: listed(true),
        not_ready_addresses: listed(false),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn address(member: &Member) -> EndpointAddress {
    EndpointAddress {
        ip: member.ip.clone(),
        hostname: member.hostname.clone(),
        node_name: member.node.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(member.namespace.clone()),
            name: Some(member.pod.clone()),
            uid: Some(member.uid.clone()),
            ..ObjectReference::default()
        }),
    }
}

/// The object to write, unless the existing one says the same.
pub fn wanted(
    service: &Service,
    members: &[Member],
    existing: Option<&Endpoints>,
) -> Option<Value> {
    let subsets = subsets(service, members);
    let mut labels = inherited_labels(service);
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    if let Some(existing) = existing {
        let same_subsets = existing.subsets.as_deref().unwrap_or_default() == subsets;
        if same_subsets && existing.metadata.labels.as_ref() == Some(&labels) {
            return None;
        }
    }
    let mut annotations = existing
        .and_then(|existing| existing.metadata.annotations.clone())
        .unwrap_or_default();
    annotations.remove(TRIGGER_TIME);
    annotations.remove(OVER_CAPACITY);
    if existing.is_none()
        && let Some(created) = &service.metadata.creation_timestamp
    {
        annotations.insert(TRIGGER_TIME.to_owned(), created.0.to_string());
    }
    if members.len() > ADDRESSES_MAX {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service.metadata.name,
            "namespace": service.metadata.namespace,
            "resourceVersion": existing.and_then(|existing| existing.metadata.resource_version.clone()),
            "labels": labels,
            "annotations": (!annotations.is_empty()).then_some(annotations),
        },
        "subsets": (!subsets.is_empty()).then_some(subsets),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::members::members;
    use super::super::members::tests::{pod, service};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn addresses_are_grouped_by_the_ports_they_share() {
        let service = service(json!({"selector": {"app": "w"}, "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "num", "port": 81, "targetPort": 9090}]}));
        let pods = [
            pod("p1", "10.1.9.1", true, 8080),
            pod("p2", "10.1.9.2", true, 8080),
            pod("p3", "10.1.9.3", false, 8080),
            pod("p4", "10.1.9.4", true, 8888),
        ];
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let mut found: Vec<_> = subsets(&service, &members(&service, &pods, |_| None))
            .into_iter()
            .map(|subset| {
                let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
                let ports: Vec<i32> = subset
                    .ports
                    .iter()
                    .flatten()
                    .map(|port| port.port)
                    .collect();
                (
                    ports,
                    count(&subset.addresses),
                    count(&subset.not_ready_addresses),
                )
            })
            .collect();
        found.sort();
        assert_eq!(
            found,
            [(vec![8080], 2, 1), (vec![8888], 1, 0), (vec![9090], 3, 1)]
        );
    }

    #[test]
    fn what_says_the_same_is_not_written() {
        let service = service(json!({"selector": {"app": "w"}, "ports": [{"port": 80}]}));
        let pods = [Arc::new(pod("p1", "10.1.9.1", true, 80))];
        let members = members(&service, &pods, |_| None);
        let mut written = wanted(&service, &members, None).unwrap();
        written["metadata"]
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let written: Endpoints = serde_json::from_value(written).unwrap();
        assert_eq!(wanted(&service, &members, Some(&written)), None);
        assert!(wanted(&service, &[], Some(&written)).unwrap()["subsets"].is_null());
    }
}

//! Which pods are behind a service, on which ports, in which state.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::shared::objects::{is_finished, is_ready, name, namespace, node_name, uid};
use crate::shared::selector::matches_map;

/// A port behind a service, as its pods know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberPort {
    /// The service port's name.
    pub name: String,
    /// The protocol.
    pub protocol: String,
    /// The pods' port.
    pub number: i32,
    /// The service port's application protocol.
    pub app_protocol: Option<String>,
}

/// A pod behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its address.
    pub ip: String,
    /// Its name.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: Option<String>,
    /// Its node's zone.
    pub zone: Option<String>,
    /// Its hostname, when the service names it.
    pub hostname: Option<String>,
    /// Whether traffic may go there.
    pub is_ready: bool,
    /// Whether it could serve.
    pub is_serving: bool,
    /// Whether it is going.
    pub is_terminating: bool,
    /// Its ports, in the service's order.
    pub ports: Vec<MemberPort>,
}

/// Whether the service publishes pods before they are ready.
pub fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false)
        || service
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| {
                annotations
                    .get("service.alpha.kubernetes.io/tolerate-unready-endpoints")
                    .is_some_and(|text| text == "true")
            })
}

/// Whether a service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// Whether the controller looks after a service.
pub fn is_managed(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let has_selector = spec
        .and_then(|spec| spec.selector.as_ref())
        .is_some_and(|selector| !selector.is_empty());
    has_selector && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

/// Whether a pod belongs to a service.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    matches_map(selector, pod.metadata.labels.as_ref())
}

/// The members of a service, in order of their names.
pub fn members(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<Member> {
    let all_ready = publishes_not_ready(service);
    let mut members: Vec<Member> = pods
        .iter()
        .filter(|pod| selects(service, pod) && !is_finished(pod))
        .filter_map(|pod| {
            let ip = pod
                .status
                .as_ref()?
                .pod_ip
                .clone()
                .filter(|ip| !ip.is_empty() && !ip.contains(':'))?;
            let is_terminating = pod.metadata.deletion_timestamp.is_some();
            let is_serving = is_ready(pod);
            let node = node_name(pod).map(str::to_owned);
            Some(Member {
                ip,
                pod: name(&pod.metadata).to_owned(),
                namespace: namespace(&pod.metadata).to_owned(),
                uid: uid(&pod.metadata).to_owned(),
                zone: node.as_deref().and_then(&zone_of),
                node,
                hostname: hostname(service, pod),
                is_ready: all_ready || (is_serving && !is_terminating),
                is_serving,
                is_terminating,
                ports: ports(service, pod),
            })
        })
        .collect();
    members.sort_by(|one, other| one.pod.cmp(&other.pod));
    members
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_named = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname
        .clone()
        .filter(|hostname| is_named && !hostname.is_empty())
}

/// The service's ports as this pod has them; a name that the pod does not know is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<MemberPort> {
    let given = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    given
        .iter()
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(MemberPort {
                name: port.name.clone().unwrap_or_default(),
                number: target(port, &protocol, pod)?,
                protocol,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(wanted)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let containers = spec.containers.iter().chain(sidecars);
            containers
                .flat_map(|container| container.ports.iter().flatten())
                .find_map(|own| {
                    let is_it = own.name.as_deref() == Some(wanted)
                        && own.protocol.as_deref().unwrap_or("TCP") == protocol;
                    is_it.then_some(own.container_port)
                })
        }
    }
}

/// The labels that a service's endpoints carry over from it, with the mark of a headless one.
pub fn inherited_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    } else {
        labels.remove("service.kubernetes.io/headless");
    }
    labels
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(in crate::endpoints) fn service(spec: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "w", "namespace": "n", "uid": "s", "labels": {"l": "m"}},
            "spec": spec,
        }))
        .unwrap()
    }

    pub(in crate::endpoints) fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "w"}},
            "spec": {"nodeName": "node-a", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn of(service: &Service, pods: Vec<Pod>) -> Vec<Member> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        members(service, &pods, |_| Some("zone-1".to_owned()))
    }

    #[test]
    fn named_ports_are_each_pods_own() {
        let service = service(json!({"selector": {"app": "w"}, "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "num", "port": 81, "targetPort": 9090},
            {"name": "none", "port": 82, "targetPort": "nosuch"}]}));
        let members = of(
            &service,
            vec![
                pod("b", "10.0.0.2", true, 8888),
                pod("a", "10.0.0.1", true, 8080),
            ],
        );
        let numbers = |member: &Member| {
            member
                .ports
                .iter()
                .map(|port| port.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&members[0]), [8080, 9090]);
        assert_eq!(numbers(&members[1]), [8888, 9090]);
        assert_eq!(members[0].zone.as_deref(), Some("zone-1"));
    }

    #[test]
    fn a_going_pod_serves_but_is_not_ready() {
        let service = service(json!({"selector": {"app": "w"}}));
        let mut going = pod("a", "10.0.0.1", true, 80);
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-21T11:00:00Z")).unwrap());
        let member = of(&service, vec![going]).remove(0);
        assert_eq!(
            (member.is_ready, member.is_serving, member.is_terminating),
            (false, true, true)
        );
    }

    #[test]
    fn pods_without_address_or_that_are_finished_are_left_out() {
        let service = service(json!({"selector": {"app": "w"}}));
        let mut finished = pod("f", "10.0.0.3", true, 80);
        finished.status.get_or_insert_default().phase = Some("Failed".to_owned());
        assert_eq!(of(&service, vec![pod("a", "", true, 80), finished]), []);
    }

    #[test]
    fn publishing_not_ready_pods_makes_all_ready() {
        let service = service(
            json!({"selector": {"app": "w"}, "clusterIP": "None", "publishNotReadyAddresses": true}),
        );
        let member = of(&service, vec![pod("a", "10.0.0.1", false, 80)]).remove(0);
        assert_eq!((member.is_ready, member.is_serving), (true, false));
        assert_eq!(
            inherited_labels(&service)["service.kubernetes.io/headless"],
            ""
        );
    }
}

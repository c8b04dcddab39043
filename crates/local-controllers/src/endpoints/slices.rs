//! From members to EndpointSlices: at most a hundred to a slice, one set of ports to a slice, and as few slices
//! written as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::members::{Member, MemberPort, inherited_labels};
use crate::shared::objects::name;

const ENDPOINTS_MAX: usize = 100;
/// Which service a slice belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Who looks after a slice.
pub const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this slice.
    Create(Value),
    /// Replace the slice of that name, which is at that version.
    Update(String, Value),
    /// Delete the slice of that name.
    Delete(String),
}

/// What makes the slices say what the members are.
pub fn plan(service: &Service, members: &[Member], existing: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut groups: BTreeMap<Vec<MemberPort>, Vec<&Member>> = BTreeMap::new();
    for member in members {
        groups.entry(member.ports.clone()).or_default().push(member);
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let mut unclaimed: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    unclaimed.sort_by(|one, other| name(&one.metadata).cmp(name(&other.metadata)));
    let mut drafts = Vec::new();
    let mut homeless = Vec::new();
    for (ports, members) in groups {
        let (own, rest) = unclaimed
            .into_iter()
            .partition(|slice| ports_of(slice) == ports);
        unclaimed = rest;
        let own: Vec<&Arc<EndpointSlice>> = own;
        if own.is_empty() {
            homeless.push((ports, members));
        } else {
            fill(&mut drafts, &own, ports, members);
        }
    }
    // A slice whose ports nobody has any more is used for those that have none yet.
    for (ports, members) in homeless {
        let own: Vec<_> = unclaimed.pop().into_iter().collect();
        fill(&mut drafts, &own, ports, members);
    }
    let mut actions: Vec<Action> = drafts
        .into_iter()
        .filter_map(|draft| draft.into_action(service))
        .collect();
    actions.extend(
        unclaimed
            .into_iter()
            .map(|slice| Action::Delete(name(&slice.metadata).to_owned())),
    );
    actions
}

struct Draft<'a> {
    slice: Option<&'a EndpointSlice>,
    ports: Vec<MemberPort>,
    endpoints: Vec<Endpoint>,
    is_surplus: bool,
}

/// Keeps members where they are and puts new ones where there is room, in slices that are written anyway first.
fn fill<'a>(
    drafts: &mut Vec<Draft<'a>>,
    own: &[&'a Arc<EndpointSlice>],
    ports: Vec<MemberPort>,
    members: Vec<&Member>,
) {
    let mut left: HashMap<&str, &Member> = members
        .iter()
        .map(|member| (member.uid.as_str(), *member))
        .collect();
    let mut group: Vec<Draft<'a>> = own
        .iter()
        .map(|slice| {
            let kept = slice.endpoints.iter().filter_map(|endpoint| {
                let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
                left.remove(uid).map(endpoint_of)
            });
            let endpoints = kept.take(ENDPOINTS_MAX).collect();
            Draft {
                slice: Some(slice),
                ports: ports.clone(),
                endpoints,
                is_surplus: false,
            }
        })
        .collect();
    let mut new: Vec<Endpoint> = members
        .iter()
        .filter(|member| left.contains_key(member.uid.as_str()))
        .map(|member| endpoint_of(member))
        .collect();
    let mut by_change: Vec<usize> = (0..group.len()).collect();
    by_change.sort_by_key(|index| std::cmp::Reverse(group[*index].is_changed()));
    for index in by_change {
        let room = ENDPOINTS_MAX - group[index].endpoints.len();
        group[index]
            .endpoints
            .extend(new.drain(..room.min(new.len())));
    }
    while !new.is_empty() || group.is_empty() {
        let endpoints = new.drain(..ENDPOINTS_MAX.min(new.len())).collect();
        group.push(Draft {
            slice: None,
            ports: ports.clone(),
            endpoints,
            is_surplus: false,
        });
    }
    let filled = group
        .iter()
        .filter(|draft| !draft.endpoints.is_empty())
        .count();
    let mut spared = filled > 0;
    for draft in &mut group {
        if draft.endpoints.is_empty() {
            draft.is_surplus = spared;
            spared = true;
        }
    }
    drafts.extend(group);
}

impl Draft<'_> {
    fn is_changed(&self) -> bool {
        self.slice
            .is_none_or(|slice| slice.endpoints != self.endpoints)
    }

    fn into_action(self, service: &Service) -> Option<Action> {
        let mut labels = inherited_labels(service);
        labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
        labels.insert(SERVICE_LABEL.to_owned(), name(&service.metadata).to_owned());
        let Some(slice) = self.slice else {
            return Some(Action::Create(self.body(service, &labels, None)));
        };
        if self.is_surplus {
            return Some(Action::Delete(name(&slice.metadata).to_owned()));
        }
        let is_same = !self.is_changed()
            && ports_of(slice) == self.ports
            && slice.metadata.labels.as_ref() == Some(&labels);
        if is_same {
            return None;
        }
        let body = self.body(service, &labels, Some(slice));
        Some(Action::Update(name(&slice.metadata).to_owned(), body))
    }

    fn body(
        &self,
        service: &Service,
        labels: &BTreeMap<String, String>,
        slice: Option<&EndpointSlice>,
    ) -> Value {
        let mut metadata = json!({
            "namespace": service.metadata.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service.metadata.name, "uid": service.metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        });
        match slice {
            Some(slice) => {
                metadata["name"] = json!(slice.metadata.name);
                metadata["resourceVersion"] = json!(slice.metadata.resource_version);
            }
            None => metadata["generateName"] = format!("{}-", name(&service.metadata)).into(),
        }
        if slice.is_none()
            && self.endpoints.is_empty()
            && let Some(created) = &service.metadata.creation_timestamp
        {
            metadata["annotations"] = json!({TRIGGER_TIME: created});
        }
        let ports: Vec<EndpointPort> = self.ports.iter().map(port_of).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "endpoints": (!self.endpoints.is_empty()).then_some(&self.endpoints),
            "ports": (!ports.is_empty()).then_some(&ports),
        })
    }
}

fn endpoint_of(member: &Member) -> Endpoint {
    Endpoint {
        addresses: vec![member.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(member.is_ready),
            serving: Some(member.is_serving),
            terminating: Some(member.is_terminating),
        }),
        hostname: member.hostname.clone(),
        node_name: member.node.clone(),
        zone: member.zone.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(member.namespace.clone()),
            name: Some(member.pod.clone()),
            uid: Some(member.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn port_of(port: &MemberPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<MemberPort> {
    let ports = slice.ports.iter().flatten();
    ports
        .map(|port| MemberPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            number: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::members::members;
    use super::super::members::tests::{pod, service};
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn web() -> Service {
        service(
            json!({"selector": {"app": "w"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}),
        )
    }

    fn pods(count: usize, port: i32) -> Vec<Arc<Pod>> {
        (0..count)
            .map(|index| {
                Arc::new(pod(
                    &format!("p{index:03}"),
                    &format!("10.0.0.{index}"),
                    true,
                    port,
                ))
            })
            .collect()
    }

    fn decide(pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Action> {
        plan(&web(), &members(&web(), pods, |_| None), existing)
    }

    /// Carries the actions out on a list of slices.
    fn apply(existing: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) {
        for action in actions {
            let (gone, body) = match action {
                Action::Create(mut body) => {
                    body["metadata"]["name"] = format!("w-{}", existing.len()).into();
                    (None, Some(body))
                }
                Action::Update(name, body) => (Some(name), Some(body)),
                Action::Delete(name) => (Some(name), None),
            };
            existing.retain(|slice| gone.as_deref() != slice.metadata.name.as_deref());
            existing.extend(body.map(|mut body| {
                // A list that is null on the wire is no list once it is read.
                body.as_object_mut()
                    .unwrap()
                    .retain(|_, value| !value.is_null());
                Arc::new(serde_json::from_value(body).unwrap())
            }));
        }
    }

    fn sizes(existing: &[Arc<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<usize> = existing.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let actions = decide(&[], &[]);
        let Action::Create(body) = &actions[0] else {
            panic!("{actions:?}")
        };
        assert_eq!(
            (
                body["endpoints"].is_null(),
                body["ports"].is_null(),
                actions.len()
            ),
            (true, true, 1)
        );
        let mut existing = Vec::new();
        apply(&mut existing, actions);
        assert_eq!(decide(&[], &existing), []);
    }

    #[test]
    fn the_empty_slice_is_used_for_the_first_pods() {
        let mut existing = Vec::new();
        apply(&mut existing, decide(&[], &[]));
        let actions = decide(&pods(3, 80), &existing);
        assert!(
            matches!(actions.as_slice(), [Action::Update(name, _)] if name == "w-0"),
            "{actions:?}"
        );
    }

    #[test]
    fn many_pods_share_slices_of_a_hundred_and_only_changed_ones_are_written() {
        let mut existing = Vec::new();
        let mut all = pods(250, 80);
        apply(&mut existing, decide(&all, &[]));
        assert_eq!(sizes(&existing), [50, 100, 100]);
        all.remove(120);
        let actions = decide(&all, &existing);
        assert_eq!(actions.len(), 1);
        apply(&mut existing, actions);
        assert_eq!(sizes(&existing), [50, 99, 100]);
        assert_eq!(decide(&all, &existing), []);
    }

    #[test]
    fn pods_with_other_port_numbers_get_a_slice_of_their_own() {
        let mut existing = Vec::new();
        let mut all = pods(2, 8080);
        all.push(Arc::new(pod("q", "10.0.1.1", true, 8888)));
        apply(&mut existing, decide(&all, &[]));
        assert_eq!(sizes(&existing), [1, 2]);
        all.pop();
        let actions = decide(&all, &existing);
        apply(&mut existing, actions);
        assert_eq!(sizes(&existing), [2]);
    }

    #[test]
    fn when_all_pods_go_one_slice_stays_without_ports() {
        let mut existing = Vec::new();
        apply(&mut existing, decide(&pods(150, 80), &[]));
        let actions = decide(&[], &existing);
        apply(&mut existing, actions);
        assert_eq!(sizes(&existing), [0]);
        assert_eq!(existing[0].ports.as_deref().unwrap_or_default(), []);
    }
}

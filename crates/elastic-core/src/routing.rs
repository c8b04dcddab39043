//! Which pods go to virtual nodes, why, and what that does to their spec.
//!
//! The label on the pod or its namespace beats everything the pod says about placement, as users know it; then comes the
//! annotation `burst-resource`, then the rules of `eci-profile`. A pod that is bound by name already, or that selects
//! virtual nodes by itself, keeps its own choice among them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};

use crate::eci_profile::{EciProfile, Policy};
use crate::names::{
    BURST_ECI, BURST_ECI_ONLY, BURST_RESOURCE, ECI_LABEL, FLUID_SIDECAR_TARGET, LEGACY_ECI_LABEL,
    LEGACY_NAMESPACE_LABEL, LEGACY_NAMESPACE_VALUE, NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL,
    PROVIDER_TAINT_KEY, TRUE, has_label,
};

type Labels = BTreeMap<String, String>;

/// Why a pod is sent to virtual nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By a label on the pod.
    PodLabel,
    /// By a label on its namespace.
    NamespaceLabel,
    /// By the annotation `burst-resource`.
    Annotation,
    /// By a rule of the profile.
    Selector,
}

/// Where a pod may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Where it says itself.
    Own,
    /// On virtual nodes only.
    VirtualOnly(Route),
    /// On own nodes, and on virtual nodes when there is no room on them.
    OwnFirst(Route),
    /// On any node.
    Anywhere(Route),
}

/// A pod that says something about its placement that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {reason}")]
pub struct RoutingError {
    /// The annotation.
    pub annotation: &'static str,
    /// What is wrong and what is expected.
    pub reason: String,
}

/// The decision for one pod, with the labels of its namespace.
pub fn place(
    pod: &Pod,
    namespace: Option<&Labels>,
    profile: &EciProfile,
) -> Result<Placement, RoutingError> {
    let labels = pod.metadata.labels.as_ref();
    let annotations = pod.metadata.annotations.as_ref();
    let burst = burst_resource(annotations)?;
    if let Some(route) = route(labels, namespace) {
        return Ok(Placement::VirtualOnly(route));
    }
    if let Some(placement) = burst {
        return Ok(placement);
    }
    if has_label(labels, ECI_LABEL, "false") {
        return Ok(Placement::Own);
    }
    let nothing = Labels::new();
    let rule = profile.routing_selector(labels.unwrap_or(&nothing), namespace.unwrap_or(&nothing));
    Ok(rule.map_or(Placement::Own, |rule| match rule.policy {
        Policy::VirtualNodeOnly => Placement::VirtualOnly(Route::Selector),
        Policy::NormalNodePrefer => Placement::OwnFirst(Route::Selector),
        Policy::Fair => Placement::Anywhere(Route::Selector),
        Policy::NormalNodeOnly => Placement::Own,
    }))
}

/// What `burst-resource` says, if anything. Every value but the documented ones is refused.
pub fn burst_resource(annotations: Option<&Labels>) -> Result<Option<Placement>, RoutingError> {
    let value = annotations
        .and_then(|all| all.get(BURST_RESOURCE))
        .map_or("", |value| value.trim());
    let placement = match value {
        "" => return Ok(None),
        BURST_ECI => Placement::OwnFirst(Route::Annotation),
        BURST_ECI_ONLY => Placement::VirtualOnly(Route::Annotation),
        other => {
            return Err(RoutingError {
                annotation: BURST_RESOURCE,
                reason: format!(
                    "{other:?} is no request type; expected {BURST_ECI:?}, {BURST_ECI_ONLY:?} or nothing"
                ),
            });
        }
    };
    if has_label(annotations, FLUID_SIDECAR_TARGET, BURST_ECI) {
        return Err(RoutingError {
            annotation: BURST_RESOURCE,
            reason: format!(
                "it cannot be combined with {FLUID_SIDECAR_TARGET}: {BURST_ECI}; remove one"
            ),
        });
    }
    Ok(Some(placement))
}

/// Whether the scheduler has said that the pod fits nowhere.
pub fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })
}

/// Why a waiting pod gets the toleration of virtual nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// It prefers own nodes, and these have no room.
    Overflow(Route),
    /// It should have been routed when it was created, but the webhook was away.
    Repair(Route),
}

/// What to do about a pod that waits for a node: nothing, or let it on to virtual nodes.
pub fn burst(pod: &Pod, namespace: Option<&Labels>, profile: &EciProfile) -> Option<Burst> {
    let spec = pod.spec.as_ref()?;
    let waits = pod.metadata.deletion_timestamp.is_none()
        && spec.node_name.is_none()
        && is_unschedulable(pod);
    let tolerates = spec.tolerations.iter().flatten().any(tolerates_provider);
    if !waits || tolerates {
        return None;
    }
    match place(pod, namespace, profile).ok()? {
        Placement::Own => None,
        Placement::OwnFirst(route) => Some(Burst::Overflow(route)),
        Placement::VirtualOnly(route) | Placement::Anywhere(route) => Some(Burst::Repair(route)),
    }
}

/// Whether labels of a pod ask for serverless.
pub fn pod_asks_for_serverless(labels: Option<&Labels>) -> bool {
    has_label(labels, ECI_LABEL, TRUE) || has_label(labels, LEGACY_ECI_LABEL, TRUE)
}

/// Whether labels of a namespace ask for serverless for all its pods.
pub fn namespace_asks_for_serverless(labels: Option<&Labels>) -> bool {
    has_label(labels, ECI_LABEL, TRUE)
        || has_label(labels, LEGACY_NAMESPACE_LABEL, LEGACY_NAMESPACE_VALUE)
}

/// The decision for one pod. A pod that says `alibabacloud.com/eci: "false"` stays out of its namespace's rule.
pub fn route(pod: Option<&Labels>, namespace: Option<&Labels>) -> Option<Route> {
    if pod_asks_for_serverless(pod) {
        Some(Route::PodLabel)
    } else if has_label(pod, ECI_LABEL, "false") {
        None
    } else {
        namespace_asks_for_serverless(namespace).then_some(Route::NamespaceLabel)
    }
}

/// Rewrites the placement of a pod so that only virtual nodes fit. Doing it twice changes nothing more.
pub fn route_to_virtual_nodes(spec: &mut PodSpec) {
    if spec.node_name.is_none() {
        let chosen = has_label(
            spec.node_selector.as_ref(),
            NODE_TYPE_LABEL,
            NODE_TYPE_VIRTUAL,
        );
        if !chosen {
            let selector =
                BTreeMap::from([(NODE_TYPE_LABEL.to_owned(), NODE_TYPE_VIRTUAL.to_owned())]);
            spec.node_selector = Some(selector);
            spec.affinity = None;
            spec.topology_spread_constraints = None;
        }
    }
    tolerate_virtual_nodes(spec);
}

/// Lets a pod on to virtual nodes without keeping it off others. Doing it twice changes nothing more.
pub fn tolerate_virtual_nodes(spec: &mut PodSpec) {
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.iter().any(tolerates_provider) {
        tolerations.push(Toleration {
            key: Some(PROVIDER_TAINT_KEY.to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        });
    }
}

fn tolerates_provider(toleration: &Toleration) -> bool {
    let exists = toleration.operator.as_deref() == Some("Exists");
    let any_effect = toleration
        .effect
        .as_deref()
        .is_none_or(|effect| effect.is_empty() || effect == "NoSchedule");
    exists
        && any_effect
        && toleration
            .key
            .as_deref()
            .is_none_or(|key| key.is_empty() || key == PROVIDER_TAINT_KEY)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Affinity;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_documented_label_routes() {
        for pod in [[(ECI_LABEL, "true")], [(LEGACY_ECI_LABEL, "true")]] {
            assert_eq!(route(Some(&labels(&pod)), None), Some(Route::PodLabel));
        }
        for namespace in [[(ECI_LABEL, "true")], [(LEGACY_NAMESPACE_LABEL, "enabled")]] {
            assert_eq!(
                route(None, Some(&labels(&namespace))),
                Some(Route::NamespaceLabel)
            );
        }
        assert_eq!(
            route(
                Some(&labels(&[(ECI_LABEL, "yes")])),
                Some(&labels(&[("a", "b")]))
            ),
            None
        );
    }

    #[test]
    fn a_pod_can_opt_out_of_its_namespace() {
        assert_eq!(
            route(
                Some(&labels(&[(ECI_LABEL, "false")])),
                Some(&labels(&[(ECI_LABEL, "true")]))
            ),
            None
        );
    }

    #[test]
    fn the_label_beats_the_pods_own_placement() {
        let mut spec = PodSpec {
            node_selector: Some(labels(&[("disk", "ssd")])),
            affinity: Some(Affinity::default()),
            ..PodSpec::default()
        };
        route_to_virtual_nodes(&mut spec);
        assert_eq!(
            spec.node_selector,
            Some(labels(&[("type", "virtual-kubelet")]))
        );
        assert_eq!(spec.affinity, None);
        let once = spec.clone();
        route_to_virtual_nodes(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn a_choice_among_virtual_nodes_is_kept() {
        let chosen = labels(&[
            ("type", "virtual-kubelet"),
            ("topology.kubernetes.io/zone", "z-1"),
        ]);
        let mut spec = PodSpec {
            node_selector: Some(chosen.clone()),
            ..PodSpec::default()
        };
        route_to_virtual_nodes(&mut spec);
        assert_eq!(spec.node_selector, Some(chosen));
        let mut bound = PodSpec {
            node_name: Some("virtual-kubelet-z".into()),
            ..PodSpec::default()
        };
        route_to_virtual_nodes(&mut bound);
        assert_eq!(bound.node_selector, None);
        assert_eq!(
            bound.tolerations.map(|tolerations| tolerations.len()),
            Some(1)
        );
    }

    fn pod(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.labels = Some(self::labels(labels));
        pod.metadata.annotations = Some(self::labels(annotations));
        pod.spec = Some(PodSpec::default());
        pod
    }

    fn profile() -> EciProfile {
        let selectors = r#"[
            {"name": "prefer", "objectSelector": {"matchLabels": {"lane": "prefer"}}, "policy": "normalNodePrefer"},
            {"name": "fair", "objectSelector": {"matchLabels": {"lane": "fair"}}, "policy": "fair"},
            {"name": "own", "objectSelector": {"matchLabels": {"lane": "own"}}, "policy": "normalNodeOnly"},
            {"name": "all", "namespaceSelector": {"matchLabels": {"burst": "on"}}}
        ]"#;
        EciProfile::parse(&labels(&[("selectors", selectors)])).unwrap()
    }

    #[test]
    fn each_way_to_route_leads_where_it_says_and_labels_come_first() {
        use Placement::{Anywhere, Own, OwnFirst, VirtualOnly};
        let on = [("burst", "on")];
        let serverless = [(ECI_LABEL, "true")];
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Pairs, Pairs, Pairs, Placement); 12] = [
            (&[], &[], &[], Own),
            (&[], &[], &on, VirtualOnly(Route::Selector)),
            (&[("lane", "prefer")], &[], &on, OwnFirst(Route::Selector)),
            (&[("lane", "fair")], &[], &on, Anywhere(Route::Selector)),
            (&[("lane", "own")], &[], &on, Own),
            (&[(ECI_LABEL, "false")], &[], &on, Own),
            (
                &[(ECI_LABEL, "true")],
                &[(BURST_RESOURCE, "eci")],
                &on,
                VirtualOnly(Route::PodLabel),
            ),
            (
                &[],
                &[(BURST_RESOURCE, "eci")],
                &serverless,
                VirtualOnly(Route::NamespaceLabel),
            ),
            (
                &[],
                &[(BURST_RESOURCE, "eci")],
                &on,
                OwnFirst(Route::Annotation),
            ),
            (
                &[],
                &[(BURST_RESOURCE, "eci_only")],
                &[],
                VirtualOnly(Route::Annotation),
            ),
            (&[], &[(BURST_RESOURCE, "")], &[], Own),
            (
                &[("lane", "prefer")],
                &[(BURST_RESOURCE, "eci_only")],
                &[],
                VirtualOnly(Route::Annotation),
            ),
        ];
        for (pod_labels, annotations, namespace, expected) in cases {
            let pod = pod(pod_labels, annotations);
            let found = place(&pod, Some(&labels(namespace)), &profile());
            assert_eq!(
                found,
                Ok(expected),
                "{pod_labels:?} {annotations:?} {namespace:?}"
            );
        }
    }

    #[test]
    fn a_request_type_that_is_not_known_is_refused_by_name() {
        let error = burst_resource(Some(&labels(&[(BURST_RESOURCE, "acs")]))).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "annotation alibabacloud.com/burst-resource: \"acs\" is no request type"
            )
        );
        let both = labels(&[(BURST_RESOURCE, "eci"), (FLUID_SIDECAR_TARGET, "eci")]);
        assert!(
            burst_resource(Some(&both))
                .unwrap_err()
                .reason
                .contains("cannot be combined")
        );
    }

    #[test]
    fn only_a_pod_that_fits_nowhere_bursts_and_only_once() {
        let mut waiting = pod(&[("lane", "prefer")], &[]);
        assert_eq!(burst(&waiting, None, &profile()), None);
        waiting.status = serde_json::from_value(serde_json::json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}))
        .unwrap();
        assert_eq!(
            burst(&waiting, None, &profile()),
            Some(Burst::Overflow(Route::Selector))
        );
        let mut missed = waiting.clone();
        missed.metadata.labels = Some(labels(&[(ECI_LABEL, "true")]));
        assert_eq!(
            burst(&missed, None, &profile()),
            Some(Burst::Repair(Route::PodLabel))
        );
        tolerate_virtual_nodes(waiting.spec.as_mut().unwrap());
        assert_eq!(burst(&waiting, None, &profile()), None);
        assert_eq!(waiting.spec.unwrap().node_selector, None);
    }
}

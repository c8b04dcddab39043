//! Which pods go to virtual nodes because a label says so, and what that does to their spec.
//!
//! The label on the pod or its namespace beats everything the pod says about placement, as users know it. A pod that is
//! bound by name already, or that selects virtual nodes by itself, keeps its own choice among them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Toleration};

use crate::names::{
    ECI_LABEL, LEGACY_ECI_LABEL, LEGACY_NAMESPACE_LABEL, LEGACY_NAMESPACE_VALUE, NODE_TYPE_LABEL,
    NODE_TYPE_VIRTUAL, PROVIDER_TAINT_KEY, TRUE, has_label,
};

type Labels = BTreeMap<String, String>;

/// Why a pod is sent to virtual nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By a label on the pod.
    PodLabel,
    /// By a label on its namespace.
    NamespaceLabel,
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
}

//! A pod enters a subset: what that changes in it, and how it is known later.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Toleration};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{SpreadSubset, WorkloadSpreadSpec};
use crate::names::MATCHED_SPREAD_ANNOTATION;
use crate::node_term;
use crate::patch_containers::without_strangers;
use crate::strategic_merge::{MergeError, merge_pod};

/// Which subset a pod was given to, as its annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The WorkloadSpread.
    pub name: String,
    /// The subset.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// The call that created the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What the pod's annotations say, if anything.
pub fn matched(annotations: &BTreeMap<String, String>) -> Option<Match> {
    serde_json::from_str(annotations.get(MATCHED_SPREAD_ANNOTATION)?).ok()
}

/// The pod as it is in the subset. What is no pod is given back as it was, and what the subset's patch says of containers
/// that the pod does not have is left out.
pub fn enter(pod: &Value, subset: &SpreadSubset, matched: &Match) -> Result<Value, MergeError> {
    let mut next = pod.clone();
    let Ok(mut spec) = serde_json::from_value::<PodSpec>(pod["spec"].clone()) else {
        return Ok(next);
    };
    if let Some(term) = &subset.required_node_selector_term {
        node_term::require_one_of(&mut spec, std::slice::from_ref(term));
    }
    if !subset.preferred_node_selector_terms.is_empty() {
        let affinity = spec.affinity.get_or_insert_default();
        affinity
            .node_affinity
            .get_or_insert_default()
            .preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .extend(subset.preferred_node_selector_terms.iter().cloned());
    }
    for toleration in &subset.tolerations {
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    // Only what was touched is written, so that fields not known here stay as they are.
    let written = json!(spec);
    for member in ["affinity", "tolerations"] {
        if let Some(value) = written.get(member) {
            next["spec"][member] = value.clone();
        }
    }
    if let Some(patch) = &subset.patch {
        next = merge_pod(&next, &without_strangers(&next, patch))?;
    }
    let text = json!(matched).to_string();
    next["metadata"]["annotations"][MATCHED_SPREAD_ANNOTATION] = json!(text);
    Ok(next)
}

/// The first subset that a node belongs to, for a pod that nobody gave to one.
pub fn subset_of_node(spec: &WorkloadSpreadSpec, node: &Node) -> Option<usize> {
    spec.subsets.iter().position(|subset| {
        let term = subset.required_node_selector_term.as_ref();
        term.is_none_or(|term| node_term::fits(term, &node.name_any(), node.labels()))
    })
}

/// Whether there is a node at all on which pods of the subset may run.
pub fn takes_pods_somewhere<'a>(
    subset: &SpreadSubset,
    pod: &Pod,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> bool {
    let mut tolerations: Vec<Toleration> = subset.tolerations.clone();
    let spec = pod.spec.as_ref();
    tolerations.extend(
        spec.and_then(|spec| spec.tolerations.clone())
            .unwrap_or_default(),
    );
    let selector = spec.and_then(|spec| spec.node_selector.clone());
    nodes.into_iter().any(|node| {
        let term = subset.required_node_selector_term.as_ref();
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let closed = node.spec.as_ref().and_then(|spec| spec.unschedulable);
        let mut selected = selector.iter().flatten();
        closed != Some(true)
            && term.is_none_or(|term| node_term::fits(term, &node.name_any(), node.labels()))
            && selected.all(|(key, value)| node.labels().get(key) == Some(value))
            && node_term::tolerated(&taints.unwrap_or_default(), &tolerations)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subset(value: Value) -> SpreadSubset {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_gets_its_subsets_place_patch_and_mark_and_keeps_the_rest() {
        let pod = json!({"metadata": {"generateName": "web-"}, "spec": {"futureField": 1, "tolerations": [{"key": "own"}],
            "containers": [{"name": "web", "image": "shop:1"}]}});
        let subset = subset(json!({"name": "vk",
            "requiredNodeSelectorTerm": {"matchExpressions": [{"key": "type", "operator": "In", "values": ["virtual-kubelet"]}]},
            "preferredNodeSelectorTerms": [{"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["i"]}]}}],
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "patch": {"metadata": {"labels": {"subset": "vk"}}, "spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]}}}));
        let found = Match {
            name: "spread".into(),
            subset: "vk".into(),
            uid: "u".into(),
        };
        let next = enter(&pod, &subset, &found).unwrap();
        let affinity = &next["spec"]["affinity"]["nodeAffinity"];
        let terms =
            &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchExpressions"][0]["key"], "type");
        assert_eq!(
            affinity["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"],
            5
        );
        assert_eq!(next["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(next["spec"]["containers"][0]["image"], "shop:1");
        assert_eq!(next["spec"]["containers"][0]["env"][0]["name"], "A");
        assert_eq!(next["spec"]["futureField"], 1);
        assert_eq!(next["metadata"]["labels"]["subset"], "vk");
        let annotations = serde_json::from_value(next["metadata"]["annotations"].clone()).unwrap();
        assert_eq!(matched(&annotations), Some(found));
    }

    #[test]
    fn a_patch_for_a_container_that_is_not_there_leaves_the_pod_valid() {
        let pod = json!({"spec": {"containers": [{"name": "web", "image": "shop:1"}]}});
        let subset = subset(json!({"name": "vk", "patch": {
            "metadata": {"labels": {"subset": "vk"}},
            "spec": {"containers": [{"name": "wbe", "env": [{"name": "A", "value": "1"}]}]}}}));
        let next = enter(&pod, &subset, &Match::default()).unwrap();
        assert_eq!(next["spec"]["containers"], pod["spec"]["containers"]);
        assert_eq!(next["metadata"]["labels"]["subset"], "vk");
    }

    #[test]
    fn nodes_are_told_apart_by_term_and_taint() {
        let spec: WorkloadSpreadSpec = serde_json::from_value(json!({"subsets": [
            {"name": "ecs", "requiredNodeSelectorTerm": {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}},
            {"name": "vk"}]}))
        .unwrap();
        let node = |labels: Value, taints: Value| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}),
            )
            .unwrap()
        };
        let owned = node(json!({"pool": "owned"}), json!([]));
        let taint = json!([{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]);
        let virtual_node = node(json!({"type": "virtual-kubelet"}), taint);
        assert_eq!(subset_of_node(&spec, &owned), Some(0));
        assert_eq!(subset_of_node(&spec, &virtual_node), Some(1));
        let pod = Pod::default();
        let both = [owned, virtual_node];
        assert!(takes_pods_somewhere(&spec.subsets[0], &pod, &both));
        assert!(!takes_pods_somewhere(&spec.subsets[0], &pod, &both[1..]));
        assert!(
            !takes_pods_somewhere(&spec.subsets[1], &pod, &both[1..]),
            "its taint is not tolerated"
        );
    }
}

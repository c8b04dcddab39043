//! A pod enters a unit or waits for one: what that changes in it, and how it is known later.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ResourcePolicySpec, Unit, WAIT_FOR_SCALING};
use crate::names::{
    ECI_LABEL, MATCHED_POLICY_ANNOTATION, MATCHED_SPREAD_ANNOTATION, NODE_TYPE_LABEL,
    NODE_TYPE_VIRTUAL, POLICY_GATE, UNIT_LABEL, has_label,
};
use crate::node_term;
use crate::routing::{pod_asks_for_serverless, tolerate_virtual_nodes};

/// Which unit a pod was given to, as its annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The ResourcePolicy.
    pub name: String,
    /// The unit's key; none while the pod waits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The call that created the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What the pod's annotations say, if anything.
pub fn matched(annotations: &BTreeMap<String, String>) -> Option<Match> {
    serde_json::from_str(annotations.get(MATCHED_POLICY_ANNOTATION)?).ok()
}

/// The nodes of a unit.
fn term(unit: &Unit) -> NodeSelectorTerm {
    let operator = if unit.is_virtual() { "In" } else { "NotIn" };
    let mut all = vec![node_term::requirement(
        NODE_TYPE_LABEL,
        operator,
        &[NODE_TYPE_VIRTUAL],
    )];
    all.extend(node_term::from_labels(&unit.node_selector));
    NodeSelectorTerm {
        match_expressions: Some(all),
        match_fields: None,
    }
}

/// The pod as it is in the unit, without the gate that it may have waited behind. What is no pod is given back as it was.
pub fn enter(pod: &Value, unit: &Unit, matched: &Match) -> Value {
    let mut next = pod.clone();
    let Ok(mut spec) = serde_json::from_value::<PodSpec>(pod["spec"].clone()) else {
        return next;
    };
    node_term::require_one_of(&mut spec, &[term(unit)]);
    if unit.is_virtual() {
        tolerate_virtual_nodes(&mut spec);
    }
    if let Some(gates) = &mut spec.scheduling_gates {
        gates.retain(|gate| gate.name != POLICY_GATE);
    }
    write(
        &mut next,
        &spec,
        &["affinity", "tolerations", "schedulingGates"],
    );
    for (key, value) in &unit.pod_labels {
        if key != WAIT_FOR_SCALING {
            next["metadata"]["labels"][key] = json!(value);
        }
    }
    for (key, value) in &unit.pod_annotations {
        next["metadata"]["annotations"][key] = json!(value);
    }
    mark(&mut next, matched);
    next
}

/// The pod as it is while no unit takes it: behind a gate, which keeps every scheduler off.
pub fn wait(pod: &Value, matched: &Match) -> Value {
    let mut next = pod.clone();
    let Ok(mut spec) = serde_json::from_value::<PodSpec>(pod["spec"].clone()) else {
        return next;
    };
    let gates = spec.scheduling_gates.get_or_insert_default();
    if !gates.iter().any(|gate| gate.name == POLICY_GATE) {
        gates.push(PodSchedulingGate {
            name: POLICY_GATE.to_owned(),
        });
    }
    write(&mut next, &spec, &["schedulingGates"]);
    mark(&mut next, matched);
    next
}

/// Only what was touched is written, so that fields not known here stay as they are.
fn write(pod: &mut Value, spec: &PodSpec, members: &[&str]) {
    let written = json!(spec);
    for member in members {
        if let Some(value) = written.get(member) {
            pod["spec"][member] = value.clone();
        }
    }
}

fn mark(pod: &mut Value, matched: &Match) {
    let text = json!(matched).to_string();
    pod["metadata"]["annotations"][MATCHED_POLICY_ANNOTATION] = json!(text);
}

/// Whether it waits behind the gate.
pub fn is_waiting(pod: &Pod) -> bool {
    let mut gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.any(|gate| gate.name == POLICY_GATE)
}

/// Whether no policy touches the pod: somebody else has given it its place.
pub fn leave_alone(pod: &Pod) -> bool {
    let of_daemon_set = || {
        let mut owners = pod.owner_references().iter();
        owners.any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet")
    };
    pod.annotations().contains_key(MATCHED_SPREAD_ANNOTATION)
        || pod.labels().contains_key(UNIT_LABEL)
        || of_daemon_set()
}

/// Whether the pod itself says nothing against the unit's resource.
pub fn allows(unit: &Unit, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let chosen = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_selector.as_ref());
    let asks =
        pod_asks_for_serverless(labels) || has_label(chosen, NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL);
    if unit.is_virtual() {
        !has_label(labels, ECI_LABEL, "false")
    } else {
        !asks
    }
}

/// The first unit that a node belongs to, for a pod that nobody gave to one.
pub fn unit_of_node(spec: &ResourcePolicySpec, node: &Node) -> Option<usize> {
    let mut units = spec.units.iter();
    units.position(|unit| node_term::fits(&term(unit), &node.name_any(), node.labels()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(value: Value) -> Unit {
        serde_json::from_value(value).unwrap()
    }

    fn found(unit: &str) -> Match {
        Match {
            name: "web".into(),
            unit: unit.into(),
            uid: "u".into(),
        }
    }

    #[test]
    fn a_pod_gets_its_units_place_and_texts_and_keeps_the_rest() {
        let pod = json!({"metadata": {"generateName": "web-"}, "spec": {"futureField": 1, "containers": [{"name": "web"}]}});
        let ecs = unit(json!({"resource": "ecs", "nodeSelector": {"pool": "owned"},
            "podLabels": {"tier": "owned", "k8s.aliyun.com/resource-policy-wait-for-ecs-scaling": "true"}}));
        let next = enter(&pod, &ecs, &found("ecs/pool=owned"));
        let terms = next.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms").unwrap();
        assert_eq!(
            *terms,
            json!([{"matchExpressions": [
                {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]},
                {"key": "pool", "operator": "In", "values": ["owned"]}]}])
        );
        assert_eq!(next["metadata"]["labels"], json!({"tier": "owned"}));
        assert_eq!(next["spec"]["futureField"], 1);
        assert!(next["spec"]["tolerations"].is_null());
        let annotations = serde_json::from_value(next["metadata"]["annotations"].clone()).unwrap();
        assert_eq!(matched(&annotations), Some(found("ecs/pool=owned")));

        let eci = unit(
            json!({"resource": "eci", "podAnnotations": {"k8s.aliyun.com/eci-use-specs": "1-2Gi"}}),
        );
        let next = enter(&pod, &eci, &found("eci"));
        assert_eq!(
            next["spec"]["tolerations"][0]["key"],
            "virtual-kubelet.io/provider"
        );
        assert_eq!(
            next["metadata"]["annotations"]["k8s.aliyun.com/eci-use-specs"],
            "1-2Gi"
        );
    }

    #[test]
    fn a_pod_that_waits_is_let_go_with_its_place() {
        let pod = json!({"metadata": {}, "spec": {"containers": [], "schedulingGates": [{"name": "other"}]}});
        let waiting = wait(&pod, &found(""));
        let as_pod: Pod = serde_json::from_value(waiting.clone()).unwrap();
        assert!(is_waiting(&as_pod));
        assert_eq!(matched(as_pod.annotations()).unwrap().unit, "");
        let next = enter(&waiting, &unit(json!({"resource": "eci"})), &found("eci"));
        assert_eq!(next["spec"]["schedulingGates"], json!([{"name": "other"}]));
        assert!(!is_waiting(&serde_json::from_value(next).unwrap()));
    }

    #[test]
    fn what_a_pod_says_about_serverless_is_respected() {
        let (ecs, eci) = (
            unit(json!({"resource": "ecs"})),
            unit(json!({"resource": "eci"})),
        );
        let cases = [
            (json!({"metadata": {}}), true, true),
            (
                json!({"metadata": {"labels": {"alibabacloud.com/eci": "true"}}}),
                false,
                true,
            ),
            (
                json!({"metadata": {"labels": {"alibabacloud.com/eci": "false"}}}),
                true,
                false,
            ),
            (
                json!({"metadata": {}, "spec": {"containers": [], "nodeSelector": {"type": "virtual-kubelet"}}}),
                false,
                true,
            ),
        ];
        for (pod, owned, serverless) in cases {
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(
                (allows(&ecs, &pod), allows(&eci, &pod)),
                (owned, serverless),
                "{pod:?}"
            );
        }
    }

    #[test]
    fn nodes_are_told_apart_by_type_and_label() {
        let spec: ResourcePolicySpec = serde_json::from_value(json!({"units": [
            {"resource": "ecs", "nodeSelector": {"pool": "owned"}}, {"resource": "eci"}, {"resource": "ecs"}]}))
        .unwrap();
        let node = |labels: Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap()
        };
        assert_eq!(
            unit_of_node(&spec, &node(json!({"pool": "owned"}))),
            Some(0)
        );
        assert_eq!(
            unit_of_node(&spec, &node(json!({"type": "virtual-kubelet"}))),
            Some(1)
        );
        assert_eq!(unit_of_node(&spec, &node(json!({}))), Some(2));
    }
}

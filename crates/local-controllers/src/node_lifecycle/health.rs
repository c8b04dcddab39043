//! A node's health: from its signs of life and conditions to what is written on it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use serde_json::{Value, json};

use crate::shared::objects::whole_seconds;

/// The taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are `True`, with their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Conditions that nobody can vouch for once a node is silent.
const VOUCHED_FOR: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// New conditions, merged by their type.
    pub conditions: Option<Value>,
    /// The new list of taints.
    pub taints: Option<Vec<Taint>>,
    /// Until the node counts as silent, if nothing is heard.
    pub next_look: Option<Duration>,
}

/// Decides for one node, of which something was last heard at that time.
pub fn plan(node: &Node, heard: Timestamp, grace: SignedDuration, now: Timestamp) -> Plan {
    let silent_for = now.duration_since(heard);
    let is_silent = silent_for >= grace;
    let conditions = if is_silent {
        silent_conditions(node, now)
    } else {
        None
    };
    let has_fallen_silent = conditions.is_some();
    let wanted = taints(node, has_fallen_silent, now);
    let current = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    Plan {
        conditions,
        taints: (wanted != current).then_some(wanted),
        next_look: (!is_silent).then(|| Duration::try_from(grace - silent_for).unwrap_or_default()),
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

/// Whether a node says, or is said, not to be ready. One that has no word about it yet is left alone.
pub fn is_unready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status != "True")
}

fn silent_conditions(node: &Node, now: Timestamp) -> Option<Value> {
    let now = whole_seconds(now);
    let unknown: Vec<Value> = VOUCHED_FOR
        .iter()
        .filter_map(|kind| match condition(node, kind) {
            Some(known) if known.status == "Unknown" => None,
            Some(known) => Some(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastHeartbeatTime": known.last_heartbeat_time, "lastTransitionTime": now,
            })),
            None => Some(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": now,
            })),
        })
        .collect();
    (!unknown.is_empty()).then(|| json!(unknown))
}

/// The node's taints as its conditions want them; taints of others stay where they are.
fn taints(node: &Node, has_fallen_silent: bool, now: Timestamp) -> Vec<Taint> {
    let ready = if has_fallen_silent {
        Some("Unknown")
    } else {
        condition(node, "Ready").map(|ready| ready.status.as_str())
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if let Some(key) = match ready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    } {
        wanted.extend([(key, "NoSchedule"), (key, "NoExecute")]);
    }
    for (kind, key) in PRESSURES {
        if !has_fallen_silent && condition(node, kind).is_some_and(|known| known.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let has_a_say = ready.is_some();
    let is_ours = |taint: &Taint| match taint.key.as_str() {
        NOT_READY | UNREACHABLE => has_a_say,
        UNSCHEDULABLE => taint.effect == "NoSchedule",
        key => taint.effect == "NoSchedule" && PRESSURES.iter().any(|(_, known)| *known == key),
    };
    let mut taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    taints.retain(|taint| {
        !is_ours(taint)
            || wanted
                .iter()
                .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    });
    for (key, effect) in wanted {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(whole_seconds(now)),
                value: None,
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: SignedDuration = SignedDuration::from_secs(40);

    fn node(ready: Option<&str>, taints: Value) -> Node {
        let conditions = ready.map(|status| json!([
            {"type": "Ready", "status": status, "lastHeartbeatTime": "2026-11-21T11:00:00Z"},
            {"type": "MemoryPressure", "status": "False"}, {"type": "DiskPressure", "status": "False"},
            {"type": "PIDPressure", "status": "False"}]));
        serde_json::from_value(
            json!({"spec": {"taints": taints}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    fn decide(node: &Node, silent_seconds: i64) -> Plan {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        plan(
            node,
            now - SignedDuration::from_secs(silent_seconds),
            GRACE,
            now,
        )
    }

    fn keys(plan: &Plan) -> Vec<String> {
        let taints = plan.taints.iter().flatten();
        taints
            .map(|taint| format!("{}:{}", taint.key.rsplit('/').next().unwrap(), taint.effect))
            .collect()
    }

    #[test]
    fn a_ready_node_is_left_alone_until_its_grace_ends() {
        let plan = decide(
            &node(
                Some("True"),
                json!([{"key": "mine", "effect": "NoSchedule"}]),
            ),
            10,
        );
        assert_eq!(
            plan,
            Plan {
                conditions: None,
                taints: None,
                next_look: Some(Duration::from_secs(30))
            }
        );
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_unreachable() {
        let plan = decide(
            &node(
                Some("True"),
                json!([{"key": "mine", "effect": "NoSchedule"}]),
            ),
            41,
        );
        assert_eq!(
            plan.conditions.as_ref().unwrap().as_array().unwrap().len(),
            4
        );
        assert_eq!(
            plan.conditions.as_ref().unwrap()[0]["reason"],
            "NodeStatusUnknown"
        );
        assert_eq!(
            keys(&plan),
            [
                "mine:NoSchedule",
                "unreachable:NoSchedule",
                "unreachable:NoExecute"
            ]
        );
        let never = decide(&node(None, json!([])), 41);
        assert_eq!(
            never.conditions.unwrap()[0]["reason"],
            "NodeStatusNeverUpdated"
        );
    }

    #[test]
    fn a_node_that_says_no_gets_the_other_taint_and_loses_it_again() {
        let plan = decide(&node(Some("False"), json!([])), 1);
        assert_eq!(keys(&plan), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
        let recovered = node(Some("True"), json!(plan.taints));
        assert_eq!(decide(&recovered, 1).taints, Some(Vec::new()));
    }

    #[test]
    fn a_cordoned_node_under_pressure_is_tainted_for_both() {
        let mut cordoned = node(Some("True"), json!([]));
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        let conditions = cordoned
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        conditions[2].status = "True".to_owned();
        assert_eq!(
            keys(&decide(&cordoned, 1)),
            ["disk-pressure:NoSchedule", "unschedulable:NoSchedule"]
        );
    }

    #[test]
    fn a_node_without_a_word_keeps_the_taint_it_was_born_with() {
        let newborn = node(None, json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        assert_eq!(decide(&newborn, 1).taints, None);
    }
}

//! When pods must leave a tainted node.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::scheduler::filters::is_tolerated_by;

/// When a pod must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It may stay.
    Forever,
    /// It must leave now.
    Over,
    /// It must leave after this time.
    For(Duration),
}

/// The taints of a node that drive pods out.
pub fn driving_taints(node: &Node) -> Vec<&Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .collect()
}

/// How long a pod may stay on a node with these taints.
pub fn stay(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Stay {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let mut ends: Option<Timestamp> = None;
    for taint in taints {
        let tolerating: Vec<_> = tolerations
            .iter()
            .filter(|toleration| is_tolerated_by(taint, toleration))
            .collect();
        if tolerating.is_empty() {
            return Stay::Over;
        }
        // The shortest toleration of a taint counts; one without seconds sets no end.
        if let Some(seconds) = tolerating
            .iter()
            .filter_map(|toleration| toleration.toleration_seconds)
            .min()
        {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let end = since + SignedDuration::from_secs(seconds.max(0));
            ends = Some(ends.map_or(end, |known| known.min(end)));
        }
    }
    match ends {
        None => Stay::Forever,
        Some(end) if end <= now => Stay::Over,
        Some(end) => Stay::For(Duration::try_from(end.duration_since(now)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decide(tolerations: Value) -> Stay {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
                .unwrap();
        let node: Node = serde_json::from_value(json!({"spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-11-21T11:59:00Z"}]}}))
        .unwrap();
        stay(
            &pod,
            &driving_taints(&node),
            "2026-11-21T12:00:00Z".parse().unwrap(),
        )
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_the_taint() {
        let tolerate = |seconds: Value| {
            json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds}])
        };
        assert_eq!(decide(json!([])), Stay::Over);
        assert_eq!(decide(tolerate(json!(30))), Stay::Over);
        assert_eq!(
            decide(tolerate(json!(300))),
            Stay::For(Duration::from_secs(240))
        );
        assert_eq!(decide(tolerate(Value::Null)), Stay::Forever);
        assert_eq!(decide(json!([{"operator": "Exists"}])), Stay::Forever);
    }
}

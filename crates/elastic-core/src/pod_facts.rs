//! What policies ask about a pod: whether it counts, and since when it has no place.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// Set by the virtual node while the cloud has no instance for the pod.
const INSTANCE_CREATED: &str = "ContainerInstanceCreated";

/// Whether the pod uses a place: it has not ended and nobody asked it to.
pub fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !has_ended(pod)
}

/// Whether its containers have ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when an active pod has no place: no node fits, or the cloud has no instance for it.
pub fn without_place_since(pod: &Pod) -> Option<Timestamp> {
    if !is_active(pod) || is_ready(pod) {
        return None;
    }
    let unscheduled = condition(pod, "PodScheduled").filter(|condition| {
        condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    });
    let no_instance = condition(pod, INSTANCE_CREATED)
        .filter(|condition| condition.status == "False" && is_pending(pod));
    let condition = unscheduled.or(no_instance)?;
    let since = condition
        .last_transition_time
        .as_ref()
        .or(pod.metadata.creation_timestamp.as_ref());
    since.map(|time| time.0)
}

fn is_pending(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, None | Some("" | "Pending"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[test]
    fn only_a_waiting_pod_is_without_a_place() {
        let at = "2026-01-01T00:00:00Z";
        let unscheduled = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": at});
        let waiting = pod(json!({"phase": "Pending", "conditions": [unscheduled]}));
        assert_eq!(without_place_since(&waiting), Some(at.parse().unwrap()));
        let no_stock = json!({"type": "ContainerInstanceCreated", "status": "False", "reason": "NoStock", "lastTransitionTime": at});
        let in_cloud = pod(json!({"phase": "Pending", "conditions": [no_stock]}));
        assert_eq!(without_place_since(&in_cloud), Some(at.parse().unwrap()));
        let gated = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastTransitionTime": at});
        assert_eq!(
            without_place_since(&pod(json!({"conditions": [gated]}))),
            None
        );
        let mut going = waiting.clone();
        going.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at.parse().unwrap()),
        );
        assert_eq!(without_place_since(&going), None);
        assert_eq!(without_place_since(&pod(json!({"phase": "Failed"}))), None);
    }
}

//! Which pods go first when there are too many.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::shared::objects::{node_name, phase, ready_since, uid};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders pods, the first to go in front: unassigned, pending, unready, cheap, crowded, ready for a shorter time (by
/// powers of two), restarted more often, younger (by powers of two).
pub fn rank(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for node in related.iter().filter_map(|pod| node_name(pod)) {
        *per_node.entry(node).or_default() += 1;
    }
    let mut keyed: Vec<(Traits, Arc<Pod>)> = pods
        .iter()
        .map(|pod| (Traits::of(pod, &per_node, now), Arc::clone(pod)))
        .collect();
    keyed.sort_by(|(one, _), (other, _)| one.compare(other));
    for (slot, (_, pod)) in pods.iter_mut().zip(keyed) {
        *slot = pod;
    }
}

/// What the order looks at, read once per pod.
struct Traits {
    is_assigned: bool,
    phase_rank: u8,
    ready_since: Option<Timestamp>,
    cost: i32,
    crowd: usize,
    ready_age_log: i32,
    restarts: i32,
    sidecar_restarts: i32,
    created: Option<Timestamp>,
    age_log: i32,
    uid: String,
}

impl Traits {
    fn of(pod: &Pod, per_node: &HashMap<&str, usize>, now: Timestamp) -> Self {
        let node = node_name(pod);
        let ready_since = ready_since(pod);
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Traits {
            is_assigned: node.is_some(),
            phase_rank: match phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                "Running" => 2,
                _ => 0,
            },
            ready_since,
            cost: deletion_cost(pod),
            crowd: node
                .and_then(|node| per_node.get(node))
                .copied()
                .unwrap_or(0),
            ready_age_log: age_log(ready_since, now),
            restarts: most_restarts(pod),
            sidecar_restarts: most_sidecar_restarts(pod),
            created,
            age_log: age_log(created, now),
            uid: uid(&pod.metadata).to_owned(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        (self.is_assigned.cmp(&other.is_assigned))
            .then(self.phase_rank.cmp(&other.phase_rank))
            .then(self.ready_since.is_some().cmp(&other.ready_since.is_some()))
            .then(self.cost.cmp(&other.cost))
            .then(other.crowd.cmp(&self.crowd))
            .then_with(|| self.compare_ready_time(other))
            .then(other.restarts.cmp(&self.restarts))
            .then(other.sidecar_restarts.cmp(&self.sidecar_restarts))
            .then_with(|| self.compare_age(other))
    }

    fn compare_ready_time(&self, other: &Self) -> Ordering {
        match (self.ready_since, other.ready_since) {
            (Some(one), Some(two)) if one != two => self
                .ready_age_log
                .cmp(&other.ready_age_log)
                .then_with(|| self.uid.cmp(&other.uid)),
            _ => Ordering::Equal,
        }
    }

    fn compare_age(&self, other: &Self) -> Ordering {
        if self.created == other.created {
            return Ordering::Equal;
        }
        self.age_log
            .cmp(&other.age_log)
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

/// The cost annotation; anything that is not a plain 32-bit number counts as 0.
pub fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DELETION_COST));
    text.filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn age_log(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let nanos = since.map_or(0, |since| now.duration_since(since).as_nanos());
    u64::try_from(nanos)
        .ok()
        .and_then(u64::checked_ilog2)
        .and_then(|log| i32::try_from(log).ok())
        .unwrap_or(-1)
}

fn most_restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

fn most_sidecar_restarts(pod: &Pod) -> i32 {
    let is_sidecar = |name: &str| {
        pod.spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .any(|container| {
                container.name == name && container.restart_policy.as_deref() == Some("Always")
            })
    };
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.init_container_statuses.as_deref());
    let sidecars = statuses
        .unwrap_or_default()
        .iter()
        .filter(|status| is_sidecar(&status.name));
    sidecars
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn pod(
        name: &str,
        node: Option<&str>,
        phase: &str,
        ready: Option<&str>,
        extra: Value,
    ) -> Arc<Pod> {
        let conditions = ready
            .map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        let mut object = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-11-21T11:00:00Z"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase, "conditions": conditions},
        });
        if let Some(cost) = extra.get("cost") {
            object["metadata"]["annotations"] = json!({DELETION_COST: cost});
        }
        if let Some(count) = extra.get("restarts") {
            object["status"]["containerStatuses"] = json!([{"name": "c", "restartCount": count, "image": "", "imageID": "", "ready": true}]);
        }
        if let Some(created) = extra.get("created") {
            object["metadata"]["creationTimestamp"] = created.clone();
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn order(mut pods: Vec<Arc<Pod>>) -> Vec<String> {
        let related = pods.clone();
        rank(&mut pods, &related, now());
        pods.iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect()
    }

    const OLD: Option<&str> = Some("2026-11-21T11:00:00Z");

    #[test]
    fn the_less_a_pod_serves_the_earlier_it_goes() {
        let pods = vec![
            pod("ready", Some("x"), "Running", OLD, json!({})),
            pod("unready", Some("y"), "Running", None, json!({})),
            pod("pending", Some("z"), "Pending", None, json!({})),
            pod("unassigned", None, "Pending", None, json!({})),
        ];
        assert_eq!(order(pods), ["unassigned", "pending", "unready", "ready"]);
    }

    #[test]
    fn cost_counts_only_among_pods_of_the_same_readiness() {
        let pods = vec![
            pod("high", Some("a"), "Running", OLD, json!({"cost": "100"})),
            pod("none", Some("b"), "Running", OLD, json!({})),
            pod("low", Some("c"), "Running", OLD, json!({"cost": "-5"})),
            pod("broken", Some("d"), "Running", OLD, json!({"cost": "+7"})),
            pod(
                "unready-high",
                Some("e"),
                "Running",
                None,
                json!({"cost": "1000"}),
            ),
        ];
        let order = order(pods);
        assert_eq!(order[..2], ["unready-high", "low"]);
        assert_eq!(order[4], "high");
    }

    #[test]
    fn crowded_nodes_are_emptied_first() {
        let pods = vec![
            pod("b1", Some("b"), "Running", OLD, json!({})),
            pod("a1", Some("a"), "Running", OLD, json!({})),
            pod("a2", Some("a"), "Running", OLD, json!({})),
        ];
        assert_eq!(order(pods)[2], "b1");
    }

    #[test]
    fn ready_times_are_compared_by_powers_of_two_then_restarts_then_age() {
        let pods = vec![
            pod("old", Some("a"), "Running", OLD, json!({})),
            pod(
                "young",
                Some("b"),
                "Running",
                Some("2026-11-21T11:59:59Z"),
                json!({}),
            ),
        ];
        assert_eq!(order(pods), ["young", "old"]);
        let pods = vec![
            pod("r0", Some("a"), "Running", OLD, json!({"restarts": 0})),
            pod("r9", Some("b"), "Running", OLD, json!({"restarts": 9})),
            pod("r5", Some("c"), "Running", OLD, json!({"restarts": 5})),
        ];
        assert_eq!(order(pods), ["r9", "r5", "r0"]);
        let pods = vec![
            pod(
                "elder",
                Some("a"),
                "Running",
                OLD,
                json!({"created": "2026-11-21T10:00:00Z"}),
            ),
            pod(
                "newer",
                Some("b"),
                "Running",
                OLD,
                json!({"created": "2026-11-21T11:59:50Z"}),
            ),
        ];
        assert_eq!(order(pods), ["newer", "elder"]);
    }
}

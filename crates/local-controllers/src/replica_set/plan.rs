//! What a ReplicaSet does next, from its spec and the pods around it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use super::victims::rank;
use crate::shared::objects::{is_active, is_finished, uid};
use crate::shared::selector;

/// More than this is created or deleted in the next round, after the first has been seen.
const BURST_PODS_MAX: usize = 5000;

/// What the decision looks at.
pub struct State<'a> {
    /// The set.
    pub set: &'a ReplicaSet,
    /// The pods that name it as their controller.
    pub owned: Vec<Arc<Pod>>,
    /// The pods of its namespace that nobody controls.
    pub uncontrolled: Vec<Arc<Pod>>,
    /// Whether everything asked for earlier has been seen.
    pub expectations_met: bool,
}

/// How many pods to make or which to delete.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// As many as wanted, or not known for sure.
    Nothing,
    /// That many more.
    Create(usize),
    /// That many less.
    Delete(usize),
}

/// What to do.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Pods that match and nobody controls.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods that do not match any more.
    pub release: Vec<Arc<Pod>>,
    /// The pods that the status counts.
    pub counted: Vec<Arc<Pod>>,
    /// More or fewer pods.
    pub change: Change,
}

/// Decides.
pub fn plan(state: State<'_>) -> Plan {
    let set = state.set;
    let is_going = set.metadata.deletion_timestamp.is_some();
    let matches = |pod: &Pod| {
        set.spec
            .as_ref()
            .is_some_and(|spec| selector::matches(&spec.selector, pod.metadata.labels.as_ref()))
    };
    let (mut counted, mut release) = (Vec::new(), Vec::new());
    for pod in state.owned {
        if matches(&pod) {
            counted.push(pod);
        } else if !is_going && pod.metadata.deletion_timestamp.is_none() {
            release.push(pod);
        }
    }
    let mut adopt = Vec::new();
    if !is_going {
        adopt.extend(
            state
                .uncontrolled
                .into_iter()
                .filter(|pod| is_active(pod) && matches(pod)),
        );
    }
    counted.extend(adopt.iter().cloned());
    counted.retain(|pod| is_active(pod));
    let change = if is_going || !state.expectations_met {
        Change::Nothing
    } else {
        change(wanted_replicas(set), counted.len())
    };
    Plan {
        adopt,
        release,
        counted,
        change,
    }
}

/// The wanted number of pods.
pub fn wanted_replicas(set: &ReplicaSet) -> usize {
    let replicas = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

fn change(wanted: usize, actual: usize) -> Change {
    match wanted.cmp(&actual) {
        std::cmp::Ordering::Equal => Change::Nothing,
        std::cmp::Ordering::Greater => Change::Create((wanted - actual).min(BURST_PODS_MAX)),
        std::cmp::Ordering::Less => Change::Delete((actual - wanted).min(BURST_PODS_MAX)),
    }
}

/// The pods to delete. `related` are the active pods of all sets with the same owner; they say how crowded nodes are.
pub fn choose_victims(
    mut pods: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        rank(&mut pods, related, now);
        pods.truncate(count);
    }
    pods
}

/// Whether an update of a pod can matter to its set.
pub fn is_relevant(old: &Pod, new: &Pod) -> bool {
    let ready = crate::shared::objects::ready_since;
    uid(&old.metadata) != uid(&new.metadata)
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || is_finished(old) != is_finished(new)
        || ready(old) != ready(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "set", "namespace": "n", "uid": "s"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}},
                     "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}},
        }))
        .unwrap()
    }

    fn pod(name: &str, app: &str, more: Value) -> Arc<Pod> {
        let mut object = json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": app}},
            "status": {"phase": "Running"},
        });
        if let Some(phase) = more.get("phase") {
            object["status"]["phase"] = phase.clone();
        }
        if let Some(time) = more.get("deleted") {
            object["metadata"]["deletionTimestamp"] = time.clone();
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn decide(
        set: &ReplicaSet,
        owned: Vec<Arc<Pod>>,
        uncontrolled: Vec<Arc<Pod>>,
        met: bool,
    ) -> Plan {
        plan(State {
            set,
            owned,
            uncontrolled,
            expectations_met: met,
        })
    }

    #[test]
    fn missing_pods_are_created_and_surplus_ones_deleted() {
        let two = vec![pod("a", "a", json!({})), pod("b", "a", json!({}))];
        assert_eq!(
            decide(&set(5), two.clone(), vec![], true).change,
            Change::Create(3)
        );
        assert_eq!(
            decide(&set(0), two.clone(), vec![], true).change,
            Change::Delete(2)
        );
        assert_eq!(
            decide(&set(2), two.clone(), vec![], true).change,
            Change::Nothing
        );
        assert_eq!(decide(&set(9), two, vec![], false).change, Change::Nothing);
    }

    #[test]
    fn finished_and_going_pods_do_not_count() {
        let pods = vec![
            pod("a", "a", json!({"phase": "Failed"})),
            pod("b", "a", json!({"phase": "Succeeded"})),
            pod("c", "a", json!({"deleted": "2026-11-21T11:00:00Z"})),
        ];
        let plan = decide(&set(1), pods, vec![], true);
        assert_eq!(plan.change, Change::Create(1));
        assert!(plan.counted.is_empty());
    }

    #[test]
    fn matching_orphans_are_adopted_and_strangers_released() {
        let plan = decide(
            &set(2),
            vec![
                pod("mine", "a", json!({})),
                pod("relabelled", "other", json!({})),
            ],
            vec![
                pod("orphan", "a", json!({})),
                pod("foreign", "b", json!({})),
            ],
            true,
        );
        assert_eq!(plan.adopt.len(), 1);
        assert_eq!(plan.release.len(), 1);
        assert_eq!(plan.counted.len(), 2);
        assert_eq!(plan.change, Change::Nothing);
    }

    #[test]
    fn a_set_that_goes_does_nothing_any_more() {
        let mut set = set(3);
        set.metadata.deletion_timestamp =
            Some("2026-11-21T11:00:00Z".parse().map(crate_time).unwrap());
        let plan = decide(
            &set,
            vec![pod("x", "other", json!({}))],
            vec![pod("o", "a", json!({}))],
            true,
        );
        assert_eq!(
            (plan.adopt.len(), plan.release.len(), plan.change),
            (0, 0, Change::Nothing)
        );
    }

    fn crate_time(time: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)
    }

    #[test]
    fn only_what_a_set_counts_wakes_it() {
        let old = pod("a", "a", json!({}));
        let mut bound = Pod::clone(&old);
        bound.spec.get_or_insert_default().node_name = Some("x".to_owned());
        assert!(!is_relevant(&old, &bound));
        let mut labelled = Pod::clone(&old);
        labelled
            .metadata
            .labels
            .get_or_insert_default()
            .insert("b".to_owned(), "c".to_owned());
        assert!(is_relevant(&old, &labelled));
    }
}

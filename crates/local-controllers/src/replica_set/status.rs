//! The status of a ReplicaSet, from the pods that count.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::shared::objects::{ready_since, whole_seconds};

/// The reason and the message of a failed creation or deletion.
pub type Failure = (&'static str, String);

/// A status and when it changes by itself, because a pod has then been ready for long enough.
pub struct Outlook {
    /// The status.
    pub status: ReplicaSetStatus,
    /// Until the next pod becomes available.
    pub next_available: Option<Duration>,
}

/// Computes the status.
pub fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> Outlook {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let template_labels = template
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone());
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    let min_ready = SignedDuration::from_secs(i64::from(min_ready));
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    let mut next_available: Option<SignedDuration> = None;
    for pod in pods {
        let own = pod.metadata.labels.as_ref();
        let has_all = template_labels
            .iter()
            .flatten()
            .all(|(key, value)| own.and_then(|labels| labels.get(key)) == Some(value));
        labeled += i32::from(has_all);
        let Some(since) = ready_since(pod) else {
            continue;
        };
        ready += 1;
        let left = min_ready - now.duration_since(since);
        if min_ready.is_zero() || left <= SignedDuration::ZERO {
            available += 1;
        } else {
            next_available = Some(next_available.map_or(left, |known| known.min(left)));
        }
    }
    let previous = set.status.clone().unwrap_or_default();
    let counted = |count: i32| (count > 0).then_some(count);
    let status = ReplicaSetStatus {
        replicas: i32::try_from(pods.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: counted(labeled),
        ready_replicas: counted(ready),
        available_replicas: counted(available),
        observed_generation: set.metadata.generation,
        conditions: conditions(previous.conditions, failure, now),
        terminating_replicas: previous.terminating_replicas,
    };
    let next_available = next_available.map(|left| Duration::try_from(left).unwrap_or_default());
    Outlook {
        status,
        next_available,
    }
}

fn conditions(
    previous: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = previous.unwrap_or_default();
    match failure {
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some((reason, message)) => {
            let is_known = conditions.iter().any(|condition| {
                condition.type_ == "ReplicaFailure"
                    && condition.status == "True"
                    && condition.reason.as_deref() == Some(reason)
            });
            if !is_known {
                conditions.retain(|condition| condition.type_ != "ReplicaFailure");
                conditions.push(ReplicaSetCondition {
                    type_: "ReplicaFailure".to_owned(),
                    status: "True".to_owned(),
                    reason: Some((*reason).to_owned()),
                    message: Some(message.clone()),
                    last_transition_time: Some(whole_seconds(now)),
                });
            }
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// The patch that writes a status; what became empty is taken out.
pub fn patch(status: &ReplicaSetStatus) -> Value {
    json!({"status": {
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(min_ready_seconds: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"generation": 4},
            "spec": {"minReadySeconds": min_ready_seconds, "selector": {},
                     "template": {"metadata": {"labels": {"app": "a", "hash": "h"}}}},
        }))
        .unwrap()
    }

    fn pod(labels: Value, ready_since: Option<&str>) -> Arc<Pod> {
        let ready = ready_since
            .map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        let object = json!({"metadata": {"labels": labels}, "status": {"phase": "Running", "conditions": ready}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn labels_readiness_and_availability_are_counted_apart() {
        let now = "2026-11-21T11:00:10Z".parse().unwrap();
        let full = json!({"app": "a", "hash": "h", "more": "x"});
        let pods = [
            pod(full.clone(), Some("2026-11-21T11:00:00Z")),
            pod(full, Some("2026-11-21T11:00:07Z")),
            pod(json!({"app": "a"}), None),
        ];
        let outlook = status(&set(5), &pods, None, now);
        let status = outlook.status;
        assert_eq!(status.replicas, 3);
        assert_eq!(status.fully_labeled_replicas, Some(2));
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.available_replicas, Some(1));
        assert_eq!(status.observed_generation, Some(4));
        assert_eq!(outlook.next_available, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_failure_is_told_once_and_taken_back() {
        let now = "2026-11-21T11:00:10Z".parse().unwrap();
        let mut set = set(0);
        let failure = ("FailedCreate", "quota".to_owned());
        set.status = Some(status(&set, &[], Some(&failure), now).status);
        let again = status(&set, &[], Some(&("FailedCreate", "other".to_owned())), now).status;
        assert_eq!(
            again.conditions.unwrap()[0].message.as_deref(),
            Some("quota")
        );
        assert_eq!(status(&set, &[], None, now).status.conditions, None);
    }
}

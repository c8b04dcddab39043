//! The status of a stateful set, from its pods.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::is_rolling;
use super::pods::revision;
use crate::shared::objects::{phase, ready_since};

/// A status, and how long until a pod has been ready for long enough.
pub struct Outlook {
    /// The status.
    pub status: StatefulSetStatus,
    /// Until the next pod becomes available.
    pub next_available: Option<Duration>,
}

/// How long a pod must still be ready before it is available; `None` when it is not ready and running.
pub fn available_in(set: &StatefulSet, pod: &Pod, now: Timestamp) -> Option<Duration> {
    if phase(pod) != "Running" {
        return None;
    }
    let wanted = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    let wanted = SignedDuration::from_secs(i64::from(wanted.unwrap_or(0)));
    let left = wanted - now.duration_since(ready_since(pod)?);
    Some(match wanted.is_zero() {
        true => Duration::ZERO,
        false => Duration::try_from(left).unwrap_or_default(),
    })
}

/// Computes the status.
pub fn status(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    current: &str,
    update: &str,
    now: Timestamp,
) -> Outlook {
    let (mut replicas, mut ready, mut available, mut of_current, mut of_update) = (0, 0, 0, 0, 0);
    let mut next_available: Option<Duration> = None;
    for pod in pods.iter().filter(|pod| !phase(pod).is_empty()) {
        replicas += 1;
        if let Some(left) = available_in(set, pod, now) {
            ready += 1;
            available += i32::from(left.is_zero());
            if !left.is_zero() {
                next_available = Some(next_available.map_or(left, |known| known.min(left)));
            }
        }
        if pod.metadata.deletion_timestamp.is_none() {
            of_current += i32::from(revision(pod) == current);
            of_update += i32::from(revision(pod) == update);
        }
    }
    let wanted = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let is_rolled_out = is_rolling(set) && [of_update, ready, replicas] == [wanted; 3];
    if is_rolled_out {
        of_current = of_update;
    }
    let previous = set.status.clone().unwrap_or_default();
    let counted = |count: i32| (count > 0).then_some(count);
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: counted(ready),
        current_replicas: counted(of_current),
        updated_replicas: counted(of_update),
        current_revision: Some(if is_rolled_out { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(previous.collision_count.unwrap_or(0)),
        available_replicas: Some(available),
        conditions: previous.conditions,
    };
    Outlook {
        status,
        next_available,
    }
}

/// The patch that writes a status; what became empty is taken out.
pub fn patch(status: &StatefulSetStatus) -> Value {
    json!({"status": {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "readyReplicas": status.ready_replicas,
        "currentReplicas": status.current_replicas,
        "updatedReplicas": status.updated_replicas,
        "currentRevision": status.current_revision,
        "updateRevision": status.update_revision,
        "collisionCount": status.collision_count,
        "availableReplicas": status.available_replicas,
    }})
}

//! The status of a deployment: the sums over its sets and the conditions that tell how a rollout goes.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use serde_json::{Value, json};

use super::rollout::Bounds;
use super::sets::{actual, available, sum};
use crate::shared::objects::{name, whole_seconds};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
/// The largest deadline stands for none.
const NO_DEADLINE: i32 = i32::MAX;

/// What the status is computed from.
pub struct View<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its numbers.
    pub bounds: Bounds,
    /// The set with its template.
    pub new: Option<&'a Arc<ReplicaSet>>,
    /// All sets.
    pub all: &'a [Arc<ReplicaSet>],
    /// Now.
    pub now: Timestamp,
}

/// A condition that a step of a rollout leaves.
pub struct Mark {
    /// Whether it is `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

/// The sums and the Available condition, with all other conditions as they were.
pub fn sums(view: &View<'_>) -> DeploymentStatus {
    let previous = view.deployment.status.clone().unwrap_or_default();
    let total = sum(view.all, actual);
    let updated = view.new.map_or(0, |set| actual(set));
    let ready = sum(view.all, |set| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    });
    let serving = sum(view.all, available);
    let wanted: i32 = sum(view.all, super::sets::size);
    let counted = |count: i32| (count > 0).then_some(count);
    let mut status = DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: counted(total),
        updated_replicas: counted(updated),
        ready_replicas: counted(ready),
        available_replicas: counted(serving),
        unavailable_replicas: counted(wanted - serving),
        collision_count: previous.collision_count,
        conditions: previous.conditions,
        terminating_replicas: previous.terminating_replicas,
    };
    let (text, reason, message) = if serving >= view.bounds.replicas - view.bounds.unavailable {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let mark = Mark {
        status: text,
        reason,
        message: message.to_owned(),
    };
    set_condition(&mut status, AVAILABLE, mark, view.now);
    status
}

/// The status during and after a rollout.
pub fn rollout_status(view: &View<'_>) -> DeploymentStatus {
    let mut status = sums(view);
    let previous = view.deployment.status.clone().unwrap_or_default();
    if let Some(deadline) = deadline(view.deployment) {
        let known = condition(&previous, PROGRESSING).cloned();
        let is_done = status.replicas == status.updated_replicas
            && known.as_ref().and_then(|known| known.reason.as_deref()) == Some(COMPLETE);
        if !is_done {
            progress(view, &previous, &mut status, known.as_ref(), deadline);
        }
    } else {
        status
            .conditions
            .get_or_insert_default()
            .retain(|condition| condition.type_ != PROGRESSING);
    }
    copy_failure(view, &mut status);
    status
}

fn progress(
    view: &View<'_>,
    previous: &DeploymentStatus,
    status: &mut DeploymentStatus,
    known: Option<&DeploymentCondition>,
    deadline: SignedDuration,
) {
    let who = match view.new {
        Some(set) => format!("ReplicaSet \"{}\"", name(&set.metadata)),
        None => format!("Deployment \"{}\"", name(&view.deployment.metadata)),
    };
    if is_complete(view.deployment, status) {
        let message = format!("{who} has successfully progressed.");
        set_condition(
            status,
            PROGRESSING,
            Mark {
                status: "True",
                reason: COMPLETE,
                message,
            },
            view.now,
        );
    } else if is_progressing(previous, status) {
        // Renewed each time, so that the deadline counts from the last step.
        let since = known
            .filter(|known| known.status == "True")
            .and_then(|known| known.last_transition_time.clone());
        status
            .conditions
            .get_or_insert_default()
            .retain(|condition| condition.type_ != PROGRESSING);
        let message = format!("{who} is progressing.");
        set_condition(
            status,
            PROGRESSING,
            Mark {
                status: "True",
                reason: "ReplicaSetUpdated",
                message,
            },
            view.now,
        );
        if let (Some(since), Some(renewed)) = (since, status.conditions.iter_mut().flatten().last())
        {
            renewed.last_transition_time = Some(since);
        }
    } else if has_timed_out(known, deadline, view.now) {
        let message = format!("{who} has timed out progressing.");
        set_condition(
            status,
            PROGRESSING,
            Mark {
                status: "False",
                reason: TIMED_OUT,
                message,
            },
            view.now,
        );
    }
}

/// Whether a rollout is through.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |count: Option<i32>| count.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .unwrap_or(600);
    (seconds != NO_DEADLINE).then(|| SignedDuration::from_secs(i64::from(seconds)))
}

fn has_timed_out(
    known: Option<&DeploymentCondition>,
    deadline: SignedDuration,
    now: Timestamp,
) -> bool {
    let Some(known) = known else { return false };
    match known.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => known
            .last_update_time
            .as_ref()
            .is_some_and(|from| from.0 + deadline < now),
    }
}

/// When a rollout that does not move must be looked at again.
pub fn next_look(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let known = condition(status, PROGRESSING)?;
    if is_complete(deployment, status)
        || matches!(known.reason.as_deref(), Some(TIMED_OUT | COMPLETE))
    {
        return None;
    }
    let left = known.last_update_time.as_ref()?.0 + deadline - now;
    let left = SignedDuration::try_from(left).ok()? + SignedDuration::from_secs(1);
    Some(Duration::try_from(left).unwrap_or(Duration::from_millis(100)))
}

/// The condition to leave when pausing or resuming.
pub fn pause_mark(deployment: &Deployment) -> Option<Mark> {
    deadline(deployment)?;
    let status = deployment.status.clone().unwrap_or_default();
    let reason = condition(&status, PROGRESSING).and_then(|known| known.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return None;
    }
    let is_paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    let (reason, message) = match (is_paused, reason == Some(PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return None,
    };
    Some(Mark {
        status: "Unknown",
        reason,
        message: message.to_owned(),
    })
}

/// Sets the Progressing condition.
pub fn mark_progress(status: &mut DeploymentStatus, mark: Mark, now: Timestamp) {
    set_condition(status, PROGRESSING, mark, now);
}

/// Whether there is a Progressing condition.
pub fn has_progress(status: &DeploymentStatus) -> bool {
    condition(status, PROGRESSING).is_some()
}

fn copy_failure(view: &View<'_>, status: &mut DeploymentStatus) {
    let failures = view.new.into_iter().chain(view.all).filter_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|condition| condition.type_ == REPLICA_FAILURE)
    });
    let Some(failure) = failures.into_iter().next() else {
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        }
        return;
    };
    let wanted = DeploymentCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    };
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
    conditions.push(wanted);
}

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

/// Replaces a condition unless status and reason stay; the newest stands last.
fn set_condition(status: &mut DeploymentStatus, kind: &str, mark: Mark, now: Timestamp) {
    let known = condition(status, kind);
    if known.is_some_and(|known| {
        known.status == mark.status && known.reason.as_deref() == Some(mark.reason)
    }) {
        return;
    }
    let since = known
        .filter(|known| known.status == mark.status)
        .and_then(|known| known.last_transition_time.clone());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(DeploymentCondition {
        type_: kind.to_owned(),
        status: mark.status.to_owned(),
        reason: Some(mark.reason.to_owned()),
        message: Some(mark.message),
        last_update_time: Some(whole_seconds(now)),
        last_transition_time: Some(since.unwrap_or_else(|| whole_seconds(now))),
    });
}

/// The patch that writes a status; what became empty is taken out.
pub fn patch(status: &DeploymentStatus) -> Value {
    json!({"status": {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "updatedReplicas": status.updated_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "unavailableReplicas": status.unavailable_replicas,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
    }})
}

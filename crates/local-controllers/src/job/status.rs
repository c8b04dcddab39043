//! The conditions of a Job and the patch that writes its status.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use serde_json::{Value, json};

use crate::shared::objects::whole_seconds;

/// Enough pods have succeeded; the rest is being removed.
pub const SUCCESS: &str = "SuccessCriteriaMet";
/// The Job has failed; its pods are being removed.
pub const FAILURE: &str = "FailureTarget";
/// The Job has ended well.
pub const COMPLETE: &str = "Complete";
/// The Job has ended badly.
pub const FAILED: &str = "Failed";
/// The Job is not to run.
pub const SUSPENDED: &str = "Suspended";

/// A condition that holds.
pub fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .into_iter()
        .find(|one| one.type_ == kind && one.status == "True")
}

/// Whether the Job has ended.
pub fn is_finished(status: &JobStatus) -> bool {
    find(status, COMPLETE).is_some() || find(status, FAILED).is_some()
}

/// Sets a condition. Returns whether that changed anything.
pub fn set(
    status: &mut JobStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let text = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|one| one.type_ == kind);
    if known.is_some_and(|index| conditions[index].status == text) || (known.is_none() && !holds) {
        if conditions.is_empty() {
            status.conditions = None;
        }
        return false;
    }
    let condition = JobCondition {
        type_: kind.to_owned(),
        status: text.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
    };
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
    true
}

/// The patch that writes a status; what became empty is taken out.
pub fn patch(status: &JobStatus) -> Value {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    json!({"status": {
        "active": status.active,
        "succeeded": status.succeeded,
        "failed": status.failed,
        "ready": status.ready,
        "terminating": status.terminating,
        "startTime": status.start_time,
        "completionTime": status.completion_time,
        "completedIndexes": status.completed_indexes,
        "failedIndexes": status.failed_indexes,
        "uncountedTerminatedPods": {"succeeded": uncounted.succeeded, "failed": uncounted.failed},
        "conditions": status.conditions,
    }})
}

//! Writes to the API: pod status with what is noted on the pod, failures, and the end of deleted pods.
//!
//! A status is one merge patch to the status subresource, with the pod's UID as a precondition, so that a pod made anew
//! under the same name is never touched.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud_api::model::status::GroupStatusEntry;
use elastic_core::eci_profile::Effect;
use elastic_core::events::EventKind;
use elastic_core::names::{INSTANCE_ID, ON_VIRTUAL_NODE_LABEL, POD_MOMENTS_ANNOTATION, TRUE};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::state::{GroupRecord, PodRecord};
use super::{Shared, create, facts};
use crate::status::{
    STILLBORN, STILLBORN_MESSAGE, failure_status, lost_status, never_restarts, pod_key, pod_status,
};
use crate::translate::is_daemon;

/// Wait after a refused write.
const RETRY: Duration = Duration::from_millis(500);
/// A pod with finalizers stays after its deletion; it is asked for again after this.
const FINISH_AGAIN: Duration = Duration::from_secs(2);

/// Whether the pod shows something else than its group is.
pub(super) fn differs(pod: &Pod, id: &str, entry: &GroupStatusEntry) -> bool {
    let host = pod
        .status
        .as_ref()
        .and_then(|status| status.host_ip.clone());
    // Before the first write the host's address is missing and there is a difference anyway.
    let Some(host) = host else { return true };
    let wanted = status_value(&pod_status(pod, entry, &host, Timestamp::now()));
    let shown = serde_json::to_value(&pod.status).unwrap_or_default();
    pod.annotations().get(INSTANCE_ID).map(String::as_str) != Some(id) || !shows(&shown, &wanted)
}

/// The status as a merge patch: what must not be there is `null`.
fn status_value(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        for member in ["reason", "message"] {
            members.entry(member).or_insert(Value::Null);
        }
    }
    value
}

/// Whether a merge patch would change nothing.
fn shows(shown: &Value, wanted: &Value) -> bool {
    match (shown, wanted) {
        (Value::Object(shown), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match shown.get(key) {
                Some(shown) => shows(shown, wanted),
                None => is_nothing(wanted),
            })
        }
        (shown, wanted) => is_same(shown, wanted),
    }
}

/// Equality as the API server stores it: `lastState: {}` and `lastProbeTime: null` say nothing.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let null = Value::Null;
            left.keys().chain(right.keys()).all(|key| {
                is_same(
                    left.get(key).unwrap_or(&null),
                    right.get(key).unwrap_or(&null),
                )
            })
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| is_same(left, right))
        }
        (left, right) => left == right || (is_nothing(left) && is_nothing(right)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_nothing),
        _ => false,
    }
}

pub(super) async fn status(shared: &Shared, uid: &str) {
    let prepared = {
        let state = shared.state();
        let Some(record) = state.pods.get(uid) else {
            return;
        };
        let Some((id, group)) = state.shown_group(uid) else {
            return;
        };
        let Some(entry) = &group.entry else { return };
        let host = &shared.nodes[record.node].address;
        let pod = record.pod();
        let status = pod_status(&pod, &entry.get(), host, Timestamp::now());
        let moments = state
            .notes
            .get(uid)
            .map(|notes| notes.moments.clone())
            .unwrap_or_default();
        let notes = annotations(&pod, id, group, moments);
        (pod, record.node, status, notes, entry.mark)
    };
    let (pod, node, status, notes, written) = prepared;
    tell_stillborn(shared, &pod, &status);
    let effect = added_by_rules(shared, &pod, uid).await;
    let mut notes = notes;
    for (key, value) in effect.annotations {
        notes.entry(key).or_insert(value);
    }
    let mut labels = effect.labels;
    labels.insert(ON_VIRTUAL_NODE_LABEL.to_owned(), TRUE.to_owned());
    let metadata = json!({"uid": uid, "annotations": notes, "labels": labels});
    let body = json!({"metadata": metadata, "status": status_value(&status)});
    if patch(shared, &pod, node, uid, body).await {
        shared.state().status_written(uid, written);
    }
}

/// A pod that waits for a group that has failed says so once.
fn tell_stillborn(shared: &Shared, pod: &Pod, status: &PodStatus) {
    let before = pod
        .status
        .as_ref()
        .and_then(|status| status.reason.as_deref());
    if status.reason.as_deref() == Some(STILLBORN) && before != Some(STILLBORN) {
        shared
            .events
            .tell(pod, EventKind::Warning, STILLBORN, STILLBORN_MESSAGE);
    }
}

/// What rules of the profile add to a pod that has no status from here yet; nothing later on.
async fn added_by_rules(shared: &Shared, pod: &Pod, uid: &str) -> Effect {
    if pod.annotations().contains_key(INSTANCE_ID) {
        return Effect::default();
    }
    let known = shared.state().notes(uid).effect.clone();
    match known {
        Some(effect) => effect,
        // The group was asked for by an earlier life of this program.
        None => create::effect(shared, pod).await.unwrap_or_default(),
    }
}

/// What is noted on the pod; only what is not there yet or differs.
fn annotations(
    pod: &Pod,
    id: &str,
    group: &GroupRecord,
    mut moments: PodMoments,
) -> BTreeMap<String, String> {
    moments.created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut all = facts::to_write(pod, &group.facts.annotations.get());
    let own = [
        (INSTANCE_ID, id.to_owned()),
        (
            POD_MOMENTS_ANNOTATION,
            serde_json::to_string(&moments).unwrap_or_default(),
        ),
    ];
    for (key, value) in own {
        if pod.annotations().get(key) != Some(&value) {
            all.insert(key.to_owned(), value);
        }
    }
    all
}

/// Whether the API took it.
pub(super) async fn patch(
    shared: &Shared,
    pod: &Pod,
    node: usize,
    uid: &str,
    patch: Value,
) -> bool {
    let name = pod.name_any();
    let api: Api<Pod> =
        Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let outcome = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match outcome {
        Ok(mut written) => {
            written.metadata.managed_fields = None;
            shared.state().put_answer(written, node);
            true
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            tracing::debug!(pod = pod_key(pod), "pod is gone, its status is not written");
            shared.state().notes(uid).memory.retry_at = Some(Instant::now() + RETRY);
            false
        }
        Err(error) => {
            tracing::warn!(pod = pod_key(pod), %error, "pod status could not be written, trying again");
            shared.state().notes(uid).memory.retry_at = Some(Instant::now() + RETRY);
            false
        }
    }
}

pub(super) async fn failure(shared: &Shared, pod: &Pod, uid: &str, reason: &str, message: &str) {
    let refused = shared.state().notes(uid).memory.refused;
    let status = failure_status(
        pod,
        refused && (never_restarts(pod) || is_daemon(pod)),
        reason,
        message,
        Timestamp::now(),
    );
    write_whole(shared, pod, uid, &status).await;
}

pub(super) async fn lost(shared: &Shared, uid: &str) {
    let Some(pod) = shared.state().pods.get(uid).map(PodRecord::pod) else {
        return;
    };
    tracing::warn!(
        pod = pod_key(&pod),
        "container group of a living pod is gone, the pod is reported failed"
    );
    let message = "the container group of this pod no longer exists in the cloud";
    shared
        .events
        .tell(&pod, EventKind::Warning, "NotFound", message);
    write_whole(shared, &pod, uid, &lost_status(&pod, Timestamp::now())).await;
}

async fn write_whole(shared: &Shared, pod: &Pod, uid: &str, status: &PodStatus) {
    let Some(node) = shared.state().pods.get(uid).map(|record| record.node) else {
        return;
    };
    patch(
        shared,
        pod,
        node,
        uid,
        json!({"metadata": {"uid": uid}, "status": status_value(status)}),
    )
    .await;
}

/// Takes a deleted pod whose group is gone out of the API.
pub(super) async fn finish(shared: &Shared, uid: &str) {
    let Some(pod) = shared.state().pods.get(uid).map(PodRecord::pod) else {
        return;
    };
    let api: Api<Pod> =
        Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let exactly = Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    };
    let outcome = api
        .delete(
            &pod.name_any(),
            &DeleteParams::default()
                .grace_period(0)
                .preconditions(exactly),
        )
        .await;
    let mut state = shared.state();
    match outcome {
        Ok(_) => state.notes(uid).memory.retry_at = Some(Instant::now() + FINISH_AGAIN),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            state.remove_pod(uid)
        }
        Err(error) => {
            tracing::warn!(pod = pod_key(&pod), %error, "deleted pod could not be taken out of the API, trying again");
            state.notes(uid).memory.retry_at = Some(Instant::now() + RETRY);
        }
    }
}

/// Pods whose group takes its time get a first status, so that `kubectl describe` says what they wait for.
pub(super) fn tell_waiting_pods(shared: &Shared) {
    let mut state = shared.state();
    let waiting = state.unanswered(shared.timing.pending_status_after, Instant::now());
    for uid in waiting {
        let Some((id, _)) = state.shown_group(&uid) else {
            continue;
        };
        let blank = GroupStatusEntry {
            container_group_id: id.clone(),
            status: cloud_api::GroupStatus::Scheduling,
            ..GroupStatusEntry::default()
        };
        state.put_entry(blank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_changes_nothing_is_seen_as_such() {
        let shown =
            json!({"phase": "Running", "conditions": [{"type": "Ready"}], "qosClass": "Burstable"});
        assert!(shows(&shown, &json!({"phase": "Running", "reason": null})));
        assert!(!shows(&shown, &json!({"phase": null})));
        assert!(!shows(&shown, &json!({"conditions": []})));
        let shown =
            json!({"containerStatuses": [{"ready": true, "lastState": {}, "lastProbeTime": null}]});
        assert!(shows(
            &shown,
            &json!({"containerStatuses": [{"ready": true}]})
        ));
        assert!(!shows(
            &shown,
            &json!({"containerStatuses": [{"ready": false}]})
        ));
        let ended = json!({"containerStatuses": [{"ready": true, "lastState": {"terminated": {"exitCode": 1}}}]});
        assert!(!shows(
            &ended,
            &json!({"containerStatuses": [{"ready": true}]})
        ));
    }
}

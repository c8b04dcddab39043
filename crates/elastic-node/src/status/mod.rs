//! From what the cloud says about a group to what the pod shows. Pure.

mod container;

use cloud_api::GroupStatus;
use cloud_api::model::status::{GroupStatusEntry, PodCondition as CloudCondition};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// Reason of a pod that waits although its group has failed.
pub(crate) const STILLBORN: &str = "ContainerInstanceFailed";
/// And what to do about it.
pub(crate) const STILLBORN_MESSAGE: &str = "the container group failed before a container of it ran (see the group's events); delete the pod to have it tried again, \
     or set restartPolicy: Never to have it reported as failed";

/// What the pod's status becomes. `host_ip` is the node's address.
pub(crate) fn pod_status(
    pod: &Pod,
    entry: &GroupStatusEntry,
    host_ip: &str,
    now: Timestamp,
) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let phase = phase(pod, entry);
    let pod_ip = Some(entry.pod_status.pod_ip.clone()).filter(|ip| !ip.is_empty());
    let conditions = conditions(pod, entry, &old, phase, now);
    let initialized = holds(&conditions, "Initialized");
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: reason(entry, phase),
        message: stillborn(entry, phase).then(|| STILLBORN_MESSAGE.to_owned()),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: host_ip.to_owned(),
        }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: old
            .start_time
            .clone()
            .or_else(|| time(&entry.pod_status.start_time))
            .or(Some(Time(now))),
        container_statuses: Some(container::statuses(pod, entry, phase)),
        init_container_statuses: container::init_statuses(pod, entry, initialized),
        conditions: Some(conditions),
        qos_class: old.qos_class,
        observed_generation: old.observed_generation,
        ..PodStatus::default()
    }
}

/// Group status to pod phase, as documented. Two things the group does not know: a pod whose containers have all ended is
/// over although its sidecars go on, and one that took too long to start waits unless it never restarts.
fn phase(pod: &Pod, entry: &GroupStatusEntry) -> &'static str {
    match &entry.status {
        GroupStatus::Running => container::outcome(pod, entry).unwrap_or("Running"),
        GroupStatus::Terminating => "Running",
        // New files for containers that go on running take nothing from a pod.
        GroupStatus::Updating if cloud_says(entry, "Ready") => "Running",
        GroupStatus::Succeeded => "Succeeded",
        GroupStatus::Failed if !never_restarts(pod) && !container::any_started(entry) => "Pending",
        GroupStatus::Failed | GroupStatus::Expired | GroupStatus::ScheduleFailed => "Failed",
        GroupStatus::Scheduling
        | GroupStatus::Pending
        | GroupStatus::Restarting
        | GroupStatus::Updating => "Pending",
        GroupStatus::Other(_) => "Unknown",
    }
}

/// Whether the group failed before a container of it ran, and the pod waits nevertheless. Nothing will come of that by
/// itself, so the pod has to say so.
fn stillborn(entry: &GroupStatusEntry, phase: &str) -> bool {
    entry.status == GroupStatus::Failed && phase == "Pending"
}

fn reason(entry: &GroupStatusEntry, phase: &str) -> Option<String> {
    match entry.status {
        _ if stillborn(entry, phase) => Some(STILLBORN.to_owned()),
        GroupStatus::Expired => Some("BidFailed".to_owned()),
        GroupStatus::ScheduleFailed => Some("ContainerInstanceScheduleFailed".to_owned()),
        _ => None,
    }
}

/// Whether all containers run and take requests, by the cloud's word.
pub(crate) fn is_ready(entry: &GroupStatusEntry) -> bool {
    entry.status == GroupStatus::Running && cloud_says(entry, "Ready")
}

fn cloud_says(entry: &GroupStatusEntry, kind: &str) -> bool {
    cloud_condition(entry, kind).is_some_and(|found| found.status == "True")
}

fn cloud_condition<'e>(entry: &'e GroupStatusEntry, kind: &str) -> Option<&'e CloudCondition> {
    entry
        .pod_status
        .conditions
        .iter()
        .find(|condition| condition.kind == kind)
}

fn conditions(
    pod: &Pod,
    entry: &GroupStatusEntry,
    old: &PodStatus,
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = old.conditions.clone().unwrap_or_default();
    let running = phase == "Running";
    let ended = phase == "Succeeded" || phase == "Failed";
    let mut result: Vec<PodCondition> = Vec::new();
    let mut put = |kind: &str, status: bool, reason: Option<String>, message: Option<String>| {
        let status = if status { "True" } else { "False" };
        let before = old
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status);
        let from_cloud = cloud_condition(entry, kind).filter(|found| found.status == status);
        let since = before
            .and_then(|before| before.last_transition_time.clone())
            .or_else(|| from_cloud.and_then(|found| time(&found.last_transition_time)));
        result.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: since.or(Some(Time(now))),
            ..PodCondition::default()
        });
    };
    let said = |kind: &str, default: bool| {
        cloud_condition(entry, kind).map_or(default, |found| found.status == "True")
    };
    let (created, why, message) = created(entry, phase);
    put("ContainerInstanceCreated", created, why, message);
    put(
        "Initialized",
        said("Initialized", running || ended),
        ended_reason(phase),
        None,
    );
    let ready = running && said("Ready", false);
    let containers_ready = running && said("ContainersReady", ready);
    let unready = |holds: bool| {
        if holds {
            None
        } else {
            ended_reason(phase).or(Some("ContainersNotReady".to_owned()))
        }
    };
    put(
        "ContainersReady",
        containers_ready,
        unready(containers_ready),
        None,
    );
    let gates_open = readiness_gates_open(pod, &old);
    put(
        "Ready",
        ready && gates_open,
        unready(ready && gates_open),
        None,
    );
    // Everything others wrote stays: the scheduler's PodScheduled, readiness gates, disruption targets.
    let others = old
        .iter()
        .filter(|condition| !result.iter().any(|ours| ours.type_ == condition.type_));
    let others: Vec<_> = others.cloned().collect();
    result.extend(others);
    result
}

/// Whether the group has been made as it should be; if not, why.
fn created(entry: &GroupStatusEntry, phase: &str) -> (bool, Option<String>, Option<String>) {
    let made = !matches!(
        entry.status,
        GroupStatus::Scheduling | GroupStatus::ScheduleFailed
    );
    let trouble =
        cloud_condition(entry, "ContainerInstanceCreated").filter(|found| found.status != "True");
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let (why, message) = trouble
        .map(|trouble| (text(&trouble.reason), text(&trouble.message)))
        .unwrap_or_default();
    if stillborn(entry, phase) && why.is_none() {
        let message = STILLBORN_MESSAGE.to_owned();
        return (false, Some(STILLBORN.to_owned()), Some(message));
    }
    (
        made && trouble.is_none() && !stillborn(entry, phase),
        why,
        message,
    )
}

fn ended_reason(phase: &str) -> Option<String> {
    match phase {
        "Succeeded" => Some("PodCompleted".to_owned()),
        "Failed" => Some("PodFailed".to_owned()),
        _ => None,
    }
}

fn readiness_gates_open(pod: &Pod, conditions: &[PodCondition]) -> bool {
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates
        .into_iter()
        .all(|gate| holds(conditions, &gate.condition_type))
}

fn holds(conditions: &[PodCondition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The cloud's times; a text that is none is left out.
fn time(text: &str) -> Option<Time> {
    text.parse::<Timestamp>().ok().map(Time)
}

/// What a pod shows whose creation failed or has to wait. `None` for the phase leaves it as it is.
pub(crate) fn failure_status(
    pod: &Pod,
    failed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let before = conditions
        .iter()
        .find(|condition| condition.type_ == "ContainerInstanceCreated");
    let since = before
        .filter(|before| before.status == "False")
        .and_then(|before| before.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != "ContainerInstanceCreated");
    conditions.push(PodCondition {
        type_: "ContainerInstanceCreated".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(Some(Time(now))),
        ..PodCondition::default()
    });
    PodStatus {
        phase: Some(if failed { "Failed" } else { "Pending" }.to_owned()),
        reason: Some("ProviderFailed".to_owned()),
        message: Some(message.to_owned()),
        conditions: Some(conditions),
        ..old
    }
}

/// What a pod shows whose group has vanished.
pub(crate) fn lost_status(pod: &Pod, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    for condition in &mut conditions {
        if matches!(condition.type_.as_str(), "Ready" | "ContainersReady")
            && condition.status != "False"
        {
            condition.status = "False".to_owned();
            condition.reason = Some("PodFailed".to_owned());
            condition.last_transition_time = Some(Time(now));
        }
    }
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some("NotFound".to_owned()),
        message: Some("the container group of this pod no longer exists in the cloud".to_owned()),
        container_statuses: Some(container::lost(pod, now)),
        conditions: Some(conditions),
        ..old
    }
}

/// Whether the pod asks to be replaced rather than waited for.
pub(crate) fn never_restarts(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        == Some("Never")
}

/// For logs: `namespace/name`.
pub(crate) fn pod_key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests;

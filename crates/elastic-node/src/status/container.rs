//! Container statuses, in the order of the pod's spec.

use cloud_api::model::status::{ContainerStatus as CloudStatus, GroupStatusEntry, State};
use elastic_core::names::{IGNORE_EXIT_CODE_VARIABLE, SIDECAR_VALUE, SIDECAR_VARIABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::time;

/// Exit code of a container that is gone without having said how, as virtual-kubelet reports it.
const LOST_EXIT_CODE: i32 = -137;

pub(super) fn statuses(pod: &Pod, entry: &GroupStatusEntry, phase: &str) -> Vec<ContainerStatus> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| one(container, entry, waiting_reason(phase)))
        .collect()
}

fn waiting_reason(phase: &str) -> &'static str {
    if phase == "Pending" {
        "ContainerCreating"
    } else {
        ""
    }
}

pub(super) fn init_statuses(
    pod: &Pod,
    entry: &GroupStatusEntry,
    initialized: bool,
) -> Option<Vec<ContainerStatus>> {
    let containers = pod
        .spec
        .as_ref()?
        .init_containers
        .as_ref()
        .filter(|containers| !containers.is_empty())?;
    let status = |container: &Container| {
        if found(entry, &container.name).is_some() || !initialized {
            return one(container, entry, "PodInitializing");
        }
        // The cloud lists no init containers; when initialization is over, each of them has ended well.
        let mut status = blank(container);
        status.ready = true;
        status.started = Some(false);
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 0,
                reason: Some("Completed".to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
        status
    };
    Some(containers.iter().map(status).collect())
}

fn found<'e>(entry: &'e GroupStatusEntry, name: &str) -> Option<&'e CloudStatus> {
    entry
        .pod_status
        .container_statuses
        .iter()
        .find(|status| status.name == name)
}

/// Whether any container has ever run.
pub(super) fn any_started(entry: &GroupStatusEntry) -> bool {
    let began = |state: &State| state.running.is_some() || state.terminated.is_some();
    let statuses = &entry.pod_status.container_statuses;
    statuses
        .iter()
        .any(|status| began(&status.state) || began(&status.last_state))
}

/// The phase of a pod that has sidecars and whose other containers have ended for good.
pub(super) fn outcome(pod: &Pod, entry: &GroupStatusEntry) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let says = |container: &Container, name: &str, value: &str| {
        let mut variables = container.env.iter().flatten();
        variables.any(|variable| {
            variable.name == name
                && variable
                    .value
                    .as_ref()
                    .is_some_and(|found| found.eq_ignore_ascii_case(value))
        })
    };
    let is_side = |container: &Container| says(container, SIDECAR_VARIABLE, SIDECAR_VALUE);
    let native = spec
        .init_containers
        .iter()
        .flatten()
        .any(crate::translate::is_sidecar);
    let (sides, mains): (Vec<&Container>, Vec<&Container>) = spec
        .containers
        .iter()
        .partition(|container| is_side(container));
    if policy == "Always" || (sides.is_empty() && !native) || mains.is_empty() {
        return None;
    }
    let mut failed = false;
    for main in mains {
        let ended = found(entry, &main.name)?.state.terminated.as_ref()?;
        let counts = !says(main, IGNORE_EXIT_CODE_VARIABLE, "true");
        let bad = ended.exit_code != 0 && counts;
        if bad && policy == "OnFailure" {
            return None;
        }
        failed |= bad;
    }
    Some(if failed { "Failed" } else { "Succeeded" })
}

fn blank(container: &Container) -> ContainerStatus {
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image,
        ..ContainerStatus::default()
    }
}

fn one(container: &Container, entry: &GroupStatusEntry, waiting: &str) -> ContainerStatus {
    let mut status = blank(container);
    let Some(cloud) = found(entry, &container.name) else {
        status.started = Some(false);
        status.state = Some(waits(waiting, ""));
        return status;
    };
    let id = container_id(&entry.container_group_id, &container.name);
    status.image_id = cloud.image_id.clone();
    status.ready = cloud.ready;
    status.started = Some(cloud.started || cloud.state.running.is_some());
    status.restart_count = i32::try_from(cloud.restart_count).unwrap_or(i32::MAX);
    status.state = Some(state(&cloud.state, &id).unwrap_or_else(|| waits(waiting, "")));
    status.last_state = state(&cloud.last_state, &id);
    if cloud.state.waiting.is_none() {
        status.container_id = Some(id);
    }
    status
}

fn container_id(group: &str, container: &str) -> String {
    format!("eci://{group}/{container}")
}

fn waits(reason: &str, message: &str) -> ContainerState {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let waiting = ContainerStateWaiting {
        reason: text(reason),
        message: text(message),
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn state(state: &State, id: &str) -> Option<ContainerState> {
    if let Some(running) = &state.running {
        let started_at = time(&running.started_at).or_else(|| time(&running.started_at_odd));
        let running = ContainerStateRunning { started_at };
        return Some(ContainerState {
            running: Some(running),
            ..ContainerState::default()
        });
    }
    if let Some(ended) = &state.terminated {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let number = |number: i64| i32::try_from(number).unwrap_or(LOST_EXIT_CODE);
        return Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(id.to_owned()),
                exit_code: number(ended.exit_code),
                signal: Some(number(ended.signal)).filter(|signal| *signal != 0),
                reason: text(&ended.reason),
                message: text(&ended.message),
                started_at: time(&ended.started_at),
                finished_at: time(&ended.finished_at),
            }),
            ..ContainerState::default()
        });
    }
    state
        .waiting
        .as_ref()
        .map(|waiting| waits(&waiting.reason, &waiting.message))
}

pub(super) fn lost(pod: &Pod, now: Timestamp) -> Vec<ContainerStatus> {
    let old = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.clone())
        .unwrap_or_default();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let lose = |container: &Container| {
        let known = old
            .iter()
            .find(|status| status.name == container.name)
            .cloned();
        let mut status = known.unwrap_or_else(|| blank(container));
        let started = status
            .state
            .as_ref()
            .and_then(|state| state.running.as_ref()?.started_at.clone());
        if status
            .state
            .as_ref()
            .is_none_or(|state| state.terminated.is_none())
        {
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: LOST_EXIT_CODE,
                    reason: Some("NotFound".to_owned()),
                    message: Some("the container group no longer exists in the cloud".to_owned()),
                    started_at: started,
                    finished_at: Some(Time(now)),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
        }
        status.ready = false;
        status.started = Some(false);
        status
    };
    containers.map(lose).collect()
}

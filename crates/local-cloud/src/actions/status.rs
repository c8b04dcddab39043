//! DescribeContainerGroupStatus: the status in the shape of a pod's, with a delta by time.

use super::Call;
use super::filter::{Filter, given, page};
use crate::gateway::refusal::Refusal;
use crate::state::record::{ContainerRecord, GroupRecord, RunState};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::ContainerSpec;
use cloud_api::model::status::*;
use cloud_api::time;

const PAGE: u32 = 200;

pub(crate) fn describe(
    call: &Call<'_>,
    request: DescribeContainerGroupStatusRequest,
) -> Result<DescribeContainerGroupStatusResponse, Refusal> {
    call.need(&["RegionId"])?;
    let filter = Filter {
        ids: &request.container_group_ids,
        zone: given(&request.zone_id),
        v_switch: given(&request.v_switch_id),
        resource_group: given(&request.resource_group_id),
        tags: &request.tag,
        changed_since_second: since(call, request.since_second),
        ..Default::default()
    };
    let state = call.shared.state();
    let page = page(
        &state.groups,
        &filter,
        request.limit,
        PAGE,
        request.next_token.as_deref(),
    )?;
    Ok(DescribeContainerGroupStatusResponse {
        data: page.groups.iter().map(|group| entry(group)).collect(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}

/// The earliest second that counts as "within the last so many seconds"; the second under way counts whole.
pub(super) fn since(call: &Call<'_>, seconds: Option<u64>) -> Option<i64> {
    let seconds = i64::try_from(seconds?).unwrap_or(i64::MAX);
    Some(call.shared.now().as_second().saturating_sub(seconds))
}

fn entry(group: &GroupRecord) -> GroupStatusEntry {
    GroupStatusEntry {
        container_group_id: group.id.clone(),
        name: group.request.container_group_name.clone(),
        namespace: String::new(),
        uuid: group.id.clone(),
        annotations: if group.simulated {
            r#"{"simulated":"true"}"#.to_owned()
        } else {
            "{}".to_owned()
        },
        status: group.status.clone(),
        pod_status: pod_status(group),
    }
}

fn phase(status: &GroupStatus) -> &'static str {
    match status {
        GroupStatus::Running | GroupStatus::Terminating => "Running",
        GroupStatus::Succeeded => "Succeeded",
        GroupStatus::Failed | GroupStatus::Expired | GroupStatus::ScheduleFailed => "Failed",
        _ => "Pending",
    }
}

fn pod_status(group: &GroupRecord) -> PodStatus {
    let address = group.address.to_string();
    let conditions = group.conditions.iter();
    let containers = group.request.container.iter().zip(&group.containers);
    PodStatus {
        phase: phase(&group.status).to_owned(),
        // A group has a machine of its own.
        host_ip: address.clone(),
        pod_ips: vec![PodIp {
            ip: address.clone(),
        }],
        pod_ip: address,
        qos_class: "Guaranteed".to_owned(),
        start_time: time::format(group.created_at),
        conditions: conditions
            .map(|condition| PodCondition {
                kind: condition.kind.clone(),
                status: if condition.status { "True" } else { "False" }.to_owned(),
                last_transition_time: time::format(condition.since),
                reason: condition.reason.clone(),
                message: String::new(),
            })
            .collect(),
        container_statuses: containers
            .map(|(spec, record)| container(group, spec, record))
            .collect(),
    }
}

fn container(
    group: &GroupRecord,
    spec: &ContainerSpec,
    record: &ContainerRecord,
) -> ContainerStatus {
    let run = |attempt: u32| format!("eci://{}/{}/{attempt}", group.id, record.name);
    ContainerStatus {
        name: record.name.clone(),
        image: spec.image.clone(),
        image_id: record.image_id.clone(),
        ready: record.ready,
        started: record.state.is_running(),
        restart_count: record.restart_count,
        state: state(&record.state, run(record.attempt)),
        last_state: record
            .previous
            .as_ref()
            .map(|previous| state(previous, run(record.attempt.saturating_sub(1))))
            .unwrap_or_default(),
    }
}

fn state(state: &RunState, container_id: String) -> State {
    match state {
        RunState::Waiting { reason, message } => State {
            waiting: Some(Waiting {
                reason: reason.clone(),
                message: message.clone(),
            }),
            ..Default::default()
        },
        RunState::Running { started_at } => {
            let started_at = time::format(*started_at);
            State {
                running: Some(Running {
                    started_at_odd: started_at.clone(),
                    started_at,
                }),
                ..Default::default()
            }
        }
        RunState::Terminated {
            exit_code,
            signal,
            reason,
            message,
            started_at,
            finished_at,
        } => State {
            terminated: Some(Terminated {
                container_id,
                exit_code: (*exit_code).into(),
                signal: (*signal).into(),
                reason: reason.clone(),
                message: message.clone(),
                started_at: started_at.map(time::format).unwrap_or_default(),
                finished_at: time::format(*finished_at),
            }),
            ..Default::default()
        },
    }
}

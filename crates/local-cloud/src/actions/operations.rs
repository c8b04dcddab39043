//! Core dumps and packet captures: asked for, recorded, closed. Nothing is captured here, and the answer says so.

use super::Call;
use super::table;
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::OperationRecord;
use cloud_api::model::GroupStatus;
use cloud_api::model::operations::*;
use cloud_api::time;
use jiff::SignedDuration;
use serde::Deserialize;

/// Most records in all; the oldest make room.
const MAX_RECORDS: usize = 1_000;
/// How long a core dump stays switched on.
const COREDUMP: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How long a capture without a duration runs.
const TCPDUMP_SECONDS: i64 = 300;
const LONGEST_TCPDUMP_SECONDS: i64 = 3_600;

/// What a packet capture is asked for with; filters are read by the capture, not by us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Capture {
    enable: bool,
    duration: Option<i64>,
}

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateInstanceOpsTaskRequest,
) -> Result<CreateInstanceOpsTaskResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupId", "OpsType", "OpsValue"])?;
    let (enable, length) = read(&request)?;
    let id = request.container_group_id;
    let result = if enable { "enabled" } else { "disabled" };
    let result = format!("{} {result}", request.ops_type);
    table::once(call, None, |state, now| {
        let group = state
            .groups
            .get(&id)
            .ok_or_else(|| Refusal::no_group(&id))?;
        if group.status != GroupStatus::Running {
            return Err(Refusal::wrong_status(&id, group.status.as_str(), "Running"));
        }
        close_open(state, &id, &request.ops_type);
        if enable {
            make_room(state);
            let operation = state.random_id("ops-");
            let record = OperationRecord {
                group_id: id.clone(),
                kind: request.ops_type,
                created_at: now,
                expires_at: now + length,
                closed: false,
            };
            state.put(&operation, record);
        }
        Ok(id)
    })
    .await?;
    Ok(CreateInstanceOpsTaskResponse {
        result,
        ..Default::default()
    })
}

/// Whether it is switched on, and for how long.
fn read(request: &CreateInstanceOpsTaskRequest) -> Result<(bool, SignedDuration), Refusal> {
    match (request.ops_type.as_str(), request.ops_value.as_str()) {
        ("coredump", "enable") => Ok((true, COREDUMP)),
        ("coredump" | "tcpdump", "disable") => Ok((false, SignedDuration::ZERO)),
        ("coredump", _) => Err(Refusal::invalid("OpsValue", "it must be enable or disable")),
        ("tcpdump", value) => {
            let rule = "it must be a JSON object with the member Enable";
            let capture: Capture =
                serde_json::from_str(value).map_err(|_| Refusal::invalid("OpsValue", rule))?;
            let seconds = capture.duration.unwrap_or(TCPDUMP_SECONDS);
            if !(1..=LONGEST_TCPDUMP_SECONDS).contains(&seconds) {
                let rule = format!("Duration must be from 1 to {LONGEST_TCPDUMP_SECONDS}");
                return Err(Refusal::invalid("OpsValue", rule));
            }
            Ok((capture.enable, SignedDuration::from_secs(seconds)))
        }
        _ => Err(Refusal::invalid(
            "OpsType",
            "it must be coredump or tcpdump",
        )),
    }
}

fn close_open(state: &mut State, group_id: &str, kind: &str) {
    let open: Vec<String> = state
        .resources
        .operations
        .iter()
        .filter(|(_, own)| own.group_id == group_id && own.kind == kind && !own.closed)
        .map(|(id, _)| id.clone())
        .collect();
    for id in open {
        state.change_row(&id, |operation: &mut OperationRecord| {
            operation.closed = true
        });
    }
}

fn make_room(state: &mut State) {
    let operations = &state.resources.operations;
    if operations.len() >= MAX_RECORDS
        && let Some((oldest, _)) = operations.iter().min_by_key(|(_, own)| own.created_at)
    {
        let oldest = oldest.clone();
        state.take_row::<OperationRecord>(&oldest);
    }
}

pub(crate) fn describe(
    call: &Call<'_>,
    request: &DescribeInstanceOpsRecordsRequest,
) -> Result<DescribeInstanceOpsRecordsResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupId", "OpsType"])?;
    let now = call.shared.now();
    let state = call.shared.state();
    let mut found: Vec<&OperationRecord> = state
        .resources
        .operations
        .values()
        .filter(|own| own.group_id == request.container_group_id && own.kind == request.ops_type)
        .collect();
    found.sort_by_key(|own| std::cmp::Reverse(own.created_at));
    let records = found.into_iter().map(|own| OpsRecord {
        ops_type: own.kind.clone(),
        ops_status: match own {
            _ if own.closed => "Closed",
            _ if own.expires_at <= now => "Expired",
            _ => "Ready",
        }
        .to_owned(),
        create_time: time::format(own.created_at),
        expire_time: time::format(own.expires_at),
        result_type: "OSS".to_owned(),
        result_content: String::new(),
    });
    Ok(DescribeInstanceOpsRecordsResponse {
        records: records.collect(),
        ..Default::default()
    })
}

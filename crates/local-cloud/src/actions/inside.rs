//! DescribeContainerLog and ExecContainerCommand.

use super::Call;
use crate::backend::{BackendError, GroupPlan, LogQuery, Run};
use crate::gateway::refusal::Refusal;
use crate::gateway::tickets::Ticket;
use crate::shared::plan_of;
use crate::state::record::ContainerRecord;
use cloud_api::model::create::ContainerSpec;
use cloud_api::model::manage::*;
use jiff::SignedDuration;
use std::time::Duration;

const DEFAULT_LINES: i64 = 500;
const MAX_LINES: i64 = 2_000;
const MAX_BYTES: i64 = 1_048_576;
const MAX_COMMAND_PARTS: usize = 20;
const MAX_PART_LENGTH: usize = 256;
/// The longest that a synchronous command may take.
const LONGEST_COMMAND: Duration = Duration::from_secs(30);

/// A container that was named in a call.
struct Found {
    plan: GroupPlan,
    spec: ContainerSpec,
    record: ContainerRecord,
}

fn find(call: &Call<'_>, group_id: &str, container: &str) -> Result<Found, Refusal> {
    let state = call.shared.state();
    let group = state
        .groups
        .get(group_id)
        .ok_or_else(|| Refusal::no_group(group_id))?;
    let mut specs = group
        .request
        .container
        .iter()
        .chain(&group.request.init_container);
    match (
        specs.find(|spec| spec.name == container),
        group.container(container),
    ) {
        (Some(spec), Some(record)) => Ok(Found {
            plan: plan_of(group),
            spec: spec.clone(),
            record: record.clone(),
        }),
        _ => Err(Refusal::invalid(
            "ContainerName",
            format!("group {group_id} has no container {container}"),
        )),
    }
}

pub(crate) async fn log(
    call: &Call<'_>,
    request: DescribeContainerLogRequest,
) -> Result<DescribeContainerLogResponse, Refusal> {
    call.need(&["ContainerGroupId", "ContainerName"])?;
    let query = log_query(call, &request)?;
    let found = find(call, &request.container_group_id, &request.container_name)?;
    let attempt = if request.last_time == Some(true) {
        let previous = found.record.attempt.checked_sub(1);
        previous.ok_or_else(|| {
            Refusal::invalid("LastTime", "the container has had no run before this one")
        })?
    } else {
        found.record.attempt
    };
    let run = Run {
        container: &found.spec,
        attempt,
    };
    let content = call
        .shared
        .backend
        .logs(&found.plan, run, &query)
        .await
        .map_err(|error| failed(&error))?;
    Ok(DescribeContainerLogResponse {
        container_name: request.container_name,
        content,
        ..Default::default()
    })
}

fn log_query(call: &Call<'_>, request: &DescribeContainerLogRequest) -> Result<LogQuery, Refusal> {
    let bounded =
        |value: Option<i64>, default: i64, range: std::ops::RangeInclusive<i64>, name: &str| {
            let value = value.unwrap_or(default);
            let rule = format!("it must be from {} to {}", range.start(), range.end());
            let inside = range.contains(&value);
            let value = inside.then(|| usize::try_from(value).ok()).flatten();
            value.ok_or_else(|| Refusal::invalid(name, rule))
        };
    let tail = bounded(request.tail, DEFAULT_LINES, 0..=MAX_LINES, "Tail")?;
    let limit_bytes = bounded(request.limit_bytes, MAX_BYTES, 1..=MAX_BYTES, "LimitBytes")?;
    let start_time = match super::filter::given(&request.start_time) {
        Some(text) => Some(cloud_api::time::parse(text).ok_or_else(|| {
            Refusal::invalid(
                "StartTime",
                "it must be a time such as 2024-01-02T03:04:05Z",
            )
        })?),
        None => None,
    };
    let since_seconds = request.since_seconds.filter(|seconds| *seconds > 0);
    let since = since_seconds.map(|seconds| call.shared.now() - SignedDuration::from_secs(seconds));
    Ok(LogQuery {
        tail: Some(tail),
        since: start_time.max(since),
        limit_bytes: Some(limit_bytes),
        timestamps: request.timestamps.unwrap_or_default(),
    })
}

fn failed(error: &BackendError) -> Refusal {
    Refusal::internal(format!("{}: {error}.", error.reason))
}

pub(crate) async fn exec(
    call: &Call<'_>,
    request: ExecContainerCommandRequest,
) -> Result<ExecContainerCommandResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupId", "ContainerName", "Command"])?;
    check_command(&request.command)?;
    let (sync, tty) = (
        request.sync.unwrap_or_default(),
        request.tty.unwrap_or_default(),
    );
    if sync && tty {
        return Err(Refusal::invalid(
            "TTY",
            "a synchronous command has no terminal",
        ));
    }
    let found = find(call, &request.container_group_id, &request.container_name)?;
    if !found.record.state.is_running() {
        return Err(Refusal::wrong_status(
            &request.container_group_id,
            "not running that container",
            "Running",
        ));
    }
    if !sync {
        return session(call, request, tty);
    }
    let run = Run {
        container: &found.spec,
        attempt: found.record.attempt,
    };
    let backend = &call.shared.backend;
    let output = backend
        .exec_sync(&found.plan, run, request.command, LONGEST_COMMAND)
        .await;
    let output = output.map_err(|error| failed(&error))?.output;
    let text = String::from_utf8_lossy(&output).into_owned();
    Ok(ExecContainerCommandResponse {
        sync_response: Some(text),
        ..Default::default()
    })
}

fn check_command(command: &[String]) -> Result<(), Refusal> {
    let sound = (1..=MAX_COMMAND_PARTS).contains(&command.len())
        && command
            .iter()
            .all(|part| part.chars().count() <= MAX_PART_LENGTH);
    let message = format!(
        "The parameter \"Command\" must have 1 to {MAX_COMMAND_PARTS} items of up to {MAX_PART_LENGTH} characters."
    );
    sound
        .then_some(())
        .ok_or_else(|| Refusal::new(400, "InvalidParameter.ValueExceeded", message))
}

fn session(
    call: &Call<'_>,
    request: ExecContainerCommandRequest,
    tty: bool,
) -> Result<ExecContainerCommandResponse, Refusal> {
    let ticket = Ticket {
        group_id: request.container_group_id,
        container: request.container_name,
        command: request.command,
        tty,
        stdin: request.stdin.unwrap_or(true),
        issued_at: call.shared.now(),
    };
    let key = call.tickets.issue(ticket);
    let key = key.ok_or_else(|| {
        Refusal::new(
            503,
            "ServiceUnavailable",
            "Too many exec sessions are waiting.",
        )
    })?;
    Ok(ExecContainerCommandResponse {
        web_socket_uri: Some(format!("ws://{}/exec/?s={key}", call.host)),
        http_url: Some(format!("http://{}/exec/?s={key}", call.host)),
        ..Default::default()
    })
}

//! CommitContainer: an image made from a running container, as a task that one can ask about.

use super::Call;
use super::filter::given;
use super::table::{self, Window, is};
use crate::backend::Run;
use crate::gateway::refusal::Refusal;
use crate::shared::{Shared, plan_of};
use crate::state::State;
use crate::state::resources::{CommitEnd, CommitRecord};
use cloud_api::model::commit::*;
use cloud_api::time;
use jiff::Timestamp;
use std::sync::Arc;

/// Most tasks that are remembered; the oldest ended one makes room.
const MAX_TASKS: usize = 1_000;
const MAX_TASK_IDS: usize = 10;
const PAGE: u32 = 10;
const LARGEST_PAGE: u32 = 50;
const PHASES: [&str; 3] = ["PullBaseImage", "CommitContainer", "PushCommittedImage"];

pub(crate) async fn create(
    call: &Call<'_>,
    request: CommitContainerRequest,
) -> Result<CommitContainerResponse, Refusal> {
    call.need(&[
        "RegionId",
        "ContainerGroupId",
        "ContainerName",
        "Image.Repository",
        "Image.Tag",
    ])?;
    let task_id = table::once(call, None, |state, now| {
        check(&request, state)?;
        make_room(state)?;
        let id = state.random_id("ct-");
        let record = CommitRecord {
            request,
            created_at: now,
            end: None,
        };
        state.put(&id, record);
        Ok(id)
    })
    .await?;
    start(call.shared, task_id.clone());
    Ok(CommitContainerResponse {
        task_id,
        ..Default::default()
    })
}

fn check(request: &CommitContainerRequest, state: &State) -> Result<(), Refusal> {
    let id = &request.container_group_id;
    let group = state.groups.get(id).ok_or_else(|| Refusal::no_group(id))?;
    let container = group.container(&request.container_name).ok_or_else(|| {
        let rule = format!("group {id} has no container {}", request.container_name);
        Refusal::invalid("ContainerName", rule)
    })?;
    if container.state.is_running() {
        return Ok(());
    }
    let message = format!(
        "Container {} of group {id} does not run.",
        request.container_name
    );
    Err(Refusal::new(403, "IncorrectStatusDetail", message))
}

fn make_room(state: &mut State) -> Result<(), Refusal> {
    let commits = &state.resources.commits;
    if commits.len() < MAX_TASKS {
        return Ok(());
    }
    let ended = commits.iter().filter(|(_, commit)| commit.end.is_some());
    let Some(oldest) = ended
        .min_by_key(|(_, commit)| commit.created_at)
        .map(|(id, _)| id.clone())
    else {
        return Err(Refusal::new(
            503,
            "ServiceUnavailable",
            "Too many commits are under way.",
        ));
    };
    state.take_row::<CommitRecord>(&oldest);
    Ok(())
}

/// Carries a task out in the background.
pub(crate) fn start(shared: &Arc<Shared>, id: String) {
    let own = shared.clone();
    shared.tasks.spawn(async move {
        let failure = tokio::select! {
            // The next start of the process takes it up again.
            () = own.shutdown.cancelled() => return,
            done = carry_out(&own, &id) => done.err(),
        };
        let now = own.now();
        own.state().change_row(&id, |commit: &mut CommitRecord| {
            commit.end = Some(CommitEnd { at: now, failure });
        });
        own.wake();
    });
}

async fn carry_out(shared: &Shared, id: &str) -> Result<(), String> {
    let gone = || "The container is gone.".to_owned();
    let (plan, request, attempt) = {
        let state = shared.state();
        let commit = state.resources.commits.get(id).ok_or_else(gone)?;
        let request = commit.request.clone();
        let group = state
            .groups
            .get(&request.container_group_id)
            .ok_or_else(gone)?;
        let attempt = group
            .container(&request.container_name)
            .ok_or_else(gone)?
            .attempt;
        (plan_of(group), request, attempt)
    };
    let mut specs = plan.request.container.iter();
    let container = specs
        .find(|spec| spec.name == request.container_name)
        .ok_or_else(gone)?;
    let image = request.image.unwrap_or_default();
    let reference = format!("{}:{}", image.repository, image.tag);
    if shared.backend.is_simulated() {
        tokio::time::sleep(shared.config.stage).await;
    }
    let run = Run { container, attempt };
    let committed = shared.backend.commit(&plan, run, &reference).await;
    committed.map_err(|error| format!("{}: {error}", error.reason))
}

pub(crate) fn describe(
    call: &Call<'_>,
    request: &DescribeCommitContainerTaskRequest,
) -> Result<DescribeCommitContainerTaskResponse, Refusal> {
    call.need(&["RegionId"])?;
    if given(&request.container_group_id).is_none() && request.task_id.is_empty() {
        return Err(Refusal::missing("ContainerGroupId"));
    }
    if request.task_id.len() > MAX_TASK_IDS {
        return Err(Refusal::invalid(
            "TaskId",
            format!("at most {MAX_TASK_IDS} are allowed"),
        ));
    }
    let window = Window {
        name: "MaxResults",
        limit: request.max_results,
        default: PAGE,
        most: LARGEST_PAGE,
        next_token: request.next_token.as_deref(),
    };
    let state = call.shared.state();
    let page = table::page(&state, &window, |id, commit: &CommitRecord| {
        (request.task_id.is_empty() || request.task_id.iter().any(|known| known == id))
            && is(
                &request.container_group_id,
                &commit.request.container_group_id,
            )
            && is(&request.task_status, status(commit))
    })?;
    Ok(DescribeCommitContainerTaskResponse {
        commit_tasks: page
            .rows
            .iter()
            .map(|(id, commit)| info(id, commit))
            .collect(),
        max_results: request.max_results.unwrap_or(PAGE).to_string(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}

fn status(commit: &CommitRecord) -> &'static str {
    match &commit.end {
        None => "Running",
        Some(CommitEnd { failure: None, .. }) => "Succeeded",
        Some(_) => "Failed",
    }
}

fn info(id: &str, commit: &CommitRecord) -> CommitTask {
    let status = status(commit);
    let failure = commit
        .end
        .as_ref()
        .and_then(|end| end.failure.clone())
        .unwrap_or_default();
    let ended = commit.end.as_ref().map(|end| time::format(end.at));
    let phase = |phase: &str, status: &str, message: &str, at: Timestamp| CommitPhaseInfo {
        phase: phase.to_owned(),
        status: status.to_owned(),
        message: message.to_owned(),
        record_time: time::format(at),
    };
    let at = commit.end.as_ref().map_or(commit.created_at, |end| end.at);
    let phases = match status {
        "Running" => vec![phase(PHASES[0], "Running", "", at)],
        "Succeeded" => PHASES.map(|name| phase(name, "Succeeded", "", at)).to_vec(),
        _ => vec![
            phase(PHASES[0], "Succeeded", "", at),
            phase(PHASES[1], "Failed", &failure, at),
        ],
    };
    CommitTask {
        task_id: id.to_owned(),
        container_name: commit.request.container_name.clone(),
        task_status: status.to_owned(),
        task_progress: if ended.is_some() { "100%" } else { "0%" }.to_owned(),
        status_message: failure,
        task_creation_time: time::format(commit.created_at),
        task_finished_time: ended,
        commit_phase_infos: phases,
    }
}

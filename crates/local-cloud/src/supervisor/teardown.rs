//! Stopping and removing: everything is tried, nothing is left because something else failed.

use super::backoff::Backoff;
use crate::backend::{BackendError, GroupPlan, Run};
use crate::shared::Shared;
use cloud_api::model::GroupStatus;
use cloud_api::model::create::{ContainerSpec, HttpGetAction, ProbeSpec};
use futures::future::join_all;
use std::time::Duration;

/// From the stop signal to the kill.
pub(super) fn grace(shared: &Shared, plan: &GroupPlan) -> Duration {
    let asked = plan
        .request
        .termination_grace_period_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(shared.config.default_grace, Duration::from_secs)
}

/// Stops what runs, side by side.
pub(super) async fn stop_all(shared: &Shared, plan: &GroupPlan) {
    let running: Vec<(&ContainerSpec, u32)> = {
        let state = shared.state();
        let Some(group) = state.groups.get(&plan.id) else {
            return;
        };
        let specs = plan
            .request
            .container
            .iter()
            .chain(&plan.request.init_container);
        specs
            .filter_map(|spec| Some((spec, group.container(&spec.name)?)))
            .filter(|(_, container)| container.state.is_running())
            .map(|(spec, container)| (spec, container.attempt))
            .collect()
    };
    let stops = running
        .into_iter()
        .map(|(container, attempt)| stop(shared, plan, Run { container, attempt }));
    join_all(stops).await;
}

async fn stop(shared: &Shared, plan: &GroupPlan, run: Run<'_>) {
    let name = &run.container.name;
    shared.change(&plan.id, |group, now| {
        group.note(false, "Killing", format!("Stopping container {name}"), now);
        if let Some(container) = group.container_mut(name) {
            container.ready = false;
        }
    });
    let grace = grace(shared, plan);
    let asked = tokio::time::Instant::now();
    if !grace.is_zero()
        && let Err(error) = pre_stop(shared, plan, run, grace).await
    {
        shared.change(&plan.id, |group, now| {
            group.note(
                true,
                "FailedPreStopHook",
                format!("Hook of container {name}: {error}"),
                now,
            );
        });
    }
    if let Err(error) = shared
        .backend
        .stop(plan, run, grace.saturating_sub(asked.elapsed()))
        .await
    {
        tracing::warn!(group = %plan.id, container = %name, %error, "container cannot be stopped");
    }
}

/// The container's hook, by command or by HTTP, within the grace period.
async fn pre_stop(
    shared: &Shared,
    plan: &GroupPlan,
    run: Run<'_>,
    grace: Duration,
) -> Result<(), BackendError> {
    let command = &run.container.lifecycle_pre_stop_handler_exec;
    if !command.is_empty() {
        shared
            .backend
            .exec_sync(plan, run, command.clone(), grace)
            .await?;
    }
    if let Some(port) = run.container.lifecycle_pre_stop_handler_http_get_port {
        let path = run
            .container
            .lifecycle_pre_stop_handler_http_get_path
            .clone();
        let get = HttpGetAction {
            path,
            port,
            scheme: None,
        };
        let asked = ProbeSpec {
            http_get: Some(get),
            ..Default::default()
        };
        let answer = tokio::time::timeout(grace, shared.backend.probe(plan, run, &asked)).await;
        answer
            .unwrap_or_else(|_| Err(BackendError::new("FailedPreStopHook", "no answer in time")))?;
    }
    Ok(())
}

/// Gives back what an ended group still holds; its record and logs stay.
pub(super) async fn end(shared: &Shared, plan: &GroupPlan) {
    let mut backoff = Backoff::new(Duration::from_secs(1), 1);
    while let Err(error) = shared.backend.end(plan).await {
        tracing::warn!(group = %plan.id, %error, "group cannot be ended, trying again");
        tokio::time::sleep(backoff.next(Duration::ZERO)).await;
    }
    shared.state().release(&plan.id);
    shared.wake();
}

/// Deletes a group: it stops, its bill is closed, and then it is gone.
pub(super) async fn delete(shared: &Shared, plan: &GroupPlan) {
    shared.change(&plan.id, |group, now| {
        if !group.status.is_final() {
            group.set_status(GroupStatus::Terminating, now);
        }
    });
    stop_all(shared, plan).await;
    end(shared, plan).await;
    if let Err(error) = shared.backend.forget(&plan.id).await {
        tracing::warn!(group = %plan.id, %error, "remains of a group cannot be removed");
    }
    let now = shared.now();
    shared.state().remove(&plan.id, now);
    shared.samples.forget(&plan.id);
    shared.wake();
}

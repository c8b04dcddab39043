//! Stopping and removing: everything is tried, nothing is left because something else failed.

use super::backoff::Backoff;
use super::hooks;
use crate::backend::{GroupPlan, Run};
use crate::shared::Shared;
use cloud_api::model::GroupStatus;
use cloud_api::model::create::ContainerSpec;
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
    stop_some(shared, plan, &|_| true).await;
}

/// Stops those of the running containers that are concerned, side by side.
pub(super) async fn stop_some(
    shared: &Shared,
    plan: &GroupPlan,
    concerns: &(dyn Fn(&str) -> bool + Sync),
) {
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
            .filter(|(spec, container)| container.state.is_running() && concerns(&spec.name))
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
        && let Err(error) = hooks::pre_stop(shared, plan, run, grace).await
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

/// Gives back what an ended group still holds; its record and logs stay.
pub(super) async fn end(shared: &Shared, plan: &GroupPlan) {
    let mut backoff = Backoff::new(Duration::from_secs(1), 1);
    while let Err(error) = shared.backend.end(plan).await {
        tracing::warn!(group = %plan.id, %error, "group cannot be ended, trying again");
        tokio::time::sleep(backoff.next(Duration::ZERO)).await;
    }
    let now = shared.now();
    shared.state().release(&plan.id, now);
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

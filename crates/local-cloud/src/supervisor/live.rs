//! The life of a group: surroundings, init containers one after the other, then all containers side by side.

use super::backoff::Backoff;
use super::container;
use crate::backend::GroupPlan;
use crate::shared::Shared;
use cloud_api::model::GroupStatus;
use futures::future::join_all;
use std::time::Duration;

/// How long a group may be `Pending` when it says nothing itself.
const DEFAULT_PENDING_MINUTES: u64 = 240;

/// How a group ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    /// Taken away by the cloud.
    Expired,
    Failed {
        reason: &'static str,
        message: String,
    },
}

impl Outcome {
    fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Failed {
            reason,
            message: message.into(),
        }
    }
}

/// Lives until all containers have ended for good. May be dropped at any moment.
pub(super) async fn live(shared: &Shared, plan: &GroupPlan) -> Outcome {
    shared.change(&plan.id, |record, now| {
        if record.status == GroupStatus::Scheduling {
            record.set_status(GroupStatus::Pending, now);
            if record.simulated {
                record.note(
                    false,
                    "Simulated",
                    "This container group is simulated: it exists on paper only.",
                    now,
                );
            }
        }
    });
    tokio::select! {
        outcome = steps(shared, plan) => outcome,
        () = deadline(shared, plan) => {
            super::teardown::stop_all(shared, plan).await;
            Outcome::failed("DeadlineExceeded", "The container group was active for longer than its deadline allows.")
        }
        () = pending_for_too_long(shared, plan) => {
            super::teardown::stop_all(shared, plan).await;
            Outcome::failed("PendingTimeout", "The container group was pending for longer than it may.")
        }
        () = taken_away(shared, plan) => {
            super::teardown::stop_all(shared, plan).await;
            Outcome::Expired
        }
        () = doom(shared, plan) => {
            super::teardown::stop_all(shared, plan).await;
            Outcome::failed("SystemFailure.Reboot", "The instance failed.")
        }
    }
}

/// Ends when the group has been `Pending` for longer than it may.
async fn pending_for_too_long(shared: &Shared, plan: &GroupPlan) {
    let minutes = plan
        .request
        .max_pending_minute
        .and_then(|minutes| u64::try_from(minutes).ok())
        .unwrap_or(DEFAULT_PENDING_MINUTES);
    let look = || {
        let state = shared.state();
        let group = state.groups.get(&plan.id)?;
        (group.status == GroupStatus::Pending).then_some(group.billed_from)?
    };
    let Some(from) = look() else {
        return std::future::pending().await;
    };
    let passed = Duration::try_from(shared.now().duration_since(from)).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(minutes * 60).saturating_sub(passed)).await;
    if look().is_none() {
        std::future::pending().await
    }
}

/// Ends when the cloud takes a spot group away.
async fn taken_away(shared: &Shared, plan: &GroupPlan) {
    let release_at = {
        let state = shared.state();
        let group = state.groups.get(&plan.id);
        group.and_then(|group| group.spot.as_ref()?.release_at)
    };
    let Some(release_at) = release_at else {
        return std::future::pending().await;
    };
    let left = Duration::try_from(release_at.duration_since(shared.now())).unwrap_or_default();
    tokio::time::sleep(left).await;
}

/// Ends at once when the group was marked to fail.
async fn doom(shared: &Shared, plan: &GroupPlan) {
    let is_doomed = {
        let state = shared.state();
        let group = state.groups.get(&plan.id);
        group.is_some_and(|group| group.doomed)
    };
    if !is_doomed {
        std::future::pending().await
    }
}

async fn deadline(shared: &Shared, plan: &GroupPlan) {
    let seconds = plan.request.active_deadline_seconds.unwrap_or_default();
    let from = shared
        .state()
        .groups
        .get(&plan.id)
        .and_then(|group| group.billed_from);
    let (Some(from), Ok(seconds @ 1..)) = (from, u64::try_from(seconds)) else {
        return std::future::pending().await;
    };
    let passed = Duration::try_from(shared.now().duration_since(from)).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(passed)).await;
}

async fn steps(shared: &Shared, plan: &GroupPlan) -> Outcome {
    prepare(shared, plan).await;
    for spec in &plan.request.init_container {
        let done = shared
            .state()
            .groups
            .get(&plan.id)
            .and_then(|group| group.container(&spec.name)?.state.exit_code());
        if done == Some(0) {
            continue;
        }
        let exit_code = container::run(shared, plan, spec, true).await;
        if exit_code != 0 {
            let message = format!(
                "Init container {} ended with exit code {exit_code}.",
                spec.name
            );
            return Outcome::failed("InitContainerFailed", message);
        }
    }
    let runs = plan
        .request
        .container
        .iter()
        .map(|spec| container::run(shared, plan, spec, false));
    let exit_codes = join_all(runs).await;
    match exit_codes
        .iter()
        .zip(&plan.request.container)
        .find(|(exit_code, _)| **exit_code != 0)
    {
        None => Outcome::Succeeded,
        Some((exit_code, spec)) => Outcome::failed(
            "ContainerFailed",
            format!("Container {} ended with exit code {exit_code}.", spec.name),
        ),
    }
}

/// Tries for as long as the group is wanted: what stands in the way may pass, and it is told in an event.
async fn prepare(shared: &Shared, plan: &GroupPlan) {
    let mut backoff = Backoff::new(Duration::from_secs(1), 1);
    while let Err(error) = shared.backend.prepare(plan).await {
        tracing::warn!(group = %plan.id, %error, "group's surroundings cannot be made");
        shared.change(&plan.id, |record, now| {
            record.note(true, error.reason, error.message, now)
        });
        tokio::time::sleep(backoff.next(Duration::ZERO)).await;
    }
}

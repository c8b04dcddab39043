//! Readiness and liveness checks of a running container.
//!
//! A fresh container is looked at often until its first success, then by its period: nobody should wait for the
//! next tick of a ten-second clock when the container was ready after half a second.

use crate::backend::{GroupPlan, Run};
use crate::shared::Shared;
use cloud_api::model::create::ProbeSpec;
use std::time::Duration;

const FIRST_LOOK: Duration = Duration::from_millis(50);

fn seconds(value: Option<i64>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default),
    )
}

/// Watches until the liveness check has failed too often; says why.
pub(super) async fn watch(shared: &Shared, plan: &GroupPlan, run: Run<'_>) -> String {
    tokio::select! {
        failure = liveness(shared, plan, run) => failure,
        never = readiness(shared, plan, run) => match never {},
    }
}

async fn check(
    shared: &Shared,
    plan: &GroupPlan,
    run: Run<'_>,
    probe: &ProbeSpec,
) -> Result<(), String> {
    let limit = seconds(probe.timeout_seconds, 1);
    match tokio::time::timeout(limit, shared.backend.probe(plan, run, probe)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.message),
        Err(_) => Err(format!("no result within {} s", limit.as_secs())),
    }
}

async fn initial_delay(probe: &ProbeSpec) {
    let delay = probe
        .initial_delay_seconds
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or_default();
    if delay > 0 {
        tokio::time::sleep(Duration::from_secs(delay)).await;
    }
}

async fn liveness(shared: &Shared, plan: &GroupPlan, run: Run<'_>) -> String {
    let Some(probe) = &run.container.liveness_probe else {
        return std::future::pending().await;
    };
    initial_delay(probe).await;
    let threshold = probe.failure_threshold.unwrap_or(3).max(1);
    let mut failures = 0;
    loop {
        match check(shared, plan, run, probe).await {
            Ok(()) => failures = 0,
            Err(reason) => {
                failures += 1;
                note_failure(shared, plan, "Liveness", &reason);
                if failures >= threshold {
                    return reason;
                }
            }
        }
        tokio::time::sleep(seconds(probe.period_seconds, 10)).await;
    }
}

async fn readiness(shared: &Shared, plan: &GroupPlan, run: Run<'_>) -> std::convert::Infallible {
    let Some(probe) = &run.container.readiness_probe else {
        return std::future::pending().await;
    };
    initial_delay(probe).await;
    let period = seconds(probe.period_seconds, 10);
    let threshold = probe.failure_threshold.unwrap_or(3).max(1);
    let (mut failures, mut was_ready, mut pause) = (0, false, FIRST_LOOK);
    loop {
        match check(shared, plan, run, probe).await {
            Ok(()) => {
                failures = 0;
                was_ready = true;
                set_ready(shared, plan, run, true);
            }
            Err(reason) => {
                failures += 1;
                // While it starts, failing is what is expected of it.
                if was_ready || pause >= period {
                    note_failure(shared, plan, "Readiness", &reason);
                }
                if failures >= threshold {
                    set_ready(shared, plan, run, false);
                }
            }
        }
        tokio::time::sleep(if was_ready { period } else { pause }).await;
        pause = (pause * 2).min(period);
    }
}

fn set_ready(shared: &Shared, plan: &GroupPlan, run: Run<'_>, ready: bool) {
    let name = &run.container.name;
    let differs = shared
        .state()
        .groups
        .get(&plan.id)
        .and_then(|group| group.container(name))
        .is_some_and(|container| container.attempt == run.attempt && container.ready != ready);
    if differs {
        shared.change(&plan.id, |group, _| {
            if let Some(container) = group.container_mut(name) {
                container.ready = ready;
            }
        });
    }
}

fn note_failure(shared: &Shared, plan: &GroupPlan, kind: &str, reason: &str) {
    let message = format!("{kind} probe failed: {reason}");
    shared.change(&plan.id, |group, now| {
        group.note(true, "Unhealthy", message, now)
    });
}

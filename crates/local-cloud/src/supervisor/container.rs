//! The life of a container: pull, start, watch, and again as the restart policy has it.

use super::backoff::Backoff;
use super::probes;
use crate::backend::{BackendError, ContainerExit, GroupPlan, Run};
use crate::shared::Shared;
use crate::state::record::{ContainerRecord, GroupRecord, RunState};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::ContainerSpec;
use jiff::Timestamp;
use std::time::Duration;

/// The longest that a hook may take.
const LONGEST_HOOK: Duration = Duration::from_secs(60);

/// One container's way through its runs.
struct Life<'a> {
    shared: &'a Shared,
    plan: &'a GroupPlan,
    spec: &'a ContainerSpec,
    is_init: bool,
}

/// Runs a container until it is not started any more; says how its last run ended.
pub(super) async fn run(
    shared: &Shared,
    plan: &GroupPlan,
    spec: &ContainerSpec,
    is_init: bool,
) -> i32 {
    let life = Life {
        shared,
        plan,
        spec,
        is_init,
    };
    let (_, restarts, _) = life.look();
    let mut backoff = Backoff::new(shared.config.restart_backoff, restarts);
    loop {
        let (attempt, _, state) = life.look();
        let run = Run {
            container: spec,
            attempt,
        };
        let exit_code = match state.exit_code() {
            // It had ended before this process was there.
            Some(exit_code) => exit_code,
            None => life.run_once(run, state.is_running()).await,
        };
        if !life.starts_again(exit_code) {
            return exit_code;
        }
        let pause = backoff.next(life.ran_for());
        life.back_off(exit_code, pause);
        tokio::time::sleep(pause).await;
        life.next_run();
    }
}

impl Life<'_> {
    /// Number of the run, restarts so far, and state.
    fn look(&self) -> (u32, u32, RunState) {
        let state = self.shared.state();
        let container = state
            .groups
            .get(&self.plan.id)
            .and_then(|group| group.container(&self.spec.name));
        container.map_or_else(Default::default, |container| {
            (
                container.attempt,
                container.restart_count,
                container.state.clone(),
            )
        })
    }

    fn change(&self, change: impl FnOnce(&mut ContainerRecord, Timestamp)) {
        self.shared.change(&self.plan.id, |group, now| {
            if let Some(container) = group.container_mut(&self.spec.name) {
                change(container, now);
            }
        });
    }

    fn note(&self, warning: bool, reason: &str, message: String) {
        self.shared.change(&self.plan.id, |group, now| {
            group.note(warning, reason, message, now)
        });
    }

    /// One run to its end.
    async fn run_once(&self, run: Run<'_>, is_running: bool) -> i32 {
        if !is_running {
            self.pull().await;
        }
        let exit = match self.shared.backend.start(self.plan, run).await {
            Ok(started_at) => {
                self.mark_running(run, started_at, is_running);
                match self.watch(run, is_running).await {
                    Ok(exit) => exit,
                    Err(error) => lost(&error, self.shared.now()),
                }
            }
            Err(error) => {
                self.note(true, "Failed", format!("Error: {error}"));
                lost(&error, self.shared.now())
            }
        };
        let exit_code = exit.exit_code;
        self.mark_ended(exit);
        exit_code
    }

    /// Tries for as long as the group is wanted, as a kubelet does.
    async fn pull(&self) {
        let image = &self.spec.image;
        let mut backoff = Backoff::new(self.shared.config.restart_backoff, 1);
        loop {
            self.note(false, "Pulling", format!("Pulling image \"{image}\""));
            match self.shared.backend.pull(self.plan, self.spec).await {
                Ok(pulled) => {
                    let message = if pulled.was_present {
                        format!("Container image \"{image}\" already present on machine")
                    } else {
                        format!(
                            "Successfully pulled image \"{image}\" in {} ms",
                            pulled.took.as_millis()
                        )
                    };
                    self.shared.change(&self.plan.id, |group, now| {
                        group.note(false, "Pulled", message, now);
                        if let Some(container) = group.container_mut(&self.spec.name) {
                            container.image_id = pulled.id;
                        }
                    });
                    return;
                }
                Err(error) => {
                    let message = error.message;
                    self.note(
                        true,
                        "Failed",
                        format!("Failed to pull image \"{image}\": {message}"),
                    );
                    self.change(|container, _| {
                        container.state = RunState::waiting("ErrImagePull", message.clone())
                    });
                    let pause = backoff.next(Duration::ZERO);
                    self.note(
                        false,
                        "BackOff",
                        format!("Back-off pulling image \"{image}\""),
                    );
                    self.change(|container, _| {
                        container.state = RunState::waiting("ImagePullBackOff", message)
                    });
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn mark_running(&self, run: Run<'_>, started_at: Timestamp, was_running: bool) {
        let name = &self.spec.name;
        let probed = self.spec.readiness_probe.is_some();
        self.shared.change(&self.plan.id, |group, now| {
            if !was_running {
                group.note(false, "Created", format!("Created container {name}"), now);
                group.note(false, "Started", format!("Started container {name}"), now);
            }
            if let Some(container) = group
                .container_mut(name)
                .filter(|container| container.attempt == run.attempt)
            {
                container.state = RunState::Running { started_at };
                container.ready = if was_running {
                    container.ready || !probed
                } else {
                    !probed
                };
            }
            if !self.is_init {
                begin_running(group, now);
            }
        });
    }

    /// Waits for the end; a failed liveness check brings it about.
    async fn watch(&self, run: Run<'_>, was_running: bool) -> Result<ContainerExit, BackendError> {
        if !was_running {
            self.post_start(run).await;
        }
        let backend = &self.shared.backend;
        let failure = tokio::select! {
            exit = backend.wait(self.plan, run) => return exit,
            failure = probes::watch(self.shared, self.plan, run), if !self.is_init => failure,
        };
        let name = &self.spec.name;
        self.note(
            false,
            "Killing",
            format!("Container {name} failed its liveness probe and is restarted: {failure}"),
        );
        backend
            .stop(
                self.plan,
                run,
                super::teardown::grace(self.shared, self.plan),
            )
            .await?;
        backend.wait(self.plan, run).await
    }

    async fn post_start(&self, run: Run<'_>) {
        let Err(error) = super::hooks::post_start(self.shared, self.plan, run, LONGEST_HOOK).await
        else {
            return;
        };
        self.note(
            true,
            "FailedPostStartHook",
            format!("Hook of container {}: {error}", self.spec.name),
        );
    }

    fn mark_ended(&self, exit: ContainerExit) {
        if exit.out_of_memory {
            self.note(
                true,
                "OOMKilled",
                format!("Container {} ran out of memory", self.spec.name),
            );
        }
        self.change(|container, _| {
            container.ready = self.is_init && exit.exit_code == 0;
            let reason = match exit.exit_code {
                _ if exit.out_of_memory => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            };
            container.state = RunState::Terminated {
                exit_code: exit.exit_code,
                signal: exit.signal.unwrap_or_default(),
                reason: reason.to_owned(),
                message: exit.message.unwrap_or_default(),
                started_at: container.state.started_at(),
                finished_at: exit.finished_at,
            };
        });
    }

    fn starts_again(&self, exit_code: i32) -> bool {
        match self.plan.request.restart_policy.as_deref() {
            Some("Never") => false,
            Some("OnFailure") => exit_code != 0,
            // An init container that ended well is done under every policy.
            _ => exit_code != 0 || !self.is_init,
        }
    }

    fn ran_for(&self) -> Duration {
        match self.look().2 {
            RunState::Terminated {
                started_at: Some(started_at),
                finished_at,
                ..
            } => Duration::try_from(finished_at.duration_since(started_at)).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    fn back_off(&self, exit_code: i32, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let name = &self.spec.name;
        let message = format!("back-off {} s restarting container {name}", pause.as_secs());
        self.note(
            true,
            "BackOff",
            format!("Back-off restarting container {name} after exit code {exit_code}"),
        );
        self.change(|container, _| {
            container.previous = Some(std::mem::replace(
                &mut container.state,
                RunState::waiting("CrashLoopBackOff", message),
            ));
        });
    }

    fn next_run(&self) {
        self.change(|container, _| {
            let before = std::mem::take(&mut container.state);
            if let RunState::Terminated { .. } = before {
                container.previous = Some(before);
            }
            container.attempt += 1;
            container.restart_count += 1;
        });
    }
}

/// The group runs once every container has been started.
fn begin_running(group: &mut GroupRecord, now: Timestamp) {
    let starting = matches!(
        group.status,
        GroupStatus::Pending | GroupStatus::Restarting | GroupStatus::Updating
    );
    let waits = |container: &ContainerRecord| matches!(container.state, RunState::Waiting { .. });
    if starting && !group.containers.iter().any(waits) {
        group.set_status(GroupStatus::Running, now);
    }
}

/// A run whose end nobody saw, or that never began.
fn lost(error: &BackendError, now: Timestamp) -> ContainerExit {
    ContainerExit {
        exit_code: 128,
        signal: None,
        out_of_memory: false,
        finished_at: now,
        message: Some(format!("{}: {error}", error.reason)),
    }
}

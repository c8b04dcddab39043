//! One supervisor per group drives it from where it stands to where it is wanted.
//!
//! It looks at the record, not at what happened before: after a restart of the process the same steps lead on. All
//! that it does for a living group is one future; when something else is wanted that future is dropped, and the next
//! round starts from the record again.

mod backoff;
mod container;
mod hooks;
mod live;
mod probes;
mod teardown;

use crate::backend::GroupPlan;
use crate::shared::{Shared, plan_of};
use crate::state::Wanted;
use crate::state::record::{GroupRecord, RunState};
use cloud_api::model::GroupStatus;
use live::Outcome;
use std::sync::Arc;
use tokio::sync::watch;

/// Starts the supervisor of a group that has none.
pub(crate) fn spawn(shared: &Arc<Shared>, id: &str) {
    let mut state = shared.state();
    let Some(group) = state.groups.get(id) else {
        return;
    };
    let wanted = Wanted {
        deleting: group.deleting,
        generation: group.generation,
        prods: 0,
    };
    let (sender, receiver) = watch::channel(wanted);
    state.wanted.insert(id.to_owned(), sender);
    drop(state);
    let supervisor = Supervisor {
        shared: shared.clone(),
        id: id.to_owned(),
        wanted: receiver,
    };
    shared.tasks.spawn(supervisor.run());
}

struct Supervisor {
    shared: Arc<Shared>,
    id: String,
    wanted: watch::Receiver<Wanted>,
}

impl Supervisor {
    async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.supervise() => {}
        }
    }

    fn group(&self) -> Option<GroupRecord> {
        self.shared.state().groups.get(&self.id).cloned()
    }

    async fn supervise(&mut self) {
        loop {
            self.wanted.mark_unchanged();
            let Some(group) = self.group() else { return };
            let plan = plan_of(&group);
            if group.deleting {
                teardown::delete(&self.shared, &plan).await;
                return;
            }
            if group.status.is_final() {
                if group.holds_resources {
                    teardown::end(&self.shared, &plan).await;
                }
            } else if group.generation != group.applied_generation {
                self.renew(&plan, &group).await;
                continue;
            } else {
                tokio::select! {
                    outcome = live::live(&self.shared, &plan) => {
                        self.finish(&outcome);
                        continue;
                    }
                    changed = self.wanted.changed() => if changed.is_err() { return } else { continue },
                }
            }
            if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries a restart or an update out: what it concerns stops, and starts from the record with new runs; the
    /// other containers go on running.
    async fn renew(&self, plan: &GroupPlan, group: &GroupRecord) {
        let concerns = |name: &str| {
            let renewing = group.renewing.as_ref();
            renewing.is_none_or(|names| names.iter().any(|known| known == name))
        };
        teardown::stop_some(&self.shared, plan, &concerns).await;
        // Containers that go on running find new files before the group is said to run again. What fails here is
        // tried again, and told, by the next round.
        if let Err(error) = self.shared.backend.prepare(plan).await {
            tracing::warn!(group = %plan.id, %error, "files of a group cannot be renewed yet");
        }
        self.shared.change(&self.id, |record, now| {
            record.applied_generation = group.generation;
            let mut concerned = false;
            for container in record
                .containers
                .iter_mut()
                .chain(&mut record.init_containers)
                .filter(|container| concerns(&container.name))
            {
                concerned = true;
                let before = std::mem::take(&mut container.state);
                if !matches!(before, RunState::Waiting { .. }) {
                    container.previous = Some(before);
                    container.restart_count += 1;
                }
                container.attempt += 1;
                container.ready = false;
            }
            let all_run = record.containers.iter().all(|one| one.state.is_running());
            if !concerned && all_run {
                record.set_status(GroupStatus::Running, now);
            }
        });
    }

    fn finish(&self, outcome: &Outcome) {
        self.shared.change(&self.id, |record, now| {
            for container in &mut record.containers {
                container.ready = false;
            }
            match outcome {
                Outcome::Succeeded => record.set_status(GroupStatus::Succeeded, now),
                Outcome::Expired => {
                    let message = "The spot instance was released.";
                    record.note(true, "BidFailed", message, now);
                    record.set_status(GroupStatus::Expired, now);
                }
                Outcome::Failed { reason, message } => {
                    record.note(true, reason, message.clone(), now);
                    record.set_status(GroupStatus::Failed, now);
                }
            }
        });
    }
}

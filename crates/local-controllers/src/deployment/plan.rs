//! What a deployment does next, from its spec and its sets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use serde_json::Value;

use super::rollout::{Bounds, Resize, empty_old, new_set_size, roll, scale, surplus_history};
use super::sets::{self, REVISION, revision, size, split, sum};
use super::status::{self, Mark, View};
use crate::shared::objects::name;

/// What the decision looks at.
pub struct State<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its sets.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Whether pods of sets other than the given one still run; only asked for recreation.
    pub old_pods_run: &'a dyn Fn(Option<&ReplicaSet>) -> bool,
    /// Now.
    pub now: Timestamp,
}

/// One thing to do, in order.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Create this set.
    Create(Value),
    /// Give the set these annotations.
    Annotate(Arc<ReplicaSet>, BTreeMap<String, String>),
    /// Give the set this size.
    Resize(Resize),
    /// Delete the set.
    Delete(Arc<ReplicaSet>),
    /// Give the deployment this revision.
    SetRevision(String),
}

/// What to do.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The steps.
    pub actions: Vec<Action>,
    /// The status that follows.
    pub status: DeploymentStatus,
    /// When to look again though nothing changes.
    pub next_look: Option<Duration>,
}

/// Decides.
pub fn plan(state: State<'_>) -> Plan {
    let deployment = state.deployment;
    let bounds = Bounds::of(deployment);
    let all = state.sets.clone();
    let (new, old) = split(deployment, state.sets);
    let view = View {
        deployment,
        bounds,
        new: new.as_ref(),
        all: &all,
        now: state.now,
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Plan {
            actions: Vec::new(),
            status: status::sums(&view),
            next_look: None,
        };
    }
    let is_paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    let mut draft = Draft {
        actions: Vec::new(),
        marks: status::pause_mark(deployment).into_iter().collect(),
    };
    let is_resized = all.iter().any(|set| {
        size(set) > 0 && sets::sized_for(set).is_some_and(|replicas| replicas != bounds.replicas)
    });
    let follows_rollout = !is_paused && !is_resized;
    if follows_rollout {
        draft.roll_out(&state.old_pods_run, &view, &old);
    } else {
        draft.revise(&view, &old);
        draft.resize(scale(bounds, new.as_ref(), &old));
        if is_paused {
            draft.clean_up(deployment, &old);
        }
    }
    draft.finish(&view, follows_rollout)
}

struct Draft {
    actions: Vec<Action>,
    marks: Vec<Mark>,
}

impl Draft {
    fn roll_out(
        &mut self,
        old_pods_run: &dyn Fn(Option<&ReplicaSet>) -> bool,
        view: &View<'_>,
        old: &[Arc<ReplicaSet>],
    ) {
        if !view.bounds.is_rolling {
            let emptied = empty_old(old);
            if !emptied.is_empty() {
                self.revise(view, old);
                return self.resize(emptied);
            }
            if old_pods_run(view.new.map(AsRef::as_ref)) {
                return self.revise(view, old);
            }
        }
        let Some(new) = view.new else {
            return self.create(view, old);
        };
        self.revise(view, old);
        let steps = if view.bounds.is_rolling {
            roll(view.bounds, new, old)
        } else {
            vec![Resize {
                set: Arc::clone(new),
                to: view.bounds.replicas,
            }]
        };
        self.resize(steps);
        if status::is_complete(view.deployment, &status::sums(view)) {
            self.clean_up(view.deployment, old);
        }
    }

    fn create(&mut self, view: &View<'_>, old: &[Arc<ReplicaSet>]) {
        let replicas = new_set_size(view.bounds, 0, sum(old, size));
        let Some(set) = sets::new_set(view.deployment, replicas, view.bounds.surge, old) else {
            return;
        };
        let message = format!("Created new replica set {}", set["metadata"]["name"]);
        self.marks.push(Mark {
            status: "True",
            reason: "NewReplicaSetCreated",
            message,
        });
        let revision = set["metadata"]["annotations"][REVISION]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.actions.push(Action::Create(set));
        self.set_revision(view.deployment, revision);
    }

    /// Brings the new set's annotations and the deployment's revision up to date.
    fn revise(&mut self, view: &View<'_>, old: &[Arc<ReplicaSet>]) {
        let Some(new) = view.new else { return };
        let wanted = sets::wanted_annotations(view.deployment, Some(new), old);
        let revision = wanted
            .get(REVISION)
            .cloned()
            .unwrap_or_else(|| revision(new).to_string());
        if new.metadata.annotations.as_ref() != Some(&wanted) {
            self.actions.push(Action::Annotate(Arc::clone(new), wanted));
        }
        self.set_revision(view.deployment, revision);
        let status = view.deployment.status.clone().unwrap_or_default();
        if !status::has_progress(&status) {
            let message = format!("Found new replica set \"{}\"", name(&new.metadata));
            self.marks.push(Mark {
                status: "True",
                reason: "FoundNewReplicaSet",
                message,
            });
        }
    }

    fn set_revision(&mut self, deployment: &Deployment, revision: String) {
        let known = deployment
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(REVISION));
        if known != Some(&revision) {
            self.actions.push(Action::SetRevision(revision));
        }
    }

    fn resize(&mut self, steps: Vec<Resize>) {
        self.actions.extend(steps.into_iter().map(Action::Resize));
    }

    fn clean_up(&mut self, deployment: &Deployment, old: &[Arc<ReplicaSet>]) {
        self.actions.extend(
            surplus_history(deployment, old)
                .into_iter()
                .map(Action::Delete),
        );
    }

    fn finish(mut self, view: &View<'_>, follows_rollout: bool) -> Plan {
        let (replicas, surge) = (view.bounds.replicas, view.bounds.surge);
        self.actions.retain(|action| match action {
            Action::Resize(resize) => {
                resize.to != size(&resize.set) || is_behind(&resize.set, replicas, surge)
            }
            _ => true,
        });
        let mut status = if follows_rollout {
            status::rollout_status(view)
        } else {
            status::sums(view)
        };
        let has_deadline = view
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.progress_deadline_seconds)
            != Some(i32::MAX);
        for mark in self.marks.into_iter().filter(|_| has_deadline) {
            status::mark_progress(&mut status, mark, view.now);
        }
        let next_look = if follows_rollout {
            status::next_look(view.deployment, &status, view.now)
        } else {
            None
        };
        Plan {
            actions: self.actions,
            status,
            next_look,
        }
    }
}

/// Whether a set with pods does not carry what it was sized for.
fn is_behind(set: &ReplicaSet, replicas: i32, surge: i32) -> bool {
    sets::sized_for(set) != Some(replicas) || sets::sized_for_max(set) != Some(replicas + surge)
}

#[cfg(test)]
mod tests;

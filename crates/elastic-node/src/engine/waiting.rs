//! Who has to be looked at although there is no news: what waits for time to pass, what moves in the cloud, what the cloud
//! has not described yet, and groups without a pod. Thousands of pods that just run are in none of these sets, so a round
//! costs what changes and not what exists.
//!
//! The sets are not kept by every change for itself. Whatever may change a pod, its groups or its notes marks the UID as
//! stale, and the next question sorts stale UIDs in anew by the same conditions as a look at everything would.

use std::collections::HashSet;
use std::time::Duration;

use cloud_api::GroupStatus;
use tokio::time::Instant;

use super::State;
use super::state::GroupRecord;
use crate::plan::Memory;

/// A group that is not ready after this is no longer looked at in a hurry.
pub(super) const HURRY: Duration = Duration::from_secs(60);

/// UIDs by what they need.
#[derive(Default)]
pub(super) struct Waiting {
    stale: HashSet<String>,
    for_time: HashSet<String>,
    moving: HashSet<String>,
    undescribed: HashSet<String>,
    orphaned: HashSet<String>,
}

impl Waiting {
    /// Something about the UID may have changed.
    pub(super) fn mark(&mut self, uid: &str) {
        if !self.stale.contains(uid) {
            self.stale.insert(uid.to_owned());
        }
    }
}

/// How busy the cloud is with our groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Motion {
    pub(crate) groups: usize,
    pub(crate) starting: usize,
    pub(crate) stopping: Vec<String>,
}

/// Into which sets a UID belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    time: bool,
    motion: bool,
    description: bool,
    pod: bool,
}

impl State {
    /// Whatever the passing of time alone can change: what is being waited for, what goes, what has no counterpart.
    pub(crate) fn touch_waiting(&mut self) {
        self.sort_in();
        let waiting: Vec<String> = self.waiting.for_time.iter().cloned().collect();
        for uid in waiting {
            self.touch(&uid);
        }
    }

    pub(crate) fn motion(&mut self, at: Instant) -> Motion {
        self.sort_in();
        let mut motion = Motion {
            groups: self.groups.len(),
            ..Motion::default()
        };
        let moving = self.waiting.moving.iter();
        for (id, group) in moving.flat_map(|uid| self.groups_of(uid)) {
            if group.deleted_at.is_some() {
                motion.stopping.push(id.clone());
            } else if at.saturating_duration_since(group.known_since) < HURRY && is_starting(group)
            {
                motion.starting += 1;
            }
        }
        motion
    }

    /// Groups that run and that the cloud has not described since.
    pub(crate) fn undescribed(&mut self, most: usize) -> Vec<String> {
        self.sort_in();
        let groups = self.waiting.undescribed.iter();
        let groups = groups.flat_map(|uid| self.groups_of(uid));
        let wanted = groups.filter(|(_, group)| wants_description(group));
        wanted.take(most).map(|(id, _)| id.clone()).collect()
    }

    /// Pods whose group was accepted at least `late` ago and of which the cloud has said nothing since.
    pub(crate) fn unanswered(&mut self, late: Duration, at: Instant) -> Vec<String> {
        self.sort_in();
        let groups = self.waiting.for_time.iter();
        let groups = groups.flat_map(|uid| self.groups_of(uid));
        let waits = |group: &GroupRecord| {
            group.entry.is_none() && at.saturating_duration_since(group.known_since) >= late
        };
        let waiting = groups.filter(|(_, group)| waits(group));
        waiting.map(|(_, group)| group.uid.clone()).collect()
    }

    /// How many groups there are, and how many of them have no pod; none has before all pods are known.
    pub(crate) fn figures(&mut self) -> (usize, usize) {
        self.sort_in();
        let orphaned = self.waiting.orphaned.iter();
        let orphans = orphaned.flat_map(|uid| self.groups_of(uid)).count();
        let orphans = if self.all_pods_known() { orphans } else { 0 };
        (self.groups.len(), orphans)
    }

    fn sort_in(&mut self) {
        for uid in std::mem::take(&mut self.waiting.stale) {
            let needs = self.needs(&uid);
            let waiting = &mut self.waiting;
            put(&mut waiting.for_time, &uid, needs.time);
            put(&mut waiting.moving, &uid, needs.motion);
            put(&mut waiting.undescribed, &uid, needs.description);
            put(&mut waiting.orphaned, &uid, needs.pod);
        }
    }

    fn needs(&self, uid: &str) -> Needs {
        let pod = self.pods.get(uid);
        let memory = self.notes.get(uid).map(|notes| &notes.memory);
        let mut needs = Needs::default();
        let mut has_group = false;
        for (_, group) in self.groups_of(uid) {
            has_group = true;
            needs.time |= group.deleted_at.is_some() || group.entry.is_none();
            needs.motion |= group.deleted_at.is_some() || is_starting(group);
            needs.description |= pod.is_some() && wants_description(group);
        }
        let Some(record) = pod else {
            needs.pod = has_group;
            needs.time = has_group;
            return needs;
        };
        // A pod that has ended and whose group is gone only waits for its deletion, which is news.
        let waits_for_group = !has_group && !record.ended();
        let remembered = memory.is_some_and(waits) && (has_group || !record.ended());
        needs.time |= record.deleting() || waits_for_group || remembered;
        needs
    }
}

fn put(set: &mut HashSet<String>, uid: &str, belongs: bool) {
    if !belongs {
        set.remove(uid);
        if set.is_empty() {
            // A burst leaves no large table behind.
            set.shrink_to_fit();
        }
    } else if !set.contains(uid) {
        set.insert(uid.to_owned());
    }
}

fn waits(memory: &Memory) -> bool {
    memory.retry_at.is_some() || memory.absent_since.is_some() || memory.status_due
}

fn is_starting(group: &GroupRecord) -> bool {
    group
        .entry
        .as_ref()
        .is_none_or(|entry| !entry.status.is_final() && !entry.ready)
}

fn wants_description(group: &GroupRecord) -> bool {
    let entry = group.entry.as_ref();
    !group.facts.described
        && group.deleted_at.is_none()
        && entry.is_some_and(|entry| entry.status == GroupStatus::Running)
}

#[cfg(test)]
mod tests;

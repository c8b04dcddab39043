//! What to do about each pod and each container group: `plan(pods, groups, policy, now) -> actions`.
//!
//! Pods and groups meet by the pod's UID, so a pod made anew under the same name never inherits a group. The cloud's list
//! is the truth about what costs money: a group without a living pod is deleted, a pod whose group is gone is reported.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A pod bound to one of our nodes, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its UID.
    pub uid: String,
    /// Deletion has been asked for.
    pub deleting: bool,
    /// Its phase is Succeeded or Failed.
    pub ended: bool,
    /// The group that is written on it.
    pub instance: Option<String>,
    /// Its containers name other images than its group runs.
    pub images_changed: bool,
    /// The service account tokens in its group's files are about to end.
    pub tokens_due: bool,
}

/// A container group of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Its id.
    pub id: String,
    /// The pod it was made for.
    pub uid: String,
    /// It is being deleted already.
    pub terminating: bool,
    /// It has ended by itself and costs nothing any more.
    pub ended: bool,
    /// When it was first seen here or its creation was accepted.
    pub known_since: Instant,
}

/// What this process remembers about a pod; lost at a restart, which costs a repetition at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// An action on it is under way.
    pub busy: bool,
    /// The last action on it failed (or is being waited for); no other before this moment.
    pub retry_at: Option<Instant>,
    /// It can never be created as it is written.
    pub refused: bool,
    /// Its group has been accepted by the cloud at this moment.
    pub accepted_at: Option<Instant>,
    /// Since when the group is absent from what the cloud answers; the moment the first such question was asked.
    pub absent_since: Option<Instant>,
    /// A status differs from what the pod shows.
    pub status_due: bool,
}

/// Moments the decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Now.
    pub at: Instant,
    /// When the last complete list of groups was begun; `None` before the first.
    pub listed: Option<Instant>,
    /// Whether the complete list of pods is known.
    pub pods_known: bool,
}

/// Waiting times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Absence of a group that makes its pod lost.
    pub lost_after: Duration,
    /// Age of a group without a pod that makes it an orphan.
    pub orphan_after: Duration,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the cloud for a group.
    Create {
        /// The pod.
        uid: String,
    },
    /// Delete a group.
    Delete {
        /// The pod it was made for.
        uid: String,
        /// The group.
        id: String,
    },
    /// Bring the pod's images into its group.
    UpdateImages {
        /// The pod.
        uid: String,
        /// The group.
        id: String,
    },
    /// Bring new service account tokens into the pod's group.
    RenewTokens {
        /// The pod.
        uid: String,
        /// The group.
        id: String,
    },
    /// Write the pod's status.
    WriteStatus {
        /// The pod.
        uid: String,
    },
    /// The group is gone for good: take the pod out of the API.
    Finish {
        /// The pod.
        uid: String,
    },
    /// The pod lives but its group is gone: report it failed.
    Lost {
        /// The pod.
        uid: String,
    },
}

/// What to do about all pods and groups.
pub fn plan(
    pods: &BTreeMap<String, PodView>,
    groups: &[GroupView],
    memories: &BTreeMap<String, Memory>,
    policy: Policy,
    now: Now,
) -> Vec<Action> {
    let mut by_uid: BTreeMap<&str, Vec<&GroupView>> = BTreeMap::new();
    for group in groups {
        by_uid.entry(&group.uid).or_default().push(group);
    }
    let unknown = Memory::default();
    let mut actions = Vec::new();
    for (uid, pod) in pods {
        let groups = by_uid.remove(uid.as_str()).unwrap_or_default();
        actions.extend(decide(
            Some(pod),
            &groups,
            memories.get(uid).unwrap_or(&unknown),
            policy,
            now,
        ));
    }
    for (uid, groups) in by_uid {
        actions.extend(decide(
            None,
            &groups,
            memories.get(uid).unwrap_or(&unknown),
            policy,
            now,
        ));
    }
    actions
}

/// What to do about one UID.
pub fn decide(
    pod: Option<&PodView>,
    groups: &[&GroupView],
    memory: &Memory,
    policy: Policy,
    now: Now,
) -> Vec<Action> {
    if memory.busy || memory.retry_at.is_some_and(|at| at > now.at) {
        return Vec::new();
    }
    let Some(pod) = pod else {
        return orphans(groups, policy, now);
    };
    let kept = kept(pod, groups);
    let delete = |group: &&GroupView| Action::Delete {
        uid: pod.uid.clone(),
        id: group.id.clone(),
    };
    // One pod never needs two groups; which one stays does not depend on the order of the list.
    let surplus = groups
        .iter()
        .filter(|group| Some(group.id.as_str()) != kept.map(|kept| kept.id.as_str()));
    let mut actions: Vec<Action> = surplus
        .filter(|group| !group.terminating)
        .map(delete)
        .collect();
    let uid = pod.uid.clone();
    actions.extend(match (pod.deleting, kept) {
        (true, Some(group)) if !group.terminating => Some(Action::Delete {
            uid,
            id: group.id.clone(),
        }),
        (true, Some(_)) => None,
        (true, None) => may_finish(pod, memory, now).then_some(Action::Finish { uid }),
        (false, Some(group)) => with_group(pod, group, memory),
        (false, None) => without_group(pod, memory, policy, now),
    });
    actions
}

/// What a living pod's group needs.
fn with_group(pod: &PodView, group: &GroupView, memory: &Memory) -> Option<Action> {
    let (uid, id) = (pod.uid.clone(), group.id.clone());
    if pod.ended {
        // Sidecars may go on when the pod has ended, and a creation that was given up may have had effect after all.
        let costs = !group.terminating && !group.ended;
        return costs.then_some(Action::Delete { uid, id });
    }
    if pod.images_changed && !group.terminating && !group.ended {
        return Some(Action::UpdateImages { uid, id });
    }
    if memory.status_due {
        return Some(Action::WriteStatus { uid });
    }
    // Last, because it can wait: a fifth of the tokens' life is left.
    let renew = pod.tokens_due && !group.terminating && !group.ended;
    renew.then_some(Action::RenewTokens { uid, id })
}

/// The group that is the pod's: the one written on it, else the oldest known.
fn kept<'g>(pod: &PodView, groups: &[&'g GroupView]) -> Option<&'g GroupView> {
    let written = groups
        .iter()
        .find(|group| pod.instance.as_ref() == Some(&group.id));
    written
        .or_else(|| {
            groups
                .iter()
                .min_by_key(|group| (group.known_since, &group.id))
        })
        .copied()
}

fn orphans(groups: &[&GroupView], policy: Policy, now: Now) -> Vec<Action> {
    let old_enough = |group: &&&GroupView| {
        now.at.saturating_duration_since(group.known_since) >= policy.orphan_after
    };
    let orphans = groups
        .iter()
        .filter(|group| !group.terminating)
        .filter(|_| now.pods_known)
        .filter(old_enough);
    orphans
        .map(|group| Action::Delete {
            uid: group.uid.clone(),
            id: group.id.clone(),
        })
        .collect()
}

/// A pod may go when no group can be left: none was ever accepted, or an answer to a later question does not show it.
fn may_finish(pod: &PodView, memory: &Memory, now: Now) -> bool {
    match memory.accepted_at {
        Some(accepted) => [now.listed, memory.absent_since]
            .into_iter()
            .flatten()
            .any(|asked| asked > accepted),
        None => now.listed.is_some() || (pod.instance.is_none() && memory.refused),
    }
}

fn without_group(pod: &PodView, memory: &Memory, policy: Policy, now: Now) -> Option<Action> {
    if pod.ended {
        return None;
    }
    let uid = pod.uid.clone();
    // After a restart the lists must be known first, else a group could be asked for that exists already. The client
    // token would make that harmless, but costs a call.
    let listed = now.listed?;
    let had_group = pod.instance.is_some() || memory.accepted_at.is_some();
    if had_group {
        let newer = memory.accepted_at.is_none_or(|accepted| listed > accepted);
        let absent = memory
            .absent_since
            // One list that lags is no proof, however long ago it was: a later one must not show the group either.
            .is_some_and(|since| listed.saturating_duration_since(since) >= policy.lost_after);
        return (newer && absent).then_some(Action::Lost { uid });
    }
    (!memory.refused).then_some(Action::Create { uid })
}

#[cfg(test)]
mod tests;

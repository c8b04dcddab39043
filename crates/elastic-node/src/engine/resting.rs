//! Packs what has come to rest: a pod that nothing happened to for some rounds, with all that is known of its groups.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use cloud_api::model::status::GroupStatusEntry;
use k8s_openapi::api::core::v1::Pod;

use super::kept::{Kept, PackedOf, Packer};
use super::{Shared, State};

/// Rounds without news after which a pod is packed.
pub(super) const REST_ROUNDS: u32 = 8;
/// Most pods packed in one round, so that a round is short.
const PODS_PER_ROUND: usize = 250;
/// Everything is moved together when this part of all pods has been packed since the last time, and fewer than this part
/// of them is open.
const SCATTERED_PART: usize = 8;
/// So few are never worth it.
const SCATTERED_LEAST: usize = 64;

type Annotations = std::collections::BTreeMap<String, String>;

/// The open forms of what is known of one pod.
struct Resting {
    uid: String,
    pod: Option<Arc<Pod>>,
    groups: Vec<RestingGroup>,
}

struct RestingGroup {
    id: String,
    entry: Option<Arc<GroupStatusEntry>>,
    facts: Option<Arc<Annotations>>,
}

/// Their packed forms.
struct Settled {
    uid: String,
    pod: Option<PackedOf<Pod>>,
    groups: Vec<SettledGroup>,
}

struct SettledGroup {
    id: String,
    entry: Option<PackedOf<GroupStatusEntry>>,
    facts: Option<PackedOf<Annotations>>,
}

/// One round. The work is done outside the lock; what changes meanwhile stays open.
pub(super) fn pack_resting(shared: &Shared, packer: &mut Packer) {
    let resting = shared.state().resting_pods();
    if resting.is_empty() {
        shared.state().move_together_when_worth_it();
        return;
    }
    let resting = resting.into_iter();
    let settled: Vec<Settled> = resting.map(|one| pack(packer, one)).collect();
    packer.rest();
    let mut state = shared.state();
    for one in settled {
        state.put_settled(one);
    }
}

#[cfg(test)]
impl State {
    /// A whole round at once.
    pub(super) fn pack_round(&mut self, packer: &mut Packer) {
        for one in self.resting_pods() {
            self.put_settled(pack(packer, one));
        }
    }
}

fn pack(packer: &mut Packer, resting: Resting) -> Settled {
    let kinship = resting.pod.as_deref().map_or(0, kinship);
    let pod = resting.pod.and_then(|pod| packer.pack(kinship ^ 1, &pod));
    let groups = resting.groups.into_iter().map(|group| SettledGroup {
        id: group.id,
        entry: group
            .entry
            .and_then(|entry| packer.pack(kinship ^ 2, &entry)),
        facts: group
            .facts
            .and_then(|facts| packer.pack(kinship ^ 3, &facts)),
    });
    Settled {
        uid: resting.uid,
        pod,
        groups: groups.collect(),
    }
}

/// Pods of one owner are alike; without an owner those of one namespace are the best guess.
fn kinship(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    let owners = pod.metadata.owner_references.as_ref();
    match owners.and_then(|owners| owners.first()) {
        Some(owner) => owner.uid.hash(&mut hasher),
        None => pod.metadata.namespace.hash(&mut hasher),
    }
    hasher.finish() & !3
}

impl State {
    /// Something about the pod or its groups changed.
    pub(super) fn opened(&mut self, uid: &str) {
        let round = self.round;
        if self.notes(uid).opened.replace(round).is_none() {
            self.open.push_back(uid.to_owned());
        }
    }

    /// Begins a round: pods that nothing happened to for a while.
    fn resting_pods(&mut self) -> Vec<Resting> {
        self.round = self.round.wrapping_add(1);
        let mut found = Vec::new();
        for _ in 0..self.open.len() {
            if found.len() >= PODS_PER_ROUND {
                break;
            }
            let Some(uid) = self.open.pop_front() else {
                break;
            };
            let Some(notes) = self.notes.get_mut(&uid) else {
                continue;
            };
            let age = notes.opened.map(|since| self.round.wrapping_sub(since));
            if notes.memory.busy || age.is_some_and(|age| age < REST_ROUNDS) {
                self.open.push_back(uid);
                continue;
            }
            notes.opened = None;
            found.push(self.resting(uid));
        }
        found
    }

    fn resting(&self, uid: String) -> Resting {
        let groups = self.groups_of(&uid).map(|(id, group)| {
            let entry = group.entry.as_ref();
            RestingGroup {
                id: id.clone(),
                entry: entry.and_then(|entry| entry.kept.opened().cloned()),
                facts: group.facts.annotations.opened().cloned(),
            }
        });
        let groups = groups.collect();
        let record = self.pods.get(&uid);
        Resting {
            pod: record.and_then(|record| record.kept.opened().cloned()),
            groups,
            uid,
        }
    }

    /// When a round finds nothing to pack.
    pub(super) fn move_together_when_worth_it(&mut self) {
        let part = self.pods.len() / SCATTERED_PART;
        if self.scattered >= part.max(SCATTERED_LEAST) && self.open.len() <= part {
            self.move_together();
        }
    }

    fn put_settled(&mut self, settled: Settled) {
        self.scattered += 1;
        let record = self.pods.get_mut(&settled.uid);
        replace(record.map(|record| &mut record.kept), settled.pod);
        for settled in settled.groups {
            let Some(group) = self.groups.get_mut(&settled.id) else {
                continue;
            };
            let entry = group.entry.as_mut();
            replace(entry.map(|entry| &mut entry.kept), settled.entry);
            replace(Some(&mut group.facts.annotations), settled.facts);
        }
    }
}

fn replace<T>(kept: Option<&mut Kept<T>>, packed: Option<PackedOf<T>>) {
    if let (Some(kept), Some(packed)) = (kept, packed) {
        kept.replace(packed);
    }
}

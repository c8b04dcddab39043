//! What is known about pods and groups, and how news changes it. No IO.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::facts;
use super::kept::{Kept, fingerprint};
use super::waiting::Waiting;
use cloud_api::GroupStatus;
use cloud_api::model::describe::ContainerGroup;
use cloud_api::model::status::GroupStatusEntry;
use elastic_core::eci_profile::Effect;
use elastic_core::names::{INSTANCE_ID, tags};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::config::TokenPolicy;
use crate::plan::{Action, GroupView, Memory, Now, PodView, Policy, decide};
use crate::status;
use crate::tokens;
use crate::zones::Resting;

/// A deletion the cloud accepted is asked for again when the group still runs after this.
const DELETE_AGAIN: Duration = Duration::from_secs(60);
/// A pod bound to one of our nodes.
#[derive(Clone)]
pub(crate) struct PodRecord {
    pub(super) kept: Kept<Pod>,
    view: PodView,
    version: Option<u64>,
    /// When the service account tokens in its group's files are to be renewed.
    renew_tokens_at: Option<Timestamp>,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) node: usize,
}

impl PodRecord {
    fn new(pod: Pod, node: usize, tokens: &TokenPolicy) -> Self {
        Self {
            renew_tokens_at: tokens::renew_at(&pod, tokens),
            view: pod_view(&pod),
            version: version(&pod),
            namespace: pod.namespace().unwrap_or_default().into(),
            name: pod.name_any().into(),
            kept: Kept::new(pod),
            node,
        }
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.kept.get()
    }

    pub(super) fn deleting(&self) -> bool {
        self.view.deleting
    }

    pub(super) fn ended(&self) -> bool {
        self.view.ended
    }
}

/// A group's status as the cloud told it last.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) status: GroupStatus,
    pub(crate) ready: bool,
    /// Differs when anything differs.
    pub(crate) mark: u64,
    pub(super) kept: Kept<GroupStatusEntry>,
}

impl Entry {
    fn new(entry: GroupStatusEntry) -> Self {
        let mark = fingerprint(&entry);
        Self::marked(entry, mark)
    }

    fn marked(entry: GroupStatusEntry, mark: u64) -> Self {
        Self {
            status: entry.status.clone(),
            ready: status::is_ready(&entry),
            mark,
            kept: Kept::new(entry),
        }
    }

    pub(crate) fn get(&self) -> Arc<GroupStatusEntry> {
        self.kept.get()
    }
}

/// A container group of this cluster.
#[derive(Clone, Debug)]
pub(crate) struct GroupRecord {
    pub(crate) uid: String,
    pub(crate) known_since: Instant,
    pub(crate) deleted_at: Option<Instant>,
    pub(crate) entry: Option<Entry>,
    pub(crate) facts: GroupFacts,
}

/// What is known about a group besides its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupFacts {
    /// What is written on the pod about it.
    pub(crate) annotations: Kept<BTreeMap<String, String>>,
    /// Namespace and name of the pod it was made for.
    pub(crate) owner: Option<(String, String)>,
    /// The cloud has described it since it runs.
    pub(crate) described: bool,
}

/// What this process remembers about one pod beyond what `plan` needs.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    pub(crate) memory: Memory,
    pub(crate) moments: PodMoments,
    pub(crate) failures: u32,
    pub(crate) last_problem: String,
    /// What rules of the profile add to the pod; worked out when its group is asked for.
    pub(crate) effect: Option<Effect>,
    /// The round in which something about the pod or its groups changed last; `None` when all of it is packed.
    pub(super) opened: Option<u32>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: BTreeMap<String, PodRecord>,
    pub(crate) groups: BTreeMap<String, GroupRecord>,
    /// Ids of a pod's groups; there is rarely more than one.
    by_uid: BTreeMap<String, Vec<String>>,
    pub(crate) notes: BTreeMap<String, Notes>,
    pub(crate) resting: Resting,
    pub(crate) listed: Option<Instant>,
    /// Every node that may hold pods of ours is being watched.
    pub(crate) nodes_known: bool,
    /// Of each node that is watched, whether its pods are known.
    pods_known: HashMap<usize, bool>,
    dirty: HashSet<String>,
    pub(super) waiting: Waiting,
    /// Pods of which something is not packed, once each, the longest open first.
    pub(super) open: VecDeque<String>,
    /// Rounds of packing so far.
    pub(super) round: u32,
    /// Pods that were packed since everything was moved together.
    pub(super) scattered: usize,
    /// Decided, waiting for a place under the bounds.
    pub(crate) for_cloud: VecDeque<Action>,
    pub(crate) for_api: VecDeque<Action>,
    pub(crate) cloud_calls: usize,
    pub(crate) api_writes: usize,
    tokens: TokenPolicy,
    /// No pod's tokens are to be renewed before, except those that are due already.
    next_renewal: Option<Timestamp>,
}

impl State {
    pub(crate) fn new(tokens: TokenPolicy) -> Self {
        Self {
            tokens,
            ..Self::default()
        }
    }

    /// A node that is watched from now on.
    pub(crate) fn add_node(&mut self, node: usize) {
        self.pods_known.insert(node, false);
    }

    /// A node that is watched no longer.
    pub(crate) fn drop_node(&mut self, node: usize) {
        self.pods_known.remove(&node);
    }

    /// Whether the node's pods are known and there is none.
    pub(crate) fn is_empty_node(&self, node: usize) -> bool {
        self.pods_known.get(&node) == Some(&true)
            && !self.pods.values().any(|record| record.node == node)
    }

    pub(crate) fn now(&self, at: Instant) -> Now {
        Now {
            at,
            listed: self.listed,
            pods_known: self.all_pods_known(),
        }
    }

    pub(super) fn all_pods_known(&self) -> bool {
        self.nodes_known && self.pods_known.values().all(|known| *known)
    }

    pub(crate) fn touch(&mut self, uid: &str) {
        self.waiting.mark(uid);
        if !self.dirty.contains(uid) {
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Pods whose tokens are to be renewed by now. All pods are looked at only when one of them may be due.
    pub(crate) fn touch_ending_tokens(&mut self, now: Timestamp) {
        if self.next_renewal.is_none_or(|at| at > now) {
            return;
        }
        self.next_renewal = None;
        for (uid, record) in &mut self.pods {
            let Some(at) = record.renew_tokens_at.filter(|_| !record.view.tokens_due) else {
                continue;
            };
            if at <= now {
                record.view.tokens_due = true;
                self.dirty.insert(uid.clone());
            } else {
                self.next_renewal = sooner(self.next_renewal, Some(at));
            }
        }
    }

    /// The tokens of a pod are to be renewed (again) at this moment, or never.
    pub(crate) fn put_off_tokens(&mut self, uid: &str, until: Option<Timestamp>) {
        if let Some(record) = self.pods.get_mut(uid) {
            record.renew_tokens_at = until;
            record.view.tokens_due = false;
            self.next_renewal = sooner(self.next_renewal, until);
        }
    }

    pub(crate) fn touch_all(&mut self) {
        self.dirty.extend(self.pods.keys().cloned());
        self.dirty.extend(self.by_uid.keys().cloned());
    }

    pub(crate) fn take_dirty(&mut self) -> HashSet<String> {
        std::mem::take(&mut self.dirty)
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// To be changed by the caller.
    pub(crate) fn notes(&mut self, uid: &str) -> &mut Notes {
        self.waiting.mark(uid);
        self.notes.entry(uid.to_owned()).or_default()
    }

    /// The decision for one UID as things stand.
    pub(crate) fn decide(&self, uid: &str, policy: Policy, at: Instant) -> Vec<Action> {
        let unknown = Memory::default();
        let memory = self.notes.get(uid).map_or(&unknown, |notes| &notes.memory);
        let groups: Vec<GroupView> = self
            .groups_of(uid)
            .map(|(id, group)| view(id, group, at))
            .collect();
        let groups: Vec<&GroupView> = groups.iter().collect();
        let pod = self.pods.get(uid).map(|record| &record.view);
        decide(pod, &groups, memory, policy, self.now(at))
    }

    pub(crate) fn groups_of(&self, uid: &str) -> impl Iterator<Item = (&String, &GroupRecord)> {
        let ids = self.by_uid.get(uid).into_iter().flatten();
        ids.filter_map(|id| self.groups.get_key_value(id))
    }

    /// The group whose status the pod shows.
    pub(crate) fn shown_group(&self, uid: &str) -> Option<(&String, &GroupRecord)> {
        let record = self.pods.get(uid);
        let written = record.and_then(|record| record.view.instance.as_ref());
        let mut groups: Vec<_> = self.groups_of(uid).collect();
        groups.sort_by_key(|(id, group)| (Some(*id) != written, group.known_since));
        groups.into_iter().next()
    }

    /// A pod as the API shows it now; news older than what is known is ignored.
    pub(crate) fn put_pod(&mut self, pod: Pod, node: usize) {
        let Some(uid) = pod.uid() else { return };
        let before = self.pods.get(&uid);
        if before.is_some_and(|known| is_old_news(version(&pod), known.version)) {
            return;
        }
        let is_new = before.is_none();
        let was_deleting = before.is_some_and(|known| known.view.deleting);
        let record = PodRecord::new(pod, node, &self.tokens);
        let deleting = record.view.deleting;
        self.next_renewal = sooner(self.next_renewal, record.renew_tokens_at);
        self.pods.insert(uid.clone(), record);
        let notes = self.notes(&uid);
        if is_new {
            notes.moments.bound = Some(Timestamp::now());
        }
        if deleting && !was_deleting {
            // Whatever was being waited for does not matter any more.
            notes.memory.retry_at = None;
        }
        self.opened(&uid);
        self.refresh_status(&uid);
        self.touch(&uid);
    }

    /// A pod as the answer to an own write shows it. The watch may have told of its deletion before the answer was read:
    /// then the answer is old news, and taking the pod up again would keep its group alive for ever.
    pub(crate) fn put_answer(&mut self, pod: Pod, node: usize) {
        let known = pod.metadata.uid.as_ref();
        if known.is_some_and(|uid| self.pods.contains_key(uid)) {
            self.put_pod(pod, node);
        }
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.touch(uid);
        self.forget_if_gone(uid);
    }

    /// After a complete list of a node's pods.
    pub(crate) fn keep_pods(&mut self, node: usize, present: &HashSet<String>) {
        let gone = |(uid, record): (&String, &PodRecord)| {
            (record.node == node && !present.contains(uid)).then(|| uid.clone())
        };
        let gone: Vec<String> = self.pods.iter().filter_map(gone).collect();
        for uid in gone {
            self.remove_pod(&uid);
        }
        if let Some(known) = self.pods_known.get_mut(&node) {
            *known = true;
        }
        self.touch_all();
    }

    pub(crate) fn put_group(&mut self, id: &str, group: GroupRecord) {
        self.touch(&group.uid);
        let ids = self.by_uid.entry(group.uid.clone()).or_default();
        if !ids.iter().any(|known| known == id) {
            ids.reserve_exact(1);
            ids.push(id.to_owned());
        }
        self.notes(&group.uid.clone()).memory.absent_since = None;
        self.groups.insert(id.to_owned(), group);
    }

    /// The cloud accepted the creation of a group for `uid`.
    pub(crate) fn group_accepted(&mut self, uid: &str, id: &str, facts: GroupFacts, at: Instant) {
        let notes = self.notes(uid);
        notes.memory.accepted_at = Some(at);
        notes.memory.absent_since = None;
        notes.memory.retry_at = None;
        notes.moments.accepted = Some(Timestamp::now());
        notes.failures = 0;
        // A list may have shown it before the answer came.
        let known = self.groups.get(id);
        let record = GroupRecord {
            uid: uid.to_owned(),
            known_since: known.map_or(at, |known| known.known_since),
            deleted_at: None,
            entry: known.and_then(|known| known.entry.clone()),
            facts,
        };
        self.put_group(id, record);
        self.opened(uid);
        self.refresh_status(uid);
    }

    /// The cloud accepted a group's deletion.
    pub(crate) fn deletion_accepted(&mut self, id: &str, at: Instant) {
        if let Some(group) = self.groups.get_mut(id) {
            group.deleted_at = Some(at);
            self.waiting.mark(&group.uid);
        }
    }

    /// A group that the cloud lists and this process did not make.
    pub(crate) fn adopt_group(
        &mut self,
        group: &ContainerGroup,
        entry: Option<GroupStatusEntry>,
        at: Instant,
    ) {
        let Some(tag) = group.tags.iter().find(|tag| tag.key == tags::UID) else {
            tracing::warn!(
                group = group.container_group_id,
                "container group of this cluster carries no pod uid, left alone"
            );
            return;
        };
        let uid = tag.value.clone();
        let tag_value = |key: &str| {
            let tag = group.tags.iter().find(|tag| tag.key == key);
            tag.map(|tag| tag.value.clone())
        };
        let facts = GroupFacts {
            annotations: Kept::new(facts::described(group)),
            owner: tag_value(tags::NAMESPACE).zip(tag_value(tags::POD)),
            described: entry.as_ref().is_some_and(status::is_ready),
        };
        let record = GroupRecord {
            uid: uid.clone(),
            known_since: at,
            deleted_at: None,
            entry: entry.map(Entry::new),
            facts,
        };
        self.put_group(&group.container_group_id, record);
        self.opened(&uid);
        self.refresh_status(&uid);
    }

    /// What the cloud says about a group that runs.
    pub(crate) fn describe_group(&mut self, group: &ContainerGroup) {
        let Some(known) = self.groups.get_mut(&group.container_group_id) else {
            return;
        };
        known.facts.described = true;
        let mut annotations = known.facts.annotations.get().as_ref().clone();
        annotations.extend(facts::described(group));
        known.facts.annotations = Kept::new(annotations);
        let uid = known.uid.clone();
        let moments = &mut self.notes(&uid).moments;
        moments.pulled = moments.pulled.or(facts::pulled(group, moments));
        self.opened(&uid);
        self.refresh_status(&uid);
        self.touch(&uid);
    }

    /// A status of a known group. Returns false when the group is not known.
    pub(crate) fn put_entry(&mut self, entry: GroupStatusEntry) -> bool {
        let Some(group) = self.groups.get_mut(&entry.container_group_id) else {
            return false;
        };
        let mark = fingerprint(&entry);
        let known = group.entry.as_ref();
        if known.is_some_and(|known| known.mark == mark) {
            return true;
        }
        let entry = Entry::marked(entry, mark);
        let uid = group.uid.clone();
        let ready = entry.ready;
        let running = entry.status == GroupStatus::Running;
        group.entry = Some(entry);
        let moments = &mut self.notes(&uid).moments;
        if running && moments.running.is_none() {
            moments.running = Some(Timestamp::now());
        }
        if ready && moments.ready.is_none() {
            moments.ready = Some(Timestamp::now());
        }
        self.opened(&uid);
        self.refresh_status(&uid);
        self.touch(&uid);
        true
    }

    /// The cloud was asked at `asked` and did not show the group.
    pub(crate) fn remove_group(&mut self, id: &str, asked: Instant) {
        let Some(group) = self.groups.remove(id) else {
            return;
        };
        let uid = group.uid;
        if let Some(ids) = self.by_uid.get_mut(&uid) {
            ids.retain(|known| known != id);
            if ids.is_empty() {
                self.by_uid.remove(&uid);
                self.notes(&uid).memory.absent_since.get_or_insert(asked);
            }
        }
        self.touch(&uid);
        self.forget_if_gone(&uid);
    }

    /// After a complete list that was begun at `asked`.
    pub(crate) fn keep_groups(&mut self, present: &HashSet<String>, asked: Instant) {
        let gone = |(id, group): (&String, &GroupRecord)| {
            (group.known_since < asked && !present.contains(id)).then(|| id.clone())
        };
        let gone: Vec<String> = self.groups.iter().filter_map(gone).collect();
        for id in gone {
            self.remove_group(&id, asked);
        }
        let without: Vec<String> = self
            .pods
            .keys()
            .filter(|uid| !self.by_uid.contains_key(*uid))
            .cloned()
            .collect();
        for uid in without {
            self.notes(&uid).memory.absent_since.get_or_insert(asked);
        }
        self.listed = Some(asked);
        self.touch_all();
    }

    /// Works out whether the pod shows what its group is; cheap when nothing is known yet.
    pub(crate) fn refresh_status(&mut self, uid: &str) {
        let due = self.pods.get(uid).is_some_and(|record| {
            let shown = self
                .shown_group(uid)
                .and_then(|(id, group)| Some((id, group, group.entry.as_ref()?)));
            shown.is_some_and(|(id, group, entry)| {
                let pod = record.pod();
                super::write::differs(&pod, id, &entry.get())
                    || facts::unwritten(&pod, &group.facts.annotations.get())
            })
        });
        if due || self.notes.contains_key(uid) {
            self.notes(uid).memory.status_due = due;
        }
    }

    /// The API took a status made from `written`. However it shows the pod now: writing the same again would not change
    /// it, and what never ends is a loop. News of the group or of the pod makes a status due again.
    pub(crate) fn status_written(&mut self, uid: &str, written: u64) {
        let shown = self
            .shown_group(uid)
            .and_then(|(_, group)| group.entry.as_ref());
        let as_shown = shown.is_some_and(|entry| entry.mark == written);
        let memory = &mut self.notes(uid).memory;
        memory.retry_at = None;
        memory.status_due &= !as_shown;
    }

    /// Copies what is known into fresh memory. What comes to rest was taken up in the midst of a burst's short-lived
    /// objects, and lying scattered among them it keeps their memory from being given back.
    pub(super) fn move_together(&mut self) {
        self.pods = copied(&self.pods);
        self.groups = copied(&self.groups);
        self.by_uid = copied(&self.by_uid);
        self.notes = copied(&self.notes);
        self.dirty.shrink_to_fit();
        self.open.shrink_to_fit();
        self.for_cloud.shrink_to_fit();
        self.for_api.shrink_to_fit();
        self.scattered = 0;
    }

    fn forget_if_gone(&mut self, uid: &str) {
        if !self.pods.contains_key(uid) && !self.by_uid.contains_key(uid) {
            let busy = self.notes.get(uid).is_some_and(|notes| notes.memory.busy);
            if !busy {
                self.notes.remove(uid);
            }
        }
    }

    /// An action on `uid` ended.
    pub(crate) fn settle(&mut self, uid: &str) {
        if let Some(notes) = self.notes.get_mut(uid) {
            notes.memory.busy = false;
        }
        self.touch(uid);
        self.forget_if_gone(uid);
    }
}

/// A map that is built in order has full nodes, unlike a clone of one that grew.
fn copied<V: Clone>(map: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let pairs = map.iter().map(|(key, value)| (key.clone(), value.clone()));
    pairs.collect()
}

fn view(id: &str, group: &GroupRecord, at: Instant) -> GroupView {
    let listed = group
        .entry
        .as_ref()
        .is_some_and(|entry| entry.status == GroupStatus::Terminating);
    let asked = group
        .deleted_at
        .is_some_and(|asked| at.saturating_duration_since(asked) < DELETE_AGAIN);
    GroupView {
        id: id.to_owned(),
        uid: group.uid.clone(),
        terminating: listed || asked,
        ended: group
            .entry
            .as_ref()
            .is_none_or(|entry| entry.status.is_final()),
        known_since: group.known_since,
    }
}

fn pod_view(pod: &Pod) -> PodView {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    PodView {
        uid: pod.uid().unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
        instance: pod.annotations().get(INSTANCE_ID).cloned(),
        images_changed: facts::images_changed(pod),
        tokens_due: false,
    }
}

fn sooner(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn version(pod: &Pod) -> Option<u64> {
    pod.resource_version()?.parse().ok()
}

/// Versions of one object are increasing numbers on every API server there is; where they are not, the newest wins.
/// The same version again is the echo of our own write, which is known already.
fn is_old_news(new: Option<u64>, known: Option<u64>) -> bool {
    new.zip(known).is_some_and(|(new, known)| new <= known)
}

#[cfg(test)]
mod tests;

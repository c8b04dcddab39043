//! What is known about pods and groups, and how news changes it. No IO.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts;
use cloud_api::GroupStatus;
use cloud_api::model::describe::ContainerGroup;
use cloud_api::model::status::GroupStatusEntry;
use elastic_core::eci_profile::Effect;
use elastic_core::names::{INSTANCE_ID, tags};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::plan::{Action, GroupView, Memory, Now, PodView, Policy, decide};
use crate::status;
use crate::zones::Resting;

/// A deletion the cloud accepted is asked for again when the group still runs after this.
const DELETE_AGAIN: Duration = Duration::from_secs(60);
/// A group that is not ready after this is no longer looked at in a hurry.
const HURRY: Duration = Duration::from_secs(60);

/// A pod bound to one of our nodes.
pub(crate) struct PodRecord {
    pub(crate) pod: Arc<Pod>,
    pub(crate) node: usize,
}

/// A container group of this cluster.
#[derive(Clone, Debug)]
pub(crate) struct GroupRecord {
    pub(crate) uid: String,
    pub(crate) known_since: Instant,
    pub(crate) deleted_at: Option<Instant>,
    pub(crate) entry: Option<Arc<GroupStatusEntry>>,
    pub(crate) facts: GroupFacts,
}

/// What is known about a group besides its status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GroupFacts {
    /// What is written on the pod about it.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Namespace and name of the pod it was made for.
    pub(crate) owner: Option<(String, String)>,
    /// The cloud has described it since it runs.
    pub(crate) described: bool,
}

/// What this process remembers about one pod beyond what `plan` needs.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) memory: Memory,
    pub(crate) moments: PodMoments,
    pub(crate) failures: u32,
    pub(crate) last_problem: String,
    /// What rules of the profile add to the pod; worked out when its group is asked for.
    pub(crate) effect: Option<Effect>,
    pub(crate) first_seen: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: HashMap<String, PodRecord>,
    pub(crate) groups: HashMap<String, GroupRecord>,
    by_uid: HashMap<String, BTreeSet<String>>,
    pub(crate) notes: HashMap<String, Notes>,
    pub(crate) resting: Resting,
    pub(crate) listed: Option<Instant>,
    /// Every node that may hold pods of ours is being watched.
    pub(crate) nodes_known: bool,
    /// Of each node that is watched, whether its pods are known.
    pods_known: HashMap<usize, bool>,
    dirty: HashSet<String>,
    /// Decided, waiting for a place under the bounds.
    pub(crate) for_cloud: VecDeque<Action>,
    pub(crate) for_api: VecDeque<Action>,
    pub(crate) cloud_calls: usize,
    pub(crate) api_writes: usize,
}

/// How busy the cloud is with our groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Motion {
    pub(crate) groups: usize,
    pub(crate) starting: usize,
    pub(crate) stopping: Vec<String>,
}

impl State {
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
            pods_known: self.nodes_known && self.pods_known.values().all(|known| *known),
        }
    }

    pub(crate) fn touch(&mut self, uid: &str) {
        if !self.dirty.contains(uid) {
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Whatever the passing of time alone can change: what is being waited for, what goes, what has no counterpart.
    /// Thousands of pods that just run are left alone.
    pub(crate) fn touch_waiting(&mut self) {
        let waits = |memory: &Memory| {
            memory.retry_at.is_some() || memory.absent_since.is_some() || memory.status_due
        };
        let pods = self.pods.iter().filter(|(uid, record)| {
            record.pod.metadata.deletion_timestamp.is_some()
                || !self.by_uid.contains_key(*uid)
                || self
                    .notes
                    .get(*uid)
                    .is_some_and(|notes| waits(&notes.memory))
        });
        let groups = self.groups.values().filter(|group| {
            group.deleted_at.is_some()
                || group.entry.is_none()
                || !self.pods.contains_key(&group.uid)
        });
        let waiting: Vec<String> = pods
            .map(|(uid, _)| uid.clone())
            .chain(groups.map(|group| group.uid.clone()))
            .collect();
        self.dirty.extend(waiting);
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

    pub(crate) fn notes(&mut self, uid: &str) -> &mut Notes {
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
        let pod = self.pods.get(uid).map(|record| pod_view(&record.pod));
        decide(pod.as_ref(), &groups, memory, policy, self.now(at))
    }

    pub(crate) fn groups_of(&self, uid: &str) -> impl Iterator<Item = (&String, &GroupRecord)> {
        let ids = self.by_uid.get(uid).into_iter().flatten();
        ids.filter_map(|id| self.groups.get_key_value(id))
    }

    /// The group whose status the pod shows.
    pub(crate) fn shown_group(&self, uid: &str) -> Option<(&String, &GroupRecord)> {
        let written = self
            .pods
            .get(uid)
            .and_then(|record| record.pod.annotations().get(INSTANCE_ID));
        let mut groups: Vec<_> = self.groups_of(uid).collect();
        groups.sort_by_key(|(id, group)| (Some(*id) != written, group.known_since));
        groups.into_iter().next()
    }

    /// A pod as the API shows it now; news older than what is known is ignored.
    pub(crate) fn put_pod(&mut self, pod: Pod, node: usize, at: Instant) {
        let Some(uid) = pod.uid() else { return };
        if self
            .pods
            .get(&uid)
            .is_some_and(|known| is_old_news(&pod, &known.pod))
        {
            return;
        }
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let before = self.pods.insert(
            uid.clone(),
            PodRecord {
                pod: Arc::new(pod),
                node,
            },
        );
        let was_deleting = before
            .as_ref()
            .is_some_and(|old| old.pod.metadata.deletion_timestamp.is_some());
        let notes = self.notes(&uid);
        if before.is_none() {
            notes.first_seen = Some(at);
            notes.moments.bound = Some(Timestamp::now());
        }
        if deleting && !was_deleting {
            // Whatever was being waited for does not matter any more.
            notes.memory.retry_at = None;
        }
        self.refresh_status(&uid);
        self.touch(&uid);
    }

    /// A pod as the answer to an own write shows it. The watch may have told of its deletion before the answer was read:
    /// then the answer is old news, and taking the pod up again would keep its group alive for ever.
    pub(crate) fn put_answer(&mut self, pod: Pod, node: usize, at: Instant) {
        let known = pod.metadata.uid.as_ref();
        if known.is_some_and(|uid| self.pods.contains_key(uid)) {
            self.put_pod(pod, node, at);
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
        self.by_uid
            .entry(group.uid.clone())
            .or_default()
            .insert(id.to_owned());
        self.notes(&group.uid.clone()).memory.absent_since = None;
        self.groups.insert(id.to_owned(), group);
    }

    /// The cloud accepted the creation of a group for `uid`.
    pub(crate) fn group_accepted(&mut self, uid: &str, id: &str, facts: GroupFacts, at: Instant) {
        let notes = self.notes(uid);
        notes.memory.accepted_at = Some(at);
        notes.memory.absent_since = None;
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
        self.refresh_status(uid);
    }

    /// The cloud accepted a group's deletion.
    pub(crate) fn deletion_accepted(&mut self, id: &str, at: Instant) {
        if let Some(group) = self.groups.get_mut(id) {
            group.deleted_at = Some(at);
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
            annotations: facts::described(group),
            owner: tag_value(tags::NAMESPACE).zip(tag_value(tags::POD)),
            described: entry.as_ref().is_some_and(status::is_ready),
        };
        let record = GroupRecord {
            uid: uid.clone(),
            known_since: at,
            deleted_at: None,
            entry: entry.map(Arc::new),
            facts,
        };
        self.put_group(&group.container_group_id, record);
        self.refresh_status(&uid);
    }

    /// Groups that run and that the cloud has not described since.
    pub(crate) fn undescribed(&self, most: usize) -> Vec<String> {
        let wanted = self.groups.iter().filter(|(_, group)| {
            let entry = group.entry.as_deref();
            !group.facts.described
                && group.deleted_at.is_none()
                && entry.is_some_and(|entry| entry.status == GroupStatus::Running)
                && self.pods.contains_key(&group.uid)
        });
        wanted.take(most).map(|(id, _)| id.clone()).collect()
    }

    /// What the cloud says about a group that runs.
    pub(crate) fn describe_group(&mut self, group: &ContainerGroup) {
        let Some(known) = self.groups.get_mut(&group.container_group_id) else {
            return;
        };
        known.facts.described = true;
        known.facts.annotations.extend(facts::described(group));
        let uid = known.uid.clone();
        self.refresh_status(&uid);
        self.touch(&uid);
    }

    /// A status of a known group. Returns false when the group is not known.
    pub(crate) fn put_entry(&mut self, entry: GroupStatusEntry) -> bool {
        let Some(group) = self.groups.get_mut(&entry.container_group_id) else {
            return false;
        };
        if group.entry.as_deref() == Some(&entry) {
            return true;
        }
        let uid = group.uid.clone();
        let ready = status::is_ready(&entry);
        let running = entry.status == GroupStatus::Running;
        group.entry = Some(Arc::new(entry));
        let moments = &mut self.notes(&uid).moments;
        if running && moments.running.is_none() {
            moments.running = Some(Timestamp::now());
        }
        if ready && moments.ready.is_none() {
            moments.ready = Some(Timestamp::now());
        }
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
            ids.remove(id);
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
                super::write::differs(&record.pod, id, entry)
                    || facts::unwritten(&record.pod, &group.facts.annotations)
            })
        });
        if due || self.notes.contains_key(uid) {
            self.notes(uid).memory.status_due = due;
        }
    }

    /// The API took a status made from `written`. However it shows the pod now: writing the same again would not change
    /// it, and what never ends is a loop. News of the group or of the pod makes a status due again.
    pub(crate) fn status_written(&mut self, uid: &str, written: &Arc<GroupStatusEntry>) {
        let shown = self
            .shown_group(uid)
            .and_then(|(_, group)| group.entry.as_ref());
        if shown.is_some_and(|entry| Arc::ptr_eq(entry, written)) {
            self.notes(uid).memory.status_due = false;
        }
    }

    pub(crate) fn motion(&self, at: Instant) -> Motion {
        let mut motion = Motion {
            groups: self.groups.len(),
            ..Motion::default()
        };
        for (id, group) in &self.groups {
            if group.deleted_at.is_some() {
                motion.stopping.push(id.clone());
            } else if at.saturating_duration_since(group.known_since) < HURRY && is_starting(group)
            {
                motion.starting += 1;
            }
        }
        motion
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

fn is_starting(group: &GroupRecord) -> bool {
    group
        .entry
        .as_ref()
        .is_none_or(|entry| !entry.status.is_final() && !status::is_ready(entry))
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
    }
}

/// Versions of one object are increasing numbers on every API server there is; where they are not, the newest wins.
/// The same version again is the echo of our own write, which is known already.
fn is_old_news(pod: &Pod, known: &Pod) -> bool {
    let version = |pod: &Pod| {
        pod.resource_version()
            .and_then(|version| version.parse::<u64>().ok())
    };
    matches!((version(pod), version(known)), (Some(new), Some(old)) if new <= old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: u64) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {"containers": [{"name": "c"}]}
        }))
        .unwrap()
    }

    fn group(uid: &str, at: Instant) -> GroupRecord {
        GroupRecord {
            uid: uid.into(),
            known_since: at,
            deleted_at: None,
            entry: None,
            facts: GroupFacts::default(),
        }
    }

    fn entry(id: &str, status: &str) -> GroupStatusEntry {
        serde_json::from_value(
            json!({"ContainerGroupId": id, "Status": status, "PodStatus": {"PodIp": "10.4.1.2"}}),
        )
        .unwrap()
    }

    #[test]
    fn a_changed_group_makes_a_status_due_and_the_same_word_again_does_not() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_pod(pod("u", 1), 0, at);
        state.put_group("g", group("u", at));
        assert!(state.put_entry(entry("g", "Running")));
        assert!(state.notes("u").memory.status_due);
        state.take_dirty();
        assert!(state.put_entry(entry("g", "Running")));
        assert!(state.take_dirty().is_empty());
        assert!(!state.put_entry(entry("unknown", "Running")));
    }

    #[test]
    fn a_written_status_is_not_due_again_until_there_is_news() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_pod(pod("u", 1), 0, at);
        state.put_group("g", group("u", at));
        state.put_entry(entry("g", "Running"));
        let written = state.groups["g"].entry.clone().unwrap();
        state.put_answer(pod("u", 2), 0, at);
        assert!(state.notes("u").memory.status_due);
        state.status_written("u", &written);
        assert!(!state.notes("u").memory.status_due);
        // What came while the write was under way is not forgotten.
        state.put_entry(entry("g", "Succeeded"));
        state.status_written("u", &written);
        assert!(state.notes("u").memory.status_due);
    }

    #[test]
    fn time_alone_is_looked_at_only_for_what_waits() {
        let at = Instant::now();
        let mut state = State::default();
        for (uid, id) in [("runs", "g1"), ("starts", "g2"), ("retries", "g3")] {
            state.put_pod(pod(uid, 1), 0, at);
            state.put_group(id, group(uid, at));
        }
        for id in ["g1", "g3"] {
            state.put_entry(entry(id, "Running"));
        }
        for uid in ["runs", "retries"] {
            state.notes(uid).memory.status_due = false;
        }
        state.notes("retries").memory.retry_at = Some(at);
        state.put_pod(pod("new", 1), 0, at);
        state.put_group("g4", group("orphan", at));
        state.take_dirty();
        state.touch_waiting();
        let mut waiting: Vec<String> = state.take_dirty().into_iter().collect();
        waiting.sort();
        assert_eq!(waiting, ["new", "orphan", "retries", "starts"]);
    }

    #[test]
    fn old_news_of_a_pod_is_ignored() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_pod(pod("u", 5), 0, at);
        state.put_pod(pod("u", 4), 0, at);
        assert_eq!(state.pods["u"].pod.resource_version().as_deref(), Some("5"));
    }

    #[test]
    fn the_answer_to_a_write_never_brings_a_deleted_pod_back() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_pod(pod("u", 1), 0, at);
        state.put_answer(pod("u", 2), 0, at);
        assert_eq!(state.pods["u"].pod.resource_version().as_deref(), Some("2"));
        state.remove_pod("u");
        state.put_answer(pod("u", 3), 0, at);
        assert!(state.pods.is_empty());
    }

    #[test]
    fn a_group_made_after_the_list_was_begun_survives_it() {
        let asked = Instant::now();
        let later = asked + Duration::from_millis(5);
        let mut state = State::default();
        state.put_group(
            "old",
            group("u1", asked.checked_sub(Duration::from_secs(1)).unwrap()),
        );
        state.put_group("new", group("u2", later));
        state.keep_groups(&HashSet::new(), asked);
        assert!(!state.groups.contains_key("old"));
        assert!(state.groups.contains_key("new"));
        assert_eq!(state.listed, Some(asked));
    }

    #[test]
    fn nothing_is_remembered_about_what_is_gone() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_pod(pod("u", 1), 0, at);
        state.put_group("g", group("u", at));
        state.remove_pod("u");
        assert!(state.notes.contains_key("u"));
        state.remove_group("g", at);
        assert!(state.notes.is_empty() && state.by_uid.is_empty() && state.groups.is_empty());
    }

    #[test]
    fn motion_counts_what_starts_and_names_what_stops() {
        let at = Instant::now();
        let mut state = State::default();
        state.put_group("a", group("u1", at));
        state.put_group(
            "b",
            GroupRecord {
                deleted_at: Some(at),
                ..group("u2", at)
            },
        );
        let motion = state.motion(at);
        assert_eq!(
            (motion.groups, motion.starting, motion.stopping),
            (2, 1, vec!["b".to_owned()])
        );
        assert_eq!(state.motion(at + HURRY).starting, 0);
    }
}

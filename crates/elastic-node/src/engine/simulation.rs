//! Thousands of histories of cluster, cloud and virtual node, each from one seed: answers get lost, news comes twice, the
//! process dies at every point, the cloud refuses and forgets, pods are deleted while their group is being made and made
//! anew under their name. All that acts here is the code of the virtual node ([`super::state`], [`super::act`] and the
//! plan); cloud and API server are on paper.
//!
//! After each history the world comes to rest, and then nothing may be doubled, leaked, lost or left hanging. A history
//! that ends badly prints the command that plays it again.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use cloud_api::model::describe::ContainerGroup;
use cloud_api::model::status::GroupStatusEntry;
use elastic_core::names::INSTANCE_ID;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use super::act;
use super::kept::Packer;
use super::state::{GroupFacts, State};
use crate::plan::{Action, Policy};

const HISTORIES: u64 = 2_000;
const STEPS: usize = 120;
/// Rounds in which a world without further mishaps must come to rest.
const ROUNDS: usize = 120;
/// Rounds in a row without anything wrong that count as rest: longer than every waiting time.
const REST: usize = 12;
/// For so long a new group may be missing from a list.
const LAG: Duration = Duration::from_secs(2);
const NAMES: u64 = 4;
const CALLS: usize = 3;
const POLICY: Policy = Policy {
    lost_after: Duration::from_secs(4),
    orphan_after: Duration::from_secs(3),
};

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn one_of(&mut self, choices: &[usize]) -> Option<usize> {
        let count = u64::try_from(choices.len())
            .ok()
            .filter(|count| *count > 0)?;
        let index = usize::try_from(self.below(count)).ok()?;
        choices.get(index).copied()
    }
}

#[derive(Clone, Debug)]
struct ApiPod {
    uid: String,
    version: u64,
    deleting: bool,
    phase: &'static str,
    instance: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct CloudGroup {
    uid: String,
    status: &'static str,
    made: Instant,
}

/// A call that the process has begun.
#[derive(Clone, Debug)]
struct Call {
    action: Action,
    begun: Instant,
    /// What the other side says, once it has acted.
    answer: Option<Answer>,
    /// The process that asked is dead: there may be an effect, but nobody hears the answer.
    orphaned: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    Created(String),
    Done,
    NotFound,
    Refused,
    Lost,
}

/// A look at the cloud: asked, then answered with what was there in between.
struct Look {
    asked: Instant,
    found: Option<Vec<(String, CloudGroup)>>,
}

enum News {
    Pod(String, ApiPod),
    Gone(String),
}

struct World {
    chance: Chance,
    at: Instant,
    pods: BTreeMap<String, ApiPod>,
    groups: BTreeMap<String, CloudGroup>,
    tokens: BTreeMap<String, String>,
    forgotten: BTreeSet<String>,
    made: u64,
    state: State,
    packer: Packer,
    calls: Vec<Call>,
    look: Option<Look>,
    news: VecDeque<News>,
    mishaps: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            chance: Chance(seed),
            at: Instant::now(),
            pods: BTreeMap::new(),
            groups: BTreeMap::new(),
            tokens: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            made: 0,
            state: State::default(),
            packer: Packer::default(),
            calls: Vec::new(),
            look: None,
            news: VecDeque::new(),
            mishaps: true,
        };
        world.restart();
        world
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// The process dies and begins anew with both lists.
    fn restart(&mut self) {
        self.state = State::default();
        self.state.add_node(0);
        self.state.nodes_known = true;
        self.look = None;
        self.news.clear();
        self.calls.retain(|call| call.answer.is_none());
        self.calls.iter_mut().for_each(|call| call.orphaned = true);
        let present: HashSet<String> = self.pods.values().map(|pod| pod.uid.clone()).collect();
        for (name, pod) in self.pods.clone() {
            self.state.put_pod(object(&name, &pod), 0);
        }
        self.state.keep_pods(0, &present);
    }

    fn changed(&mut self, name: &str) {
        let version = self.number();
        if let Some(pod) = self.pods.get_mut(name) {
            pod.version = version;
            self.news.push_back(News::Pod(name.to_owned(), pod.clone()));
        }
    }

    fn user(&mut self) {
        let name = format!("p{}", self.chance.below(NAMES));
        match (self.pods.contains_key(&name), self.chance.below(3)) {
            (false, _) => {
                let uid = format!("u{}", self.number());
                let pod = ApiPod {
                    uid,
                    version: 0,
                    deleting: false,
                    phase: "Pending",
                    instance: None,
                };
                self.pods.insert(name.clone(), pod);
                self.changed(&name);
            }
            (true, 0) => self.remove(&name),
            (true, 1) => {
                if let Some(pod) = self.pods.get_mut(&name) {
                    pod.deleting = true;
                }
                self.changed(&name);
            }
            (true, _) => self.changed(&name),
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(pod) = self.pods.remove(name) {
            self.news.push_back(News::Gone(pod.uid));
        }
    }

    /// The watch brings the oldest news; now and then twice.
    fn hear(&mut self) {
        let Some(news) = self.news.pop_front() else {
            return;
        };
        let times = if self.chance.one_in(4) { 2 } else { 1 };
        for _ in 0..times {
            match &news {
                News::Pod(name, pod) => self.state.put_pod(object(name, pod), 0),
                News::Gone(uid) => self.state.remove_pod(uid),
            }
        }
    }

    fn plan(&mut self) {
        self.state.touch_waiting();
        if self.chance.one_in(4) {
            self.state.pack_round(&mut self.packer);
        }
        act::decide(&mut self.state, POLICY, self.at);
        while let Some(action) = act::next(&mut self.state, CALLS, CALLS, POLICY, self.at) {
            self.calls.push(Call {
                action,
                begun: self.at,
                answer: None,
                orphaned: false,
            });
        }
    }

    /// Some call that has not been acted on reaches the other side.
    fn arrive(&mut self) {
        let waiting: Vec<usize> = (0..self.calls.len())
            .filter(|index| self.calls[*index].answer.is_none())
            .collect();
        let Some(index) = self.chance.one_of(&waiting) else {
            return;
        };
        let action = self.calls[index].action.clone();
        let fails = self.mishaps && self.chance.one_in(5);
        let mut answer = if fails {
            Answer::Refused
        } else {
            self.effect(&action)
        };
        if self.mishaps && self.chance.one_in(5) {
            answer = Answer::Lost;
        }
        self.calls[index].answer = Some(answer);
        if self.calls[index].orphaned {
            self.calls.remove(index);
        }
    }

    fn effect(&mut self, action: &Action) -> Answer {
        match action {
            Action::Create { uid } => self.create(uid),
            Action::Delete { id, .. } => match self.groups.get_mut(id) {
                Some(group) => {
                    group.status = "Terminating";
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Action::UpdateImages { .. } | Action::RenewTokens { .. } => Answer::Done,
            Action::WriteStatus { uid } => {
                let shown = self.state.shown_group(uid).map(|(id, group)| {
                    let entry = group.entry.as_ref();
                    (
                        id.clone(),
                        entry.map(|entry| entry.status.as_str().to_owned()),
                    )
                });
                let Some((id, status)) = shown else {
                    return Answer::NotFound;
                };
                let phase = match status.as_deref() {
                    Some("Running" | "Terminating") => "Running",
                    _ => "Pending",
                };
                self.write(uid, phase, Some(id))
            }
            Action::Lost { uid } => self.write(uid, "Failed", None),
            Action::Finish { uid } => {
                let found = self.pods.iter().find(|(_, pod)| pod.uid == *uid);
                match found.map(|(name, _)| name.clone()) {
                    Some(name) => {
                        self.remove(&name);
                        Answer::Done
                    }
                    None => Answer::NotFound,
                }
            }
        }
    }

    /// The token makes a repeated creation the same one, also when its group is gone since.
    fn create(&mut self, uid: &str) -> Answer {
        if let Some(id) = self.tokens.get(uid) {
            return Answer::Created(id.clone());
        }
        let id = format!("g{}", self.number());
        self.tokens.insert(uid.to_owned(), id.clone());
        let group = CloudGroup {
            uid: uid.to_owned(),
            status: "Pending",
            made: self.at,
        };
        self.groups.insert(id.clone(), group);
        Answer::Created(id)
    }

    fn write(&mut self, uid: &str, phase: &'static str, instance: Option<String>) -> Answer {
        let found = self.pods.iter_mut().find(|(_, pod)| pod.uid == uid);
        let Some((name, pod)) = found else {
            return Answer::NotFound;
        };
        pod.phase = phase;
        pod.instance = instance.or(pod.instance.take());
        let name = name.clone();
        self.changed(&name);
        Answer::Done
    }

    /// Some answer comes back to the process.
    fn answer(&mut self) {
        let answered: Vec<usize> = (0..self.calls.len())
            .filter(|index| self.calls[*index].answer.is_some())
            .collect();
        let Some(index) = self.chance.one_of(&answered) else {
            return;
        };
        let call = self.calls.remove(index);
        let uid = act::uid_of(&call.action).to_owned();
        let retry = self.at + Duration::from_millis(500);
        match (&call.action, call.answer) {
            (_, Some(Answer::Lost | Answer::Refused) | None) => {
                self.state.notes(&uid).memory.retry_at = Some(retry);
            }
            (Action::Create { .. }, Some(Answer::Created(id))) => {
                let facts = GroupFacts::default();
                self.state.group_accepted(&uid, &id, facts, self.at);
            }
            (Action::Delete { id, .. }, Some(Answer::NotFound)) => {
                self.state.remove_group(id, call.begun);
            }
            (Action::Delete { id, .. }, Some(_)) => self.state.deletion_accepted(id, self.at),
            (Action::Finish { .. }, Some(Answer::NotFound)) => self.state.remove_pod(&uid),
            (_, Some(_)) => self.state.notes(&uid).memory.retry_at = Some(retry),
        }
        act::ended(&mut self.state, &call.action);
    }

    /// A complete look is begun, answered, or taken in.
    fn look(&mut self) {
        match self.look.take() {
            None => {
                self.look = Some(Look {
                    asked: self.at,
                    found: None,
                });
            }
            Some(Look { asked, found: None }) => {
                // Lists lag: a young group may not be in them yet.
                let lags = self.mishaps && self.chance.one_in(3);
                let young =
                    |group: &CloudGroup| self.at.saturating_duration_since(group.made) < LAG;
                let shown = self
                    .groups
                    .iter()
                    .filter(|(_, group)| !lags || !young(group));
                let found = shown
                    .map(|(id, group)| (id.clone(), group.clone()))
                    .collect();
                let lost = self.mishaps && self.chance.one_in(6);
                self.look = (!lost).then_some(Look {
                    asked,
                    found: Some(found),
                });
            }
            Some(Look {
                asked,
                found: Some(found),
            }) => self.take_in(asked, found),
        }
    }

    fn take_in(&mut self, asked: Instant, found: Vec<(String, CloudGroup)>) {
        let present: HashSet<String> = found.iter().map(|(id, _)| id.clone()).collect();
        for (id, group) in found {
            let entry = json!({"ContainerGroupId": id, "Status": group.status});
            let entry: GroupStatusEntry = serde_json::from_value(entry).unwrap();
            if !self.state.put_entry(entry.clone()) {
                let tags = json!([{"Key": "springtide/uid", "Value": group.uid}]);
                let described = json!({"ContainerGroupId": id, "Tags": tags});
                let described: ContainerGroup = serde_json::from_value(described).unwrap();
                self.state.adopt_group(&described, Some(entry), self.at);
            }
        }
        self.state.keep_groups(&present, asked);
    }

    /// The cloud goes on with some group.
    fn progress(&mut self) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        let indices: Vec<usize> = (0..ids.len()).collect();
        let Some(index) = self.chance.one_of(&indices) else {
            return;
        };
        let id = &ids[index];
        if self.mishaps && self.chance.one_in(12) {
            let group = self.groups.remove(id).unwrap();
            self.forgotten.insert(group.uid);
            return;
        }
        let group = self.groups.get_mut(id).unwrap();
        match group.status {
            "Pending" => group.status = "Running",
            "Terminating" => drop(self.groups.remove(id)),
            _ => {}
        }
    }

    fn step(&mut self) {
        self.at += Duration::from_millis(self.chance.below(900));
        match self.chance.below(20) {
            0..=2 => self.user(),
            3..=5 => self.hear(),
            6..=9 => self.plan(),
            10..=12 => self.arrive(),
            13..=14 => self.answer(),
            15..=17 => self.look(),
            18 => self.progress(),
            _ if self.chance.one_in(3) => self.restart(),
            _ => self.progress(),
        }
    }

    /// Nobody interferes any more and nothing goes wrong.
    fn come_to_rest(&mut self) {
        self.mishaps = false;
        let mut calm = 0;
        for _ in 0..ROUNDS {
            calm = if self.wrong().is_none() { calm + 1 } else { 0 };
            if calm > REST {
                return;
            }
            self.at += Duration::from_secs(1);
            while !self.news.is_empty() {
                self.hear();
            }
            self.plan();
            for _ in 0..2 * CALLS {
                self.arrive();
                self.answer();
            }
            self.look();
            for _ in 0..NAMES {
                self.progress();
            }
        }
    }

    /// What must hold at every moment: never two groups that cost money for one pod.
    fn doubled(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        let mut living = self
            .groups
            .values()
            .filter(|group| group.status != "Terminating");
        living
            .find(|group| !seen.insert(&group.uid))
            .map(|group| format!("{} has two groups", group.uid))
    }

    /// What must hold when all is at rest.
    fn wrong(&self) -> Option<String> {
        for (id, group) in &self.groups {
            match self.pods.values().find(|pod| pod.uid == group.uid) {
                None => return Some(format!("{id} of {} is leaked", group.uid)),
                Some(pod) if pod.phase == "Failed" => {
                    return Some(format!("{id} costs money for {}, which has ended", pod.uid));
                }
                Some(_) => {}
            }
        }
        for (name, pod) in &self.pods {
            let group = self.groups.iter().find(|(_, group)| group.uid == pod.uid);
            let trouble = match (pod.phase, group) {
                _ if pod.deleting => Some("hangs in its deletion"),
                ("Failed", _) if !self.forgotten.contains(&pod.uid) => {
                    Some("is called lost and was not")
                }
                ("Failed", _) => None,
                (_, None) => Some("is a zombie: it has no group"),
                ("Running", Some((id, _))) if pod.instance.as_ref() == Some(id) => None,
                _ => Some("does not show its group"),
            };
            if let Some(trouble) = trouble {
                return Some(format!("{name} ({}) {trouble}", pod.uid));
            }
        }
        (!self.calls.is_empty()).then(|| "calls are left over".to_owned())
    }
}

fn object(name: &str, pod: &ApiPod) -> Pod {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "n", "uid": pod.uid, "resourceVersion": pod.version.to_string()},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": pod.phase, "hostIP": "10.0.0.1"}
    });
    if pod.deleting {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    if let Some(id) = &pod.instance {
        object["metadata"]["annotations"] = json!({INSTANCE_ID: id});
    }
    serde_json::from_value(object).unwrap()
}

/// Plays one history; the trouble it ends in, if any.
fn play(seed: u64) -> Option<String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        if let Some(trouble) = world.doubled() {
            return Some(trouble);
        }
    }
    world.come_to_rest();
    world.doubled().or_else(|| world.wrong())
}

#[test]
fn no_history_doubles_leaks_or_loses_anything() {
    let seeds = match std::env::var("SPRINGTIDE_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("SPRINGTIDE_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..HISTORIES,
    };
    for seed in seeds {
        if let Some(trouble) = play(seed) {
            panic!(
                "history {seed}: {trouble}\nplay it again: SPRINGTIDE_SEED={seed} cargo test -p elastic-node --lib simulation"
            );
        }
    }
}

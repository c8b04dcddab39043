//! The sets say what a look at everything would say, whatever happened before.

use std::collections::BTreeSet;

use cloud_api::model::status::GroupStatusEntry;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::act;
use crate::engine::kept::Packer;
use crate::engine::resting::REST_ROUNDS;
use crate::engine::state::GroupFacts;
use crate::plan::Policy;

const POLICY: Policy = Policy {
    lost_after: Duration::from_secs(4),
    orphan_after: Duration::from_secs(3),
};

fn pod(uid: &str, version: u64, phase: &str, deleting: bool) -> Pod {
    let deleted = deleting.then_some("2026-01-01T00:00:00Z");
    serde_json::from_value(json!({
        "metadata": {
            "name": uid, "namespace": "n", "uid": uid, "resourceVersion": version.to_string(),
            "deletionTimestamp": deleted,
        },
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn entry(id: &str, status: &str) -> GroupStatusEntry {
    serde_json::from_value(json!({"ContainerGroupId": id, "Status": status})).unwrap()
}

fn group(uid: &str, at: Instant) -> GroupRecord {
    GroupRecord {
        uid: uid.to_owned(),
        known_since: at,
        deleted_at: None,
        entry: None,
        facts: GroupFacts::default(),
    }
}

/// What a look at all pods and groups finds: who waits for time, whose groups move, which groups want a description, which
/// have no pod.
type Found = (
    BTreeSet<String>,
    BTreeSet<String>,
    BTreeSet<String>,
    BTreeSet<String>,
);

fn by_looking_at_everything(state: &State) -> Found {
    let mut found = Found::default();
    for (id, group) in &state.groups {
        let known = state.pods.contains_key(&group.uid);
        let gone = group.deleted_at.is_some();
        if gone || group.entry.is_none() || !known {
            found.0.insert(group.uid.clone());
        }
        if gone || is_starting(group) {
            found.1.insert(id.clone());
        }
        if known && wants_description(group) {
            found.2.insert(id.clone());
        }
        if !known {
            found.3.insert(id.clone());
        }
    }
    for (uid, record) in &state.pods {
        let has_group = state.groups.values().any(|group| group.uid == *uid);
        let notes = state.notes.get(uid);
        let over = record.ended() && !has_group;
        let waiting = !has_group || notes.is_some_and(|notes| waits(&notes.memory));
        if record.deleting() || (waiting && !over) {
            found.0.insert(uid.clone());
        }
    }
    found
}

fn by_the_sets(state: &mut State, at: Instant) -> Found {
    state.sort_in();
    let ids = |uids: &HashSet<String>, wanted: fn(&GroupRecord) -> bool| -> BTreeSet<String> {
        let groups = uids.iter().flat_map(|uid| state.groups_of(uid));
        let wanted = groups.filter(|(_, group)| wanted(group));
        wanted.map(|(id, _)| id.clone()).collect()
    };
    let time = state.waiting.for_time.iter().cloned().collect();
    let moving = |group: &GroupRecord| group.deleted_at.is_some() || is_starting(group);
    let moving = ids(&state.waiting.moving, moving);
    let orphaned = ids(&state.waiting.orphaned, |_| true);
    let undescribed = state.undescribed(usize::MAX).into_iter().collect();
    let motion = state.motion(at);
    assert_eq!(motion.starting + motion.stopping.len(), moving.len());
    (time, moving, undescribed, orphaned)
}

/// One thing that happens to one of a few pods and groups.
#[derive(Clone, Debug)]
enum News {
    Pod {
        pod: u8,
        phase: &'static str,
        deleting: bool,
    },
    PodGone(u8),
    PodsListed(Vec<u8>),
    Accepted {
        pod: u8,
        group: u8,
    },
    Entry {
        group: u8,
        status: &'static str,
    },
    DeletionAccepted(u8),
    GroupGone(u8),
    GroupsListed(Vec<u8>),
    Retry(u8),
    Written(u8),
    Described(u8),
    Settled(u8),
    Look,
    MoveTogether,
}

fn news() -> impl Strategy<Value = News> {
    let one = || 0..4_u8;
    let some = || prop::collection::vec(0..4_u8, 0..4);
    let phase = prop::sample::select(vec!["Pending", "Running", "Succeeded", "Failed"]);
    let status = prop::sample::select(vec!["Pending", "Running", "Succeeded", "Terminating"]);
    prop_oneof![
        (one(), phase, any::<bool>()).prop_map(|(pod, phase, deleting)| News::Pod {
            pod,
            phase,
            deleting
        }),
        one().prop_map(News::PodGone),
        some().prop_map(News::PodsListed),
        (one(), one()).prop_map(|(pod, group)| News::Accepted { pod, group }),
        (one(), status).prop_map(|(group, status)| News::Entry { group, status }),
        one().prop_map(News::DeletionAccepted),
        one().prop_map(News::GroupGone),
        some().prop_map(News::GroupsListed),
        one().prop_map(News::Retry),
        one().prop_map(News::Written),
        one().prop_map(News::Described),
        one().prop_map(News::Settled),
        Just(News::Look),
        Just(News::MoveTogether),
    ]
}

fn happen(state: &mut State, news: News, version: u64, at: Instant) {
    let (uid, id) = (|pod: u8| format!("u{pod}"), |group: u8| format!("g{group}"));
    match news {
        News::Pod {
            pod: number,
            phase,
            deleting,
        } => state.put_pod(pod(&uid(number), version, phase, deleting), 0),
        News::PodGone(pod) => state.remove_pod(&uid(pod)),
        News::PodsListed(pods) => state.keep_pods(0, &pods.into_iter().map(uid).collect()),
        // An id belongs to one pod for ever.
        News::Accepted { pod, group } => {
            let id = format!("{}-{}", id(group), uid(pod));
            state.group_accepted(&uid(pod), &id, GroupFacts::default(), at);
        }
        News::Entry { group, status } => {
            for pod in 0..4 {
                state.put_entry(entry(&format!("{}-{}", id(group), uid(pod)), status));
            }
        }
        News::DeletionAccepted(group) => {
            state.deletion_accepted(&format!("{}-u0", id(group)), at);
        }
        News::GroupGone(group) => state.remove_group(&format!("{}-u1", id(group)), at),
        News::GroupsListed(groups) => {
            let named = |group: u8| (0..4).map(move |pod| format!("g{group}-u{pod}"));
            let present = groups.into_iter().flat_map(named).collect();
            state.keep_groups(&present, at + Duration::from_secs(1));
        }
        News::Retry(pod) => state.notes(&uid(pod)).memory.retry_at = Some(at),
        News::Written(pod) => {
            let shown = state.shown_group(&uid(pod));
            let mark = shown.and_then(|(_, group)| Some(group.entry.as_ref()?.mark));
            state.status_written(&uid(pod), mark.unwrap_or_default());
        }
        News::Described(group) => {
            let id = format!("{}-u2", id(group));
            let group = serde_json::from_value(json!({"ContainerGroupId": id})).unwrap();
            state.describe_group(&group);
        }
        News::Settled(pod) => state.settle(&uid(pod)),
        News::Look => state.touch_waiting(),
        News::MoveTogether => state.move_together(),
    }
}

proptest! {
    #[test]
    fn the_sets_say_what_a_look_at_everything_says(history in prop::collection::vec(news(), 1..60)) {
        let at = Instant::now();
        let mut state = State::default();
        state.add_node(0);
        for (number, news) in history.into_iter().enumerate() {
            let told = format!("{news:?}");
            happen(&mut state, news, number as u64 + 1, at);
            let expected = by_looking_at_everything(&state);
            prop_assert_eq!(by_the_sets(&mut state, at), expected, "after {}", told);
        }
    }
}

/// Pods that run and show it, with groups that the cloud has described.
fn fleet(pods: usize, at: Instant) -> State {
    let mut state = State::default();
    state.add_node(0);
    state.nodes_known = true;
    for number in 0..pods {
        let (uid, id) = (format!("u{number}"), format!("g{number}"));
        state.put_pod(pod(&uid, 1, "Running", false), 0);
        state.put_group(&id, group(&uid, at));
        let mut running = entry(&id, "Running");
        let ready = json!({"Type": "Ready", "Status": "True"});
        running.pod_status.conditions = vec![serde_json::from_value(ready).unwrap()];
        state.put_entry(running);
        let described = serde_json::from_value(json!({"ContainerGroupId": id})).unwrap();
        state.describe_group(&described);
        let mark = state.groups[&id].entry.as_ref().unwrap().mark;
        state.status_written(&uid, mark);
    }
    state.take_dirty();
    state
}

#[test]
fn a_fleet_at_rest_is_not_looked_at_and_asks_for_nothing() {
    let at = Instant::now();
    let mut state = fleet(200, at);
    let mut packer = Packer::default();
    let later = at + Duration::from_secs(3_600);
    for round in 0..3 * REST_ROUNDS {
        state.touch_waiting();
        assert!(!state.has_news(), "round {round}");
        assert!(state.unanswered(Duration::ZERO, later).is_empty());
        assert!(state.undescribed(usize::MAX).is_empty());
        state.pack_round(&mut packer);
        state.move_together_when_worth_it();
    }
    let motion = state.motion(later);
    assert_eq!((motion.starting, motion.stopping.len()), (0, 0));
    assert_eq!(state.scattered, 0);
    // Complete lists look at everything, and still there is nothing to do.
    let present: HashSet<String> = state.groups.keys().cloned().collect();
    state.keep_groups(&present, later);
    let pods: HashSet<String> = state.pods.keys().cloned().collect();
    state.keep_pods(0, &pods);
    assert!(state.has_news());
    act::decide(&mut state, POLICY, later);
    assert!(state.for_cloud.is_empty() && state.for_api.is_empty());
    // All of it is still there, and packed.
    let open = |(uid, record): (&String, &super::super::PodRecord)| {
        let (_, group) = state.shown_group(uid).unwrap();
        let entry = group.entry.as_ref().unwrap();
        record.kept.opened().is_some() || entry.kept.opened().is_some()
    };
    assert_eq!(state.pods.iter().filter(|one| open(*one)).count(), 0);
    assert_eq!(
        *state.pods["u7"].pod(),
        pod("u7", 1, "Running", false),
        "unchanged"
    );
}

//! What news does to the state.

use serde_json::json;

use super::*;
use crate::engine::kept::Packer;
use crate::engine::resting::REST_ROUNDS;
use crate::engine::waiting::HURRY;

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
    state.put_pod(pod("u", 1), 0);
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
    state.put_pod(pod("u", 1), 0);
    state.put_group("g", group("u", at));
    state.put_entry(entry("g", "Running"));
    let written = state.groups["g"].entry.as_ref().unwrap().mark;
    state.put_answer(pod("u", 2), 0);
    assert!(state.notes("u").memory.status_due);
    state.status_written("u", written);
    assert!(!state.notes("u").memory.status_due);
    // What came while the write was under way is not forgotten.
    state.put_entry(entry("g", "Succeeded"));
    state.status_written("u", written);
    assert!(state.notes("u").memory.status_due);
}

#[test]
fn time_alone_is_looked_at_only_for_what_waits() {
    let at = Instant::now();
    let mut state = State::default();
    for (uid, id) in [("runs", "g1"), ("starts", "g2"), ("retries", "g3")] {
        state.put_pod(pod(uid, 1), 0);
        state.put_group(id, group(uid, at));
    }
    for id in ["g1", "g3"] {
        state.put_entry(entry(id, "Running"));
    }
    for uid in ["runs", "retries"] {
        state.notes(uid).memory.status_due = false;
    }
    state.notes("retries").memory.retry_at = Some(at);
    state.put_pod(pod("new", 1), 0);
    state.put_group("g4", group("orphan", at));
    state.take_dirty();
    state.touch_waiting();
    let mut waiting: Vec<String> = state.take_dirty().into_iter().collect();
    waiting.sort();
    assert_eq!(waiting, ["new", "orphan", "retries", "starts"]);
}

#[test]
fn old_news_of_a_pod_is_ignored() {
    let mut state = State::default();
    state.put_pod(pod("u", 5), 0);
    state.put_pod(pod("u", 4), 0);
    assert_eq!(
        state.pods["u"].pod().resource_version().as_deref(),
        Some("5")
    );
}

#[test]
fn the_answer_to_a_write_never_brings_a_deleted_pod_back() {
    let mut state = State::default();
    state.put_pod(pod("u", 1), 0);
    state.put_answer(pod("u", 2), 0);
    assert_eq!(
        state.pods["u"].pod().resource_version().as_deref(),
        Some("2")
    );
    state.remove_pod("u");
    state.put_answer(pod("u", 3), 0);
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
    state.put_pod(pod("u", 1), 0);
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

#[test]
fn a_pod_at_rest_is_packed_and_news_opens_it() {
    let at = Instant::now();
    let mut state = State::default();
    state.put_pod(pod("u", 1), 0);
    state.put_group("g", group("u", at));
    state.put_entry(entry("g", "Running"));
    let packed = |state: &State| {
        let group = &state.groups["g"];
        let entry = group.entry.as_ref().unwrap();
        (
            state.pods["u"].kept.opened().is_none(),
            entry.kept.opened().is_none(),
        )
    };
    let mut packer = Packer::default();
    for _ in 0..REST_ROUNDS {
        assert_eq!(packed(&state), (false, false));
        state.pack_round(&mut packer);
    }
    assert_eq!(packed(&state), (true, true));
    assert!(state.open.is_empty());
    assert_eq!(*state.pods["u"].pod(), pod("u", 1));
    // The same word again wakes nobody up.
    assert!(state.put_entry(entry("g", "Running")));
    assert_eq!(packed(&state), (true, true));
    state.put_entry(entry("g", "Succeeded"));
    assert_eq!(packed(&state), (true, false));
    state.put_pod(pod("u", 2), 0);
    assert_eq!(packed(&state), (false, false));
    assert_eq!(state.open.len(), 1);
    state.remove_pod("u");
    state.remove_group("g", at);
    for _ in 0..=REST_ROUNDS {
        state.pack_round(&mut packer);
    }
    assert!(state.open.is_empty());
}

#[test]
fn a_group_without_a_pod_is_counted_once_all_pods_are_known() {
    let at = Instant::now();
    let mut state = State::default();
    state.add_node(0);
    state.nodes_known = true;
    state.put_pod(pod("u", 1), 0);
    state.put_group("g", group("u", at));
    state.put_group("orphan", group("gone", at));
    assert_eq!(state.figures(), (2, 0));
    state.keep_pods(0, &HashSet::from(["u".to_owned()]));
    assert_eq!(state.figures(), (2, 1));
}

#[test]
fn tokens_are_renewed_when_they_are_due_and_not_looked_at_before() {
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
    let mut state = State::default();
    for (uid, seconds) in [("late", 10), ("early", 5), ("never", 0)] {
        state.put_pod(pod(uid, 1), 0);
        let until = (seconds > 0).then(|| at(seconds));
        state.put_off_tokens(uid, until);
    }
    state.take_dirty();
    let due = |state: &mut State, seconds: i64| {
        state.touch_ending_tokens(at(seconds));
        state.take_dirty().into_iter().collect::<Vec<_>>()
    };
    assert!(due(&mut state, 4).is_empty());
    assert_eq!(due(&mut state, 5), ["early"]);
    assert!(due(&mut state, 9).is_empty());
    // Put off again, it is not found a second time before its moment.
    state.put_off_tokens("early", Some(at(12)));
    assert_eq!(due(&mut state, 11), ["late"]);
    assert_eq!(due(&mut state, 12), ["early"]);
    assert_eq!(state.next_renewal, None);
}

//! The table of cases, and a cloud and a cluster on paper that lose and repeat things.

use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    lost_after: Duration::from_secs(4),
    orphan_after: Duration::from_secs(3),
};

fn pod(uid: &str) -> PodView {
    PodView {
        uid: uid.into(),
        deleting: false,
        ended: false,
        instance: None,
        images_changed: false,
        tokens_due: false,
    }
}

fn group(id: &str, uid: &str, at: Instant) -> GroupView {
    GroupView {
        id: id.into(),
        uid: uid.into(),
        terminating: false,
        ended: false,
        known_since: at,
    }
}

fn now(start: Instant, seconds: u64) -> Now {
    let at = start + Duration::from_secs(seconds);
    Now {
        at,
        listed: Some(at),
        pods_known: true,
    }
}

fn create(uid: &str) -> Vec<Action> {
    vec![Action::Create { uid: uid.into() }]
}

fn delete(id: &str, uid: &str) -> Vec<Action> {
    vec![Action::Delete {
        uid: uid.into(),
        id: id.into(),
    }]
}

#[test]
fn a_new_pod_is_created_once_the_lists_are_known() {
    let start = Instant::now();
    let memory = Memory::default();
    assert_eq!(
        decide(
            Some(&pod("u")),
            &[],
            &memory,
            POLICY,
            Now {
                listed: None,
                ..now(start, 0)
            }
        ),
        []
    );
    assert_eq!(
        decide(Some(&pod("u")), &[], &memory, POLICY, now(start, 0)),
        create("u")
    );
    let busy = Memory {
        busy: true,
        ..Memory::default()
    };
    assert_eq!(
        decide(Some(&pod("u")), &[], &busy, POLICY, now(start, 0)),
        []
    );
}

#[test]
fn a_failed_creation_waits_and_a_refused_one_never_comes_back() {
    let start = Instant::now();
    let waiting = Memory {
        retry_at: Some(start + Duration::from_secs(5)),
        ..Memory::default()
    };
    assert_eq!(
        decide(Some(&pod("u")), &[], &waiting, POLICY, now(start, 4)),
        []
    );
    assert_eq!(
        decide(Some(&pod("u")), &[], &waiting, POLICY, now(start, 5)),
        create("u")
    );
    let refused = Memory {
        refused: true,
        ..Memory::default()
    };
    assert_eq!(
        decide(Some(&pod("u")), &[], &refused, POLICY, now(start, 5)),
        []
    );
}

#[test]
fn a_deleted_pod_goes_after_its_group() {
    let start = Instant::now();
    let deleting = PodView {
        deleting: true,
        ..pod("u")
    };
    let mut living = group("g", "u", start);
    let memory = Memory {
        accepted_at: Some(start),
        ..Memory::default()
    };
    assert_eq!(
        decide(Some(&deleting), &[&living], &memory, POLICY, now(start, 1)),
        delete("g", "u")
    );
    living.terminating = true;
    assert_eq!(
        decide(Some(&deleting), &[&living], &memory, POLICY, now(start, 2)),
        []
    );
    let finish = vec![Action::Finish { uid: "u".into() }];
    assert_eq!(
        decide(Some(&deleting), &[], &memory, POLICY, now(start, 3)),
        finish
    );
    // A list that was begun before the cloud accepted the group proves nothing.
    let stale = Now {
        listed: Some(start - Duration::from_millis(1)),
        ..now(start, 3)
    };
    assert_eq!(decide(Some(&deleting), &[], &memory, POLICY, stale), []);
}

#[test]
fn a_group_without_a_pod_is_deleted_but_not_before_the_pods_are_known() {
    let start = Instant::now();
    let orphan = group("g", "gone", start);
    let memory = Memory::default();
    assert_eq!(
        decide(
            None,
            &[&orphan],
            &memory,
            POLICY,
            Now {
                pods_known: false,
                ..now(start, 9)
            }
        ),
        []
    );
    assert_eq!(decide(None, &[&orphan], &memory, POLICY, now(start, 2)), []);
    assert_eq!(
        decide(None, &[&orphan], &memory, POLICY, now(start, 3)),
        delete("g", "gone")
    );
}

#[test]
fn a_pod_whose_group_vanished_is_lost_after_a_while() {
    let start = Instant::now();
    let restarted = PodView {
        instance: Some("g".into()),
        ..pod("u")
    };
    let mut memory = Memory {
        absent_since: Some(start),
        ..Memory::default()
    };
    assert_eq!(
        decide(Some(&restarted), &[], &memory, POLICY, now(start, 3)),
        []
    );
    let lost = vec![Action::Lost { uid: "u".into() }];
    assert_eq!(
        decide(Some(&restarted), &[], &memory, POLICY, now(start, 4)),
        lost
    );
    // An accepted group is never made a second time, even when the pod does not show it yet.
    memory.absent_since = None;
    memory.accepted_at = Some(start);
    assert_eq!(
        decide(Some(&pod("u")), &[], &memory, POLICY, now(start, 9)),
        []
    );
}

#[test]
fn a_second_group_of_a_pod_is_deleted_whatever_the_order() {
    let start = Instant::now();
    let (first, second) = (
        group("g1", "u", start),
        group("g2", "u", start + Duration::from_secs(1)),
    );
    for groups in [[&first, &second], [&second, &first]] {
        assert_eq!(
            decide(
                Some(&pod("u")),
                &groups,
                &Memory::default(),
                POLICY,
                now(start, 5)
            ),
            delete("g2", "u")
        );
    }
    let written = PodView {
        instance: Some("g2".into()),
        ..pod("u")
    };
    assert_eq!(
        decide(
            Some(&written),
            &[&first, &second],
            &Memory::default(),
            POLICY,
            now(start, 5)
        ),
        delete("g1", "u")
    );
}

#[test]
fn an_ended_pod_is_left_as_it_is() {
    let start = Instant::now();
    let ended = PodView {
        ended: true,
        ..pod("u")
    };
    assert_eq!(
        decide(Some(&ended), &[], &Memory::default(), POLICY, now(start, 9)),
        []
    );
}

#[test]
fn a_group_that_still_costs_goes_when_its_pod_has_ended() {
    let start = Instant::now();
    let ended = PodView {
        ended: true,
        ..pod("u")
    };
    let what = |group: &GroupView| {
        decide(
            Some(&ended),
            &[group],
            &Memory::default(),
            POLICY,
            now(start, 9),
        )
    };
    let running = group("g", "u", start);
    assert_eq!(what(&running), delete("g", "u"));
    let over = GroupView {
        ended: true,
        ..running
    };
    assert_eq!(what(&over), [], "its record stays for logs");
}

#[test]
fn other_images_are_brought_into_a_living_group_only() {
    let start = Instant::now();
    let changed = PodView {
        images_changed: true,
        ..pod("u")
    };
    let what = |pod: &PodView, group: &GroupView| {
        decide(
            Some(pod),
            &[group],
            &Memory::default(),
            POLICY,
            now(start, 9),
        )
    };
    let living = group("g", "u", start);
    let update = Action::UpdateImages {
        uid: "u".into(),
        id: "g".into(),
    };
    assert_eq!(what(&changed, &living), [update]);
    assert_eq!(what(&pod("u"), &living), []);
    let over = GroupView {
        ended: true,
        ..living
    };
    assert_eq!(what(&changed, &over), []);
}

#[test]
fn tokens_are_renewed_in_a_living_group_when_nothing_else_is_to_be_done() {
    let start = Instant::now();
    let due = PodView {
        tokens_due: true,
        ..pod("u")
    };
    let what = |pod: &PodView, group: &GroupView, status_due: bool| {
        let memory = Memory {
            status_due,
            ..Memory::default()
        };
        decide(Some(pod), &[group], &memory, POLICY, now(start, 9))
    };
    let living = group("g", "u", start);
    let renew = Action::RenewTokens {
        uid: "u".into(),
        id: "g".into(),
    };
    assert_eq!(what(&due, &living, false), [renew]);
    let status = Action::WriteStatus { uid: "u".into() };
    assert_eq!(what(&due, &living, true), [status]);
    let going = GroupView {
        terminating: true,
        ..living.clone()
    };
    assert_eq!(what(&due, &going, false), []);
    let over = GroupView {
        ended: true,
        ..living
    };
    assert_eq!(what(&due, &over, false), []);
}

/// One thing that happens in the world on paper.
#[derive(Clone, Debug)]
enum Step {
    Make(u8),
    Remove(u8),
    /// The executor carries out everything; `lost` says whether answers of creations get lost after they had effect.
    Act {
        lost: bool,
    },
    /// Terminating groups vanish.
    Settle,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..6).prop_map(Step::Make),
        (0u8..6).prop_map(Step::Remove),
        any::<bool>().prop_map(|lost| Step::Act { lost }),
        Just(Step::Settle),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

#[derive(Default)]
struct World {
    pods: BTreeMap<String, PodView>,
    groups: Vec<GroupView>,
    memories: BTreeMap<String, Memory>,
    made: u32,
}

impl World {
    fn act(&mut self, now: Now, lost: bool) {
        for action in plan(&self.pods, &self.groups, &self.memories, POLICY, now) {
            match action {
                Action::Create { uid } => {
                    // The token makes a repetition find the first group.
                    if !self.groups.iter().any(|group| group.uid == uid) {
                        self.made += 1;
                        self.groups
                            .push(group(&format!("g{}", self.made), &uid, now.at));
                    }
                    if !lost {
                        self.memories.entry(uid).or_default().accepted_at = Some(now.at);
                    }
                }
                Action::Delete { id, .. } => {
                    self.groups
                        .iter_mut()
                        .filter(|group| group.id == id)
                        .for_each(|group| group.terminating = true);
                }
                Action::Finish { uid } => drop(self.pods.remove(&uid)),
                Action::Lost { uid } => self.pods.get_mut(&uid).unwrap().ended = true,
                Action::WriteStatus { .. }
                | Action::UpdateImages { .. }
                | Action::RenewTokens { .. } => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_doubled_and_nothing_leaks_whatever_gets_lost(steps in steps()) {
        let start = Instant::now();
        let mut world = World::default();
        let mut seconds = 0;
        for step in steps {
            seconds += 1;
            let now = now(start, seconds);
            match step {
                Step::Make(index) => { world.pods.entry(format!("u{index}")).or_insert_with(|| pod(&format!("u{index}"))); }
                Step::Remove(index) => {
                    if let Some(pod) = world.pods.get_mut(&format!("u{index}")) { pod.deleting = true; }
                }
                Step::Act { lost } => world.act(now, lost),
                Step::Settle => world.groups.retain(|group| !group.terminating),
                Step::Restart => world.memories.clear(),
            }
            for uid in world.pods.keys() {
                let living = world.groups.iter().filter(|group| group.uid == *uid && !group.terminating).count();
                prop_assert!(living <= 1, "{uid} has {living} groups");
            }
        }
        // Everything is removed in the end: nothing may be left in either list.
        for pod in world.pods.values_mut() { pod.deleting = true; }
        for _ in 0..6 {
            seconds += 4;
            world.act(now(start, seconds), false);
            world.groups.retain(|group| !group.terminating);
        }
        prop_assert!(world.pods.is_empty(), "{:?}", world.pods);
        prop_assert!(world.groups.is_empty(), "{:?}", world.groups);
    }
}

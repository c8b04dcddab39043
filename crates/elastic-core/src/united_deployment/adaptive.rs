//! Shares of subsets whose pods may find no place: they go to the next subset, for good or until there is room again.

use jiff::{SignedDuration, Timestamp};

use super::shares::in_order;
use crate::elastic_workload::Bounds;

/// How pods without a place are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptivePolicy {
    /// A pod without a place for this long goes elsewhere.
    pub critical_seconds: i64,
    /// A subset that had no place gets nothing for this long.
    pub unschedulable_seconds: i64,
    /// The pod goes on waiting while another stands in for it.
    pub reserve: bool,
}

impl AdaptivePolicy {
    /// Whether a pod that has had no place since then has waited for too long.
    pub fn is_overdue(&self, since: Timestamp, now: Timestamp) -> bool {
        self.due(since) <= now
    }

    /// When it will have.
    pub fn due(&self, since: Timestamp) -> Timestamp {
        after(since, self.critical_seconds)
    }
}

pub(crate) fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    moment
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// What is seen of one subset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubsetSight {
    /// Asked of its child.
    pub wanted: u32,
    /// Its active pods.
    pub pods: u32,
    /// Of them, ready ones.
    pub ready: u32,
    /// Of them, those without a place for too long.
    pub overdue: u32,
    /// Since when it is known to have no place.
    pub unschedulable_since: Option<Timestamp>,
}

impl SubsetSight {
    /// Overdue pods that nobody has taken back yet: a child that was lowered removes waiting pods first.
    fn stuck(&self) -> u32 {
        let leaving = self.pods.saturating_sub(self.wanted);
        self.overdue.saturating_sub(leaving).min(self.wanted)
    }
}

/// What to ask of the subsets now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapted {
    /// Of each subset, in their order.
    pub shares: Vec<u32>,
    /// Pods of each subset for which others stand in.
    pub reserved: Vec<u32>,
    /// Since when each subset has no place.
    pub unschedulable_since: Vec<Option<Timestamp>>,
    /// Replicas for which every subset is full.
    pub unplaced: u32,
    /// When a subset takes pods again.
    pub recheck: Option<Timestamp>,
}

/// Decides. The last subset is never without a place, because there is none after it.
pub fn adapt(
    replicas: u32,
    bounds: &[Bounds],
    sights: &[SubsetSight],
    policy: &AdaptivePolicy,
    now: Timestamp,
) -> Adapted {
    let mut adapted = Adapted::default();
    for (index, sight) in sights.iter().enumerate() {
        let since = if index + 1 == sights.len() {
            None
        } else {
            marked(sight, policy, now)
        };
        adapted.unschedulable_since.push(since);
        let ends = since.map(|since| after(since, policy.unschedulable_seconds));
        adapted.recheck = adapted.recheck.into_iter().chain(ends).min();
    }
    if policy.reserve {
        stand_in(replicas, bounds, sights, &mut adapted);
    } else {
        move_on(replicas, bounds, sights, &mut adapted);
    }
    adapted
}

/// Since when the subset is to be taken as one without a place.
fn marked(sight: &SubsetSight, policy: &AdaptivePolicy, now: Timestamp) -> Option<Timestamp> {
    let known = sight
        .unschedulable_since
        .filter(|since| after(*since, policy.unschedulable_seconds) > now);
    let none_waits = sight.overdue == 0 && sight.ready >= sight.wanted;
    if policy.reserve && none_waits {
        return None;
    }
    known.or((sight.stuck() > 0).then_some(now))
}

/// Waiting pods keep their place in the queue; each subset's missing ones run in the next one meanwhile.
fn stand_in(replicas: u32, bounds: &[Bounds], sights: &[SubsetSight], adapted: &mut Adapted) {
    let (own, unplaced) = in_order(replicas, bounds);
    let mut more = 0u32;
    for (index, (bounds, sight)) in bounds.iter().zip(sights).enumerate() {
        let room = bounds.max.unwrap_or(u32::MAX).saturating_sub(own[index]);
        let here = more.min(room);
        let share = own[index] + here;
        more -= here;
        let missing = match adapted.unschedulable_since[index] {
            Some(_) => share.saturating_sub(sight.ready),
            None => 0,
        };
        adapted.shares.push(share);
        adapted.reserved.push(missing);
        more = more.saturating_add(missing);
    }
    adapted.unplaced = unplaced;
}

/// Pods that find no place go on for good, so what runs elsewhere stays there: only the difference is given or taken.
fn move_on(replicas: u32, bounds: &[Bounds], sights: &[SubsetSight], adapted: &mut Adapted) {
    let closed: Vec<bool> = adapted
        .unschedulable_since
        .iter()
        .map(Option::is_some)
        .collect();
    let most = |index: usize| bounds[index].max.unwrap_or(u32::MAX);
    // A subset without a place reserves nothing until it is tried again.
    let least = |index: usize| match closed[index] {
        true => 0,
        false => bounds[index].min.min(most(index)),
    };
    let indices = 0..sights.len();
    let mut shares: Vec<u32> = Vec::with_capacity(sights.len());
    for (index, sight) in sights.iter().enumerate() {
        let moving = if closed[index] { sight.stuck() } else { 0 };
        shares.push((sight.wanted - moving).clamp(least(index), most(index)));
    }
    let total = |shares: &[u32]| shares.iter().copied().fold(0u32, u32::saturating_add);
    let mut over = total(&shares).saturating_sub(replicas);
    // Down: the last subset first, to its minimum; below minima only when there are fewer replicas than minima.
    for floor in [true, false] {
        for index in indices.clone().rev() {
            let floor = if floor { least(index) } else { 0 };
            let taken = shares[index].saturating_sub(floor).min(over);
            shares[index] -= taken;
            over -= taken;
        }
    }
    let mut missing = replicas.saturating_sub(total(&shares));
    // Up: in order, where there is a place; when there is none anywhere, where there is at least room by number.
    for open in [true, false] {
        for index in indices.clone().filter(|index| closed[*index] != open) {
            let given = most(index).saturating_sub(shares[index]).min(missing);
            shares[index] += given;
            missing -= given;
        }
    }
    adapted.unplaced = missing;
    adapted.reserved = vec![0; shares.len()];
    adapted.shares = shares;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: AdaptivePolicy = AdaptivePolicy {
        critical_seconds: 30,
        unschedulable_seconds: 300,
        reserve: false,
    };
    const RESERVE: AdaptivePolicy = AdaptivePolicy {
        reserve: true,
        ..POLICY
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn bounds(max: &[Option<u32>]) -> Vec<Bounds> {
        max.iter().map(|max| Bounds { min: 0, max: *max }).collect()
    }

    fn sight(wanted: u32, ready: u32, overdue: u32, since: Option<i64>) -> SubsetSight {
        SubsetSight {
            wanted,
            pods: wanted,
            ready,
            overdue,
            unschedulable_since: since.map(at),
        }
    }

    #[test]
    fn overdue_pods_go_on_for_good_and_the_subset_gets_nothing_until_it_is_tried_again() {
        let bounds = bounds(&[None, None]);
        // Six wanted on owned nodes, two find no place.
        let now = [sight(6, 4, 2, None), sight(0, 0, 0, None)];
        let adapted = adapt(6, &bounds, &now, &POLICY, at(30));
        assert_eq!(adapted.shares, [4, 2]);
        assert_eq!(adapted.unschedulable_since, [Some(at(30)), None]);
        assert_eq!(adapted.recheck, Some(at(330)));
        // The same again before the child has removed them moves no more.
        let again = [
            SubsetSight {
                pods: 6,
                ..sight(4, 4, 2, Some(30))
            },
            sight(2, 0, 0, None),
        ];
        assert_eq!(adapt(6, &bounds, &again, &POLICY, at(31)).shares, [4, 2]);
        // More are wanted while it is closed, and again after it was opened.
        let moved = [sight(4, 4, 0, Some(30)), sight(2, 2, 0, None)];
        assert_eq!(adapt(9, &bounds, &moved, &POLICY, at(100)).shares, [4, 5]);
        let open = adapt(9, &bounds, &moved, &POLICY, at(330));
        assert_eq!((open.shares, open.recheck), (vec![7, 2], None));
        // Nothing flows back by itself; on the way down the last goes first.
        assert_eq!(adapt(6, &bounds, &moved, &POLICY, at(900)).shares, [4, 2]);
        assert_eq!(adapt(3, &bounds, &moved, &POLICY, at(900)).shares, [3, 0]);
    }

    #[test]
    fn a_reserved_pod_waits_while_another_stands_in_and_goes_when_it_is_ready() {
        let bounds = bounds(&[Some(6), Some(1), None]);
        let waiting = [
            sight(6, 4, 2, None),
            sight(0, 0, 0, None),
            sight(0, 0, 0, None),
        ];
        let adapted = adapt(6, &bounds, &waiting, &RESERVE, at(30));
        assert_eq!(adapted.shares, [6, 1, 1]);
        assert_eq!(adapted.reserved, [2, 0, 0]);
        let half = [
            sight(6, 5, 1, Some(30)),
            sight(1, 1, 0, None),
            sight(1, 1, 0, None),
        ];
        let adapted = adapt(6, &bounds, &half, &RESERVE, at(60));
        assert_eq!(
            (adapted.shares, adapted.reserved),
            (vec![6, 1, 0], vec![1, 0, 0])
        );
        let back = [
            sight(6, 6, 0, Some(30)),
            sight(1, 1, 0, None),
            sight(0, 0, 0, None),
        ];
        let adapted = adapt(6, &bounds, &back, &RESERVE, at(90));
        assert_eq!(adapted.shares, [6, 0, 0]);
        assert_eq!(adapted.unschedulable_since, [None, None, None]);
    }

    #[test]
    fn the_last_subset_is_never_closed_and_minima_come_back_with_the_subset() {
        let bounds = [
            Bounds {
                min: 2,
                max: Some(4),
            },
            Bounds { min: 0, max: None },
        ];
        let stuck = [sight(2, 0, 2, None), sight(3, 0, 3, None)];
        let adapted = adapt(5, &bounds, &stuck, &POLICY, at(30));
        assert_eq!(adapted.shares, [0, 5]);
        assert_eq!(adapted.unschedulable_since, [Some(at(30)), None]);
        let later = [sight(0, 0, 0, Some(30)), sight(5, 5, 0, None)];
        assert_eq!(adapt(5, &bounds, &later, &POLICY, at(330)).shares, [2, 3]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want(u32),
        /// This many places are free in the first subset.
        Room(u32),
        Wait(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u32..40).prop_map(Step::Want),
            (0u32..20).prop_map(Step::Room),
            (1u32..400).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// Children and nodes do at once what they are asked to, as far as there is room.
    fn settle(shares: &[u32], rooms: &[u32], since: &[Option<Timestamp>]) -> Vec<SubsetSight> {
        let all = shares.iter().zip(rooms).zip(since);
        all.map(|((share, room), since)| {
            let ready = *share.min(room);
            SubsetSight {
                wanted: *share,
                pods: *share,
                ready,
                overdue: share - ready,
                unschedulable_since: *since,
            }
        })
        .collect()
    }

    proptest! {
        #[test]
        fn total_and_maxima_hold_in_any_sequence_and_everything_runs_at_rest(
            steps in steps(), max in 1u32..15, reserve in any::<bool>()
        ) {
            let bounds = bounds(&[Some(max), Some(max), None]);
            let policy = AdaptivePolicy { reserve, ..POLICY };
            let (mut wanted, mut room, mut now) = (1, 5, 0i64);
            let mut sights = vec![SubsetSight::default(); 3];
            let look = |wanted, room, now, sights: &mut Vec<SubsetSight>| {
                let adapted = adapt(wanted, &bounds, sights, &policy, at(now));
                *sights = settle(&adapted.shares, &[room, room, u32::MAX], &adapted.unschedulable_since);
                adapted
            };
            for step in steps {
                match step {
                    Step::Want(total) => wanted = total,
                    Step::Room(free) => room = free,
                    Step::Wait(seconds) => now += i64::from(seconds),
                }
                let adapted = look(wanted, room, now, &mut sights);
                prop_assert_eq!(adapted.unplaced, 0);
                prop_assert!(adapted.shares[0] <= max && adapted.shares[1] <= max);
                let total: u32 = adapted.shares.iter().sum();
                let reserved: u32 = adapted.reserved.iter().sum();
                if reserve {
                    prop_assert_eq!(total, wanted + reserved);
                } else {
                    prop_assert_eq!((total, reserved), (wanted, 0));
                }
            }
            for _ in 0..8 {
                now += 31;
                look(wanted, room, now, &mut sights);
            }
            let ready: u32 = sights.iter().map(|sight| sight.ready).sum();
            prop_assert_eq!(ready, wanted, "{:?}", sights);
            // With room again and time, reserved ones have come back to the first subsets, in order.
            for _ in 0..8 {
                now += 301;
                look(wanted, u32::MAX, now, &mut sights);
            }
            if reserve {
                prop_assert_eq!(sights[0].wanted, wanted.min(max));
                prop_assert_eq!(sights[1].wanted, wanted.saturating_sub(max).min(max));
            }
        }

        #[test]
        fn the_last_subset_loses_first(wanted in 1u32..40, less in 0u32..40, first in 0u32..20, second in 0u32..20) {
            let bounds = bounds(&[None, None]);
            let start = [sight(first, first, 0, None), sight(second, second, 0, None)];
            let before = adapt(wanted, &bounds, &start, &POLICY, at(0)).shares;
            let sights = settle(&before, &[u32::MAX; 2], &[None, None]);
            let after = adapt(wanted.saturating_sub(less), &bounds, &sights, &POLICY, at(1)).shares;
            prop_assert!(after[0] == before[0] || after[1] == 0);
        }
    }
}

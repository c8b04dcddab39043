//! What the fast path did to targets, on record in an annotation of the autoscaler: who decides for the same autoscaler
//! learns it there, be it the fast path itself after a restart or another replica, or the local cluster's own controller.
//!
//! Upstream's controller does not read it. A record that cannot be read counts as none: it only makes decisions calmer.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use serde::{Deserialize, Serialize};

use super::limits::Memory;
use crate::names::FAST_SCALINGS;

/// Scale calls on record; the oldest give way.
const SCALINGS_MOST: usize = 20;
/// No window and no policy's period is longer.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// One scale call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// When.
    pub at: Timestamp,
    /// The size before.
    pub from: i32,
    /// The size that was set.
    pub to: i32,
}

/// The scale calls on record, the oldest first.
pub fn scalings_of(annotations: Option<&BTreeMap<String, String>>) -> Vec<Scaling> {
    let text = annotations.and_then(|all| all.get(FAST_SCALINGS));
    let read = text.and_then(|text| serde_json::from_str::<Vec<Scaling>>(text).ok());
    let mut scalings = read.unwrap_or_default();
    scalings.sort_by_key(|scaling| scaling.at);
    scalings.truncate(SCALINGS_MOST);
    scalings
}

/// The record with one more scale call.
pub fn with_scaling(mut known: Vec<Scaling>, new: Scaling) -> Vec<Scaling> {
    known.retain(|scaling| scaling.at < new.at && new.at.duration_since(scaling.at) < REMEMBERED);
    let surplus = (known.len() + 1).saturating_sub(SCALINGS_MOST);
    known.drain(..surplus);
    known.push(new);
    known
}

impl Memory {
    /// Learns of scale calls that somebody else made for the same autoscaler: each counts as a recommendation of its
    /// size, and for rate policies. Those that were learnt before are passed over.
    pub fn learn(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        scalings: &[Scaling],
        now: Timestamp,
    ) {
        for scaling in scalings {
            // A clock that is ahead must not keep anything for longer than its window.
            let at = scaling.at.min(now);
            if self.learnt_until().is_none_or(|until| scaling.at > until)
                && now.duration_since(at) < REMEMBERED
            {
                self.recommended(scaling.to, at);
                self.rescaled(behavior, scaling.from, scaling.to, at);
                self.has_learnt(scaling.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::limits::Limits;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn scaling(second: i64, from: i32, to: i32) -> Scaling {
        Scaling {
            at: at(second),
            from,
            to,
        }
    }

    fn annotated(text: &str) -> Vec<Scaling> {
        let annotations = BTreeMap::from([(FAST_SCALINGS.to_owned(), text.to_owned())]);
        scalings_of(Some(&annotations))
    }

    fn limits(
        current: i32,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        second: i64,
    ) -> Limits<'_> {
        Limits {
            current,
            min: 1,
            max: 100,
            behavior,
            downscale_stabilization: SignedDuration::from_secs(300),
            now: at(second),
        }
    }

    #[test]
    fn what_the_fast_path_raised_is_not_lowered_before_the_window_has_passed() {
        for behavior in [None, Some(&HorizontalPodAutoscalerBehavior::default())] {
            let (mut memory, mut ignorant) = (Memory::default(), Memory::default());
            for memory in [&mut memory, &mut ignorant] {
                memory.see_initial(3, at(0));
                assert_eq!(memory.normalize(3, limits(3, behavior, 15)).replicas, 3);
            }
            memory.learn(behavior, &[scaling(20, 3, 6)], at(30));
            assert_eq!(ignorant.normalize(3, limits(6, behavior, 30)).replicas, 3);
            assert_eq!(memory.normalize(3, limits(6, behavior, 30)).replicas, 6);
            assert_eq!(memory.normalize(3, limits(6, behavior, 319)).replicas, 6);
            assert_eq!(memory.normalize(3, limits(6, behavior, 321)).replicas, 3);
        }
    }

    #[test]
    fn a_rate_policy_holds_across_a_restart_and_nothing_is_learnt_twice() {
        let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}
        }))
        .unwrap();
        let behavior = Some(&behavior);
        let record = [scaling(0, 2, 5)];
        let mut restarted = Memory::default();
        for _ in 0..3 {
            restarted.learn(behavior, &record, at(10));
        }
        restarted.see_initial(5, at(10));
        let raised = restarted.normalize(50, limits(5, behavior, 10)).replicas;
        assert_eq!(raised, 6, "four a minute, three of them are used up");
        let raised = restarted.normalize(50, limits(5, behavior, 61)).replicas;
        assert_eq!(raised, 9);
    }

    #[test]
    fn what_was_learnt_does_not_stand_for_the_size_at_first_sight() {
        let mut memory = Memory::default();
        memory.learn(None, &[scaling(0, 2, 4)], at(100));
        memory.see_initial(9, at(100));
        assert_eq!(memory.normalize(2, limits(9, None, 110)).replicas, 9);
    }

    #[test]
    fn the_record_is_short_and_an_unreadable_one_is_none() {
        let mut record = Vec::new();
        for second in 0..50 {
            record = with_scaling(record, scaling(second, 1, 2));
        }
        assert_eq!(record.len(), SCALINGS_MOST);
        assert_eq!(record.last(), Some(&scaling(49, 1, 2)));
        let record = with_scaling(record, scaling(4_000, 2, 3));
        assert_eq!(record, [scaling(4_000, 2, 3)]);
        for text in ["", "[]", "{}", "[{\"at\":\"soon\",\"from\":1,\"to\":2}]"] {
            assert!(annotated(text).is_empty(), "{text}");
        }
        assert!(scalings_of(None).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_recorded_is_read_back(steps in prop::collection::vec((0_i64..5_000, 0..100, 0..100), 0..60)) {
            let mut record = Vec::new();
            for (second, from, to) in steps {
                record = with_scaling(record, scaling(second, from, to));
            }
            prop_assert!(record.is_sorted_by_key(|scaling| scaling.at));
            let text = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(annotated(&text), record);
        }
    }
}

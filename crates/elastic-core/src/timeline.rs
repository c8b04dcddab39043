//! Where the seconds of a burst went: from stamped moments to seconds per step of the main path (DESIGN §5).
//!
//! Moments come from different objects and some may be missing; a step is shown only when both its ends are known, and
//! clocks that disagree give zero, never a negative time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Moments of one pod on its way to the cloud, as written into its annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMoments {
    /// The pod was made (whole seconds, from its metadata, unless something finer is known).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The virtual node saw it bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Timestamp>,
    /// The cloud was asked for the container group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Timestamp>,
    /// The cloud had accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
    /// The cloud had the last image, by its own word (whole seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<Timestamp>,
    /// All containers were seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Timestamp>,
    /// All were seen ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Timestamp>,
}

/// When a sample of a metric was taken and when the metrics API had it, as written into its annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleMoments {
    /// The sample ends here.
    pub sampled: Timestamp,
    /// From here on it was served.
    pub reported: Timestamp,
}

/// The newest sample that can have made the autoscaler set the scale at `scaled`. Samples that came later are left out.
pub fn sample_behind(samples: &[SampleMoments], scaled: Timestamp) -> Option<SampleMoments> {
    samples
        .iter()
        .filter(|sample| sample.reported <= scaled && sample.sampled <= sample.reported)
        .max_by_key(|sample| sample.sampled)
        .copied()
}

/// Everything known about one burst.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BurstMoments {
    /// The load rose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_rose: Option<Timestamp>,
    /// A metric crossed its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossed: Option<Timestamp>,
    /// The metrics API showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Timestamp>,
    /// The autoscaler set the scale; the moment the new number was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Timestamp>,
    /// Source and units had their shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distributed: Option<Timestamp>,
    /// Moments of the overflow's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodMoments>,
    /// The first request was served by an overflow pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_served: Option<Timestamp>,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Number in DESIGN §5.
    pub number: u8,
    /// What happened.
    pub name: String,
    /// When it was done.
    pub at: Timestamp,
    /// Since the step before that is known, for the first pod.
    pub milliseconds: i64,
    /// Since the first known moment.
    pub since_start_milliseconds: i64,
    /// For steps that pods take one by one: when the last pod had taken it, since the first known moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pod_milliseconds: Option<i64>,
}

impl BurstMoments {
    /// The same burst with the first and the last ready pod only, which is all that its steps show.
    pub fn condensed(mut self) -> Self {
        self.pods.sort_by_key(|pod| pod.ready);
        if self.pods.len() > 2 {
            let last = self.pods.pop();
            self.pods.truncate(1);
            self.pods.extend(last);
        }
        self
    }
}

/// The steps that are known, in order.
pub fn timeline(burst: &BurstMoments) -> Vec<Step> {
    type Get = fn(&PodMoments) -> Option<Timestamp>;
    let first = |get: Get| burst.pods.iter().filter_map(get).min();
    // A step counts as done by all only when every pod has taken it.
    let last = |get: Get| {
        burst
            .pods
            .iter()
            .map(get)
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max())
    };
    let of_pods: [(u8, &str, Get); 7] = [
        (6, "first overflow pod made", |pod| pod.created),
        (7, "bound to the virtual node", |pod| pod.bound),
        (8, "container group requested", |pod| pod.requested),
        (8, "container group accepted", |pod| pod.accepted),
        (9, "images pulled", |pod| pod.pulled),
        (9, "containers running", |pod| pod.running),
        (10, "ready", |pod| pod.ready),
    ];
    let before = [
        (1, "load rose", burst.load_rose),
        (2, "metric crossed its target", burst.crossed),
        (3, "metrics API reported it", burst.reported),
        (4, "scale set", burst.scaled),
        (5, "source and units given their shares", burst.distributed),
    ];
    let mut known: Vec<(u8, &str, Timestamp, Option<Timestamp>)> = before
        .into_iter()
        .filter_map(|(number, name, at)| Some((number, name, at?, None)))
        .collect();
    known.extend(
        of_pods
            .into_iter()
            .filter_map(|(number, name, get)| Some((number, name, first(get)?, last(get)))),
    );
    known.extend(
        burst
            .first_served
            .map(|at| (11, "first request served by overflow", at, None)),
    );
    let Some(start) = known.first().map(|step| step.2) else {
        return Vec::new();
    };
    let mut previous = start;
    known
        .into_iter()
        .map(|(number, name, at, last)| {
            // Pods' creation times have whole seconds and may lie before the step that caused them.
            let at = at.max(previous);
            let step = Step {
                number,
                name: name.to_owned(),
                at,
                milliseconds: between(previous, at),
                since_start_milliseconds: between(start, at),
                last_pod_milliseconds: last.map(|last| between(start, last.max(at))),
            };
            previous = at;
            step
        })
        .collect()
}

fn between(from: Timestamp, to: Timestamp) -> i64 {
    (to.as_millisecond() - from.as_millisecond()).max(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap())
    }

    fn pod(offset: i64) -> PodMoments {
        PodMoments {
            created: at(0),
            bound: at(120 + offset),
            requested: at(125 + offset),
            accepted: at(140 + offset),
            pulled: None,
            running: at(900 + offset),
            ready: at(1_000 + offset),
        }
    }

    #[test]
    fn every_known_step_gets_its_time() {
        let burst = BurstMoments {
            scaled: at(50),
            distributed: at(60),
            pods: vec![pod(0), pod(300)],
            first_served: at(1_020),
            ..BurstMoments::default()
        };
        let steps = timeline(&burst);
        let numbers: Vec<_> = steps
            .iter()
            .map(|step| (step.number, step.milliseconds))
            .collect();
        assert_eq!(
            numbers,
            [
                (4, 0),
                (5, 10),
                (6, 0),
                (7, 60),
                (8, 5),
                (8, 15),
                (9, 760),
                (10, 100),
                (11, 20)
            ]
        );
        assert_eq!(steps[7].last_pod_milliseconds, Some(1_250));
    }

    #[test]
    fn the_sample_behind_a_scale_is_the_newest_that_was_served_before_it() {
        let sample = |sampled, reported| SampleMoments {
            sampled: at(sampled).unwrap(),
            reported: at(reported).unwrap(),
        };
        let samples = [sample(0, 20), sample(900, 950), sample(1_900, 1_950)];
        let behind = |scaled| sample_behind(&samples, at(scaled).unwrap());
        assert_eq!(behind(1_000), Some(sample(900, 950)));
        assert_eq!(behind(940), Some(sample(0, 20)));
        assert_eq!(behind(10), None);
    }

    #[test]
    fn a_condensed_burst_keeps_the_first_and_the_last_pod() {
        let burst = BurstMoments {
            pods: vec![pod(200), pod(0), pod(700)],
            ..BurstMoments::default()
        };
        assert_eq!(burst.condensed().pods, [pod(0), pod(700)]);
    }

    #[test]
    fn a_pod_that_is_not_ready_leaves_the_last_one_open() {
        let burst = BurstMoments {
            scaled: at(0),
            pods: vec![
                pod(0),
                PodMoments {
                    ready: None,
                    ..pod(0)
                },
            ],
            ..BurstMoments::default()
        };
        let steps = timeline(&burst);
        let ready = steps.iter().find(|step| step.number == 10).unwrap();
        assert_eq!(ready.last_pod_milliseconds, None);
        assert_eq!(timeline(&BurstMoments::default()), []);
    }

    proptest! {
        #[test]
        fn the_steps_add_up_and_never_go_back(moments in proptest::collection::vec(proptest::option::of(-5_000i64..5_000), 5), offset in -500i64..500) {
            let get = |index: usize| moments[index].and_then(at);
            let burst = BurstMoments {
                load_rose: get(0), crossed: get(1), reported: get(2), scaled: get(3), distributed: get(4),
                pods: vec![pod(offset)], first_served: None,
            };
            let steps = timeline(&burst);
            let mut sum = 0;
            for step in &steps {
                prop_assert!(step.milliseconds >= 0);
                sum += step.milliseconds;
                prop_assert_eq!(step.since_start_milliseconds, sum);
            }
        }
    }
}

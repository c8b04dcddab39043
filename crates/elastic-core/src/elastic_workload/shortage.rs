//! A place that cannot get capacity: when it is short, how much it can get, and when it is tried again.
//!
//! Facts come from the pods themselves: the scheduler finds no node for them, or the cloud has no stock. A pod that fails
//! for its own reasons (a bad image, a crash) says nothing about capacity and is never counted.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// Failures further apart than this many times the patience are not the same shortage.
const FAILURE_WINDOW: i32 = 2;
/// The shortest window in which failed pods count, for when there is no patience at all.
const LEAST_WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Reasons of `ContainerInstanceCreated` that tell of progress, not of trouble.
const HARMLESS: [&str; 4] = [
    "Creating",
    "AutoInstanceTypeMatch",
    "MultiZoneRecommendations",
    "SpotDegraded",
];
/// Why the provider gave a pod up for good.
const PROVIDER_FAILURES: [&str; 2] = ["ProviderFailed", "ContainerInstanceScheduleFailed"];

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortagePolicy {
    /// A pod that waits longer for capacity passes its share on.
    pub reschedule_after: SignedDuration,
    /// A place that was short is tried again after this.
    pub recover_after: SignedDuration,
}

/// A place that is, or lately was, short. Kept in the status, so that a restart forgets nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    /// When it was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Replicas the place can get.
    pub capacity: i32,
    /// As the scheduler or the cloud says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the place was tried again; absent while it is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Time>,
}

impl Shortage {
    /// The most the place can get, while it is short.
    pub fn limit(&self) -> Option<u32> {
        (self.recovered.is_none()).then(|| u32::try_from(self.capacity).unwrap_or(0))
    }
}

/// A pod that has no place to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingPod {
    /// Since when.
    pub since: Timestamp,
    /// Whether it was given up for good; its successor is a pod of its own.
    pub failed: bool,
    /// What is said about it.
    pub reason: String,
}

/// The pods of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacePods {
    /// What the place was asked for.
    pub wanted: u32,
    /// Pods that are neither ended nor ending.
    pub living: u32,
    /// Of the living, the ready ones.
    pub ready: u32,
    /// The pods without capacity.
    pub waiting: Vec<WaitingPod>,
}

/// What is known of a place's capacity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// What to keep in the status.
    pub shortage: Option<Shortage>,
    /// When to look again without any other cause.
    pub look_again: Option<Timestamp>,
}

/// Whether `pod` waits for capacity, or failed for want of it.
pub fn waiting_pod(pod: &Pod) -> Option<WaitingPod> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let refused = |condition: &&PodCondition| condition.status == "False" && no_capacity(condition);
    let condition = status.conditions.iter().flatten().find(refused);
    let failed = status.phase.as_deref() == Some("Failed");
    if failed {
        let provider = status.reason.as_deref().unwrap_or_default();
        condition.filter(|_| PROVIDER_FAILURES.contains(&provider))?;
    } else if status
        .phase
        .as_deref()
        .is_some_and(|phase| phase != "Pending")
    {
        return None;
    }
    let condition = condition?;
    let transition = condition.last_transition_time.as_ref().map(|at| at.0);
    Some(WaitingPod {
        since: transition.or(created)?,
        failed,
        reason: condition.reason.clone().unwrap_or_default(),
    })
}

fn no_capacity(condition: &PodCondition) -> bool {
    let reason = condition.reason.as_deref().unwrap_or_default();
    match condition.type_.as_str() {
        "PodScheduled" => reason == "Unschedulable",
        "ContainerInstanceCreated" => !reason.is_empty() && !HARMLESS.contains(&reason),
        _ => false,
    }
}

/// Decides whether a place is short, from its pods and from what was known before.
pub fn assess(
    policy: &ShortagePolicy,
    pods: &PlacePods,
    before: Option<&Shortage>,
    now: Timestamp,
) -> Assessment {
    let since = before
        .and_then(|before| before.since.as_ref())
        .map(|at| at.0);
    let short = before.filter(|before| before.recovered.is_none());
    let try_again = since
        .filter(|_| short.is_some())
        .map(|since| later(since, policy.recover_after));
    if let (Some(short), Some(at)) = (short, try_again)
        && now < at
    {
        let capacity = stuck(policy, pods, None, now).map_or(short.capacity, |stuck| {
            short.capacity.min(remaining(pods, stuck.pods))
        });
        let shortage = Shortage {
            capacity,
            ..short.clone()
        };
        let look_again = earliest([Some(at), next_overdue(policy, pods, now)]);
        return Assessment {
            shortage: Some(shortage),
            look_again,
        };
    }
    let mut known = before.cloned();
    if let (Some(known), Some(_)) = (known.as_mut(), try_again) {
        known.recovered = Some(Time(now));
    }
    let recovered = known
        .as_ref()
        .and_then(|known| known.recovered.as_ref())
        .map(|at| at.0);
    match stuck(policy, pods, recovered, now) {
        Some(stuck) => Assessment {
            shortage: Some(Shortage {
                since: Some(Time(now)),
                capacity: remaining(pods, stuck.pods),
                reason: stuck.reason,
                recovered: None,
            }),
            look_again: Some(later(now, policy.recover_after)),
        },
        None => Assessment {
            shortage: known,
            look_again: next_overdue(policy, pods, now),
        },
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn earliest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}

struct Stuck {
    pods: u32,
    reason: String,
}

/// The pods whose time is up. Failures before `after` belong to an earlier shortage.
fn stuck(
    policy: &ShortagePolicy,
    pods: &PlacePods,
    after: Option<Timestamp>,
    now: Timestamp,
) -> Option<Stuck> {
    let overdue = |pod: &&WaitingPod| later(pod.since, policy.reschedule_after) <= now;
    let waiting: Vec<&WaitingPod> = pods
        .waiting
        .iter()
        .filter(|pod| !pod.failed)
        .filter(overdue)
        .collect();
    let window = (policy.reschedule_after * FAILURE_WINDOW).max(LEAST_WINDOW);
    let begin = after.into_iter().chain(now.checked_sub(window).ok()).max();
    let failures = pods.waiting.iter().filter(|pod| pod.failed);
    let failures: Vec<&WaitingPod> = failures
        .filter(|pod| begin.is_none_or(|begin| pod.since > begin))
        .collect();
    // Each pod that is given up for good is replaced at once, so only the row of failures tells how long it lasts.
    let failing = failures.iter().any(overdue);
    let count = if failing {
        pods.wanted.saturating_sub(pods.ready)
    } else {
        waiting.len().try_into().unwrap_or(u32::MAX)
    };
    let first = waiting.first().or(failures.first().filter(|_| failing))?;
    (count > 0).then(|| Stuck {
        pods: count,
        reason: first.reason.clone(),
    })
}

/// What the place can get when `stuck` pods cannot. Pods of a share that was lowered a moment ago may still be there, and
/// those of one that was raised not yet.
fn remaining(pods: &PlacePods, stuck: u32) -> i32 {
    let most = pods.living.max(pods.wanted);
    i32::try_from(most.saturating_sub(stuck)).unwrap_or(i32::MAX)
}

fn next_overdue(policy: &ShortagePolicy, pods: &PlacePods, now: Timestamp) -> Option<Timestamp> {
    let due = pods
        .waiting
        .iter()
        .map(|pod| later(pod.since, policy.reschedule_after));
    due.filter(|due| *due > now).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POLICY: ShortagePolicy = ShortagePolicy {
        reschedule_after: SignedDuration::from_secs(30),
        recover_after: SignedDuration::from_secs(300),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn waits(second: i64, failed: bool) -> WaitingPod {
        WaitingPod {
            since: at(second),
            failed,
            reason: "NoStock".into(),
        }
    }

    fn pods(wanted: u32, ready: u32, waiting: Vec<WaitingPod>) -> PlacePods {
        PlacePods {
            wanted,
            living: wanted,
            ready,
            waiting,
        }
    }

    fn limit(assessment: &Assessment) -> Option<u32> {
        assessment.shortage.as_ref().and_then(Shortage::limit)
    }

    #[test]
    fn a_pod_that_waits_too_long_makes_its_place_short_until_the_place_is_tried_again() {
        let place = pods(6, 4, vec![waits(0, false), waits(10, false)]);
        let early = assess(&POLICY, &place, None, at(29));
        assert_eq!((limit(&early), early.look_again), (None, Some(at(30))));
        let first = assess(&POLICY, &place, None, at(30));
        assert_eq!((limit(&first), first.look_again), (Some(5), Some(at(330))));
        // The second one's time is up ten seconds later; the place is not tried again later for that.
        let place = pods(5, 4, vec![waits(10, false)]);
        let second = assess(&POLICY, &place, first.shortage.as_ref(), at(40));
        assert_eq!(
            (limit(&second), second.look_again),
            (Some(4), Some(at(330)))
        );
        let settled = pods(4, 4, vec![]);
        let tried = assess(&POLICY, &settled, second.shortage.as_ref(), at(330));
        assert_eq!(limit(&tried), None);
        assert_eq!(tried.shortage.unwrap().recovered, Some(Time(at(330))));
    }

    #[test]
    fn a_place_that_is_tried_in_vain_is_short_again() {
        let recovered = Shortage {
            since: Some(Time(at(0))),
            capacity: 4,
            recovered: Some(Time(at(300))),
            ..Shortage::default()
        };
        let place = pods(6, 4, vec![waits(301, false), waits(301, false)]);
        let again = assess(&POLICY, &place, Some(&recovered), at(331));
        assert_eq!((limit(&again), again.look_again), (Some(4), Some(at(631))));
    }

    #[test]
    fn pods_of_a_share_that_was_just_lowered_do_not_lower_the_capacity_again() {
        let short = Shortage {
            since: Some(Time(at(30))),
            capacity: 4,
            ..Shortage::default()
        };
        let place = PlacePods {
            wanted: 4,
            living: 6,
            ready: 4,
            waiting: vec![waits(0, false), waits(0, false)],
        };
        assert_eq!(
            limit(&assess(&POLICY, &place, Some(&short), at(31))),
            Some(4)
        );
    }

    #[test]
    fn pods_given_up_at_once_count_by_their_row() {
        let row = vec![waits(0, true), waits(10, true), waits(25, true)];
        assert_eq!(
            limit(&assess(&POLICY, &pods(5, 2, row.clone()), None, at(29))),
            None
        );
        assert_eq!(
            limit(&assess(&POLICY, &pods(5, 2, row.clone()), None, at(30))),
            Some(2)
        );
        // An old failure is history, and so is one before the place was tried again.
        assert_eq!(
            limit(&assess(&POLICY, &pods(5, 2, row.clone()), None, at(90))),
            None
        );
        let recovered = Shortage {
            recovered: Some(Time(at(26))),
            ..Shortage::default()
        };
        assert_eq!(
            limit(&assess(&POLICY, &pods(5, 2, row), Some(&recovered), at(40))),
            None
        );
    }

    fn pod(status: serde_json::Value) -> Option<WaitingPod> {
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}, "status": status});
        waiting_pod(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_want_of_capacity_counts() {
        let condition = |kind: &str, reason: &str| json!([{"type": kind, "status": "False", "reason": reason, "lastTransitionTime": "2026-01-01T00:00:05Z"}]);
        let unschedulable = pod(
            json!({"phase": "Pending", "conditions": condition("PodScheduled", "Unschedulable")}),
        )
        .unwrap();
        assert_eq!(unschedulable.since, "2026-01-01T00:00:05Z".parse().unwrap());
        assert!(pod(json!({"phase": "Pending", "reason": "ProviderFailed", "conditions": condition("ContainerInstanceCreated", "NoStock")})).is_some());
        let failed = pod(
            json!({"phase": "Failed", "reason": "ProviderFailed", "conditions": condition("ContainerInstanceCreated", "NoStock")}),
        );
        assert!(failed.unwrap().failed);
        for (case, status) in [
            (
                "on its way",
                json!({"phase": "Pending", "conditions": condition("ContainerInstanceCreated", "Creating")}),
            ),
            (
                "nothing said yet",
                json!({"phase": "Pending", "conditions": condition("ContainerInstanceCreated", "")}),
            ),
            (
                "held back by a gate",
                json!({"phase": "Pending", "conditions": condition("PodScheduled", "SchedulingGated")}),
            ),
            (
                "crashed",
                json!({"phase": "Failed", "reason": "Error", "conditions": condition("Ready", "PodFailed")}),
            ),
            (
                "runs",
                json!({"phase": "Running", "conditions": condition("Ready", "ContainersNotReady")}),
            ),
        ] {
            assert_eq!(pod(status), None, "{case}");
        }
    }
}

//! How long a replica takes until it serves: as the user says, or as the workload's own pods took.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

/// Where nothing is said and nothing was seen.
const DEFAULT_SECONDS: i64 = 120;
/// Older pods say little about how the workload starts today.
const NEWEST: usize = 50;

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupSource {
    /// `spec.startupSeconds`.
    Spec,
    /// The target's pods.
    Measured,
    /// Neither.
    Default,
}

impl StartupSource {
    /// As the status has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spec => "Spec",
            Self::Measured => "Measured",
            Self::Default => "Default",
        }
    }
}

/// How long a replica takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup {
    /// From the pod's creation until it is ready.
    pub seconds: i64,
    /// Where that comes from.
    pub source: StartupSource,
}

/// What the user says counts; otherwise the median of the newest pods that are ready, which a pod that was unready for a while
/// does not move.
pub fn startup(said: Option<i32>, pods: &[Pod]) -> Startup {
    if let Some(seconds) = said {
        return Startup {
            seconds: i64::from(seconds),
            source: StartupSource::Spec,
        };
    }
    let mut taken: Vec<(Timestamp, i64)> = pods.iter().filter_map(taken).collect();
    taken.sort_unstable_by(|one, other| other.cmp(one));
    let mut seconds: Vec<i64> = taken.iter().take(NEWEST).map(|(_, taken)| *taken).collect();
    seconds.sort_unstable();
    match seconds.get(seconds.len() / 2) {
        Some(median) => Startup {
            seconds: *median,
            source: StartupSource::Measured,
        },
        None => Startup {
            seconds: DEFAULT_SECONDS,
            source: StartupSource::Default,
        },
    }
}

/// When a pod was created, and how long it took until it was ready. A restarted one says how long the restart took.
fn taken(pod: &Pod) -> Option<(Timestamp, i64)> {
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let status = pod.status.as_ref()?;
    let mut containers = status.container_statuses.iter().flatten();
    if containers.any(|container| container.restart_count > 0) {
        return None;
    }
    let ready = status.conditions.iter().flatten();
    let ready = ready
        .filter(|condition| condition.type_ == "Ready" && condition.status == "True")
        .find_map(|condition| condition.last_transition_time.as_ref())?;
    let seconds = ready.0.as_second() - created.as_second();
    (seconds >= 0).then_some((created, seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pod(created: i64, ready_after: Option<i64>, restarts: i32) -> Pod {
        let time = |second: i64| json!(Timestamp::from_second(second).unwrap().to_string());
        let condition = match ready_after {
            Some(after) => {
                json!({"type": "Ready", "status": "True", "lastTransitionTime": time(created + after)})
            }
            None => {
                json!({"type": "Ready", "status": "False", "lastTransitionTime": time(created)})
            }
        };
        let value: Value = json!({
            "metadata": {"name": "web", "creationTimestamp": time(created)},
            "status": {
                "conditions": [condition],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": restarts}]
            }
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_said_counts_then_what_was_seen_then_the_default() {
        let pods = [
            pod(0, Some(40), 0),
            pod(10, Some(50), 0),
            pod(20, Some(3_000), 0),
            pod(30, None, 0),
            pod(40, Some(1), 7),
        ];
        let measured = Startup {
            seconds: 50,
            source: StartupSource::Measured,
        };
        assert_eq!(
            startup(None, &pods),
            measured,
            "one that was unready for a while does not move it"
        );
        let said = Startup {
            seconds: 7,
            source: StartupSource::Spec,
        };
        assert_eq!(startup(Some(7), &pods), said);
        assert_eq!(startup(None, &pods[3..]).source, StartupSource::Default);
    }

    #[test]
    fn the_newest_pods_say_how_the_workload_starts_today() {
        let old = (0..100).map(|number| pod(number, Some(300), 0));
        let new = (1_000..1_050).map(|number| pod(number, Some(20), 0));
        let pods: Vec<Pod> = old.chain(new).collect();
        assert_eq!(startup(None, &pods).seconds, 20);
    }

    proptest! {
        #[test]
        fn the_measure_is_one_that_was_seen(after in proptest::collection::vec(0..5_000_i64, 1..80)) {
            let pods: Vec<Pod> = after.iter().enumerate().map(|(at, after)| pod(at as i64, Some(*after), 0)).collect();
            prop_assert!(after.contains(&startup(None, &pods).seconds));
        }
    }
}

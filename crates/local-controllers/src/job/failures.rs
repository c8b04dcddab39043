//! What a failed pod means for its Job: the rules of its pod failure policy, and how long to wait before the next try.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::shared::objects::{name, namespace, phase};

const BACKOFF_FIRST_SECONDS: u64 = 10;
const BACKOFF_MAX_SECONDS: u64 = 600;

/// What the policy says about one failed pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Consequence {
    /// It counts.
    Count,
    /// It does not count and is made again.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The whole Job has failed, with this message.
    FailJob(String),
}

/// Applies the policy; the first rule that matches decides.
pub fn consequence(job: &Job, pod: &Pod) -> Consequence {
    let policy = job
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_failure_policy.as_ref());
    let rules = policy
        .map(|policy| policy.rules.as_slice())
        .unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(what) = matched(rule, pod) else {
            continue;
        };
        return match rule.action.as_str() {
            "Ignore" => Consequence::Ignore,
            "FailIndex" => Consequence::FailIndex,
            "FailJob" => {
                Consequence::FailJob(format!("{what} matching FailJob rule at index {index}"))
            }
            _ => Consequence::Count,
        };
    }
    Consequence::Count
}

/// What of the pod a rule matched, in words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let about = format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata));
    if let Some(codes) = &rule.on_exit_codes {
        return containers(pod).find_map(|container| {
            let is_meant = codes
                .container_name
                .as_ref()
                .is_none_or(|wanted| *wanted == container.name);
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let is_listed = codes.values.contains(&code);
            let is_match = if codes.operator == "In" {
                is_listed
            } else {
                !is_listed
            };
            (is_meant && code != 0 && is_match).then(|| {
                format!(
                    "Container {} for pod {about} failed with exit code {code}",
                    container.name
                )
            })
        });
    }
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    rule.on_pod_conditions.iter().flatten().find_map(|pattern| {
        let wanted = pattern.status.as_str();
        let has = conditions
            .into_iter()
            .flatten()
            .any(|one| one.type_ == pattern.type_ && one.status == wanted);
        has.then(|| format!("Pod {about} has condition {}", pattern.type_))
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        status.container_statuses.iter().flatten().chain(init)
    })
}

/// How often the containers of pods that still run were started again.
pub fn restarts(pods: &[Arc<Pod>]) -> i32 {
    let is_alive = |pod: &&Arc<Pod>| matches!(phase(pod), "Running" | "Pending");
    let of_pod = |pod: &Arc<Pod>| containers(pod).map(|one| one.restart_count).sum::<i32>();
    pods.iter().filter(is_alive).map(of_pod).sum()
}

/// How long to wait before a failed pod is tried again: ten seconds, doubled with each failure since the last success.
pub fn remaining_backoff(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
    let finished = |wanted: &'static str| {
        let of_phase = pods.iter().filter(move |pod| phase(pod) == wanted);
        of_phase.map(|pod| finish_time(pod).unwrap_or(now))
    };
    let last_success = finished("Succeeded").max();
    let failures: Vec<Timestamp> = finished("Failed")
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let (Some(last), Ok(count)) = (failures.iter().max(), u32::try_from(failures.len())) else {
        return Duration::ZERO;
    };
    let doubled = BACKOFF_FIRST_SECONDS.saturating_mul(1 << (count - 1).min(10));
    let wait = Duration::from_secs(doubled.min(BACKOFF_MAX_SECONDS));
    let passed = Duration::try_from(now.duration_since(*last)).unwrap_or_default();
    wait.saturating_sub(passed)
}

/// When the last container of a pod ended.
fn finish_time(pod: &Pod) -> Option<Timestamp> {
    let ended = containers(pod)
        .filter_map(|one| {
            one.state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()
        })
        .map(|time| time.0)
        .max();
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let unready = || {
        let ready = conditions?.iter().find(|one| one.type_ == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ended.or_else(deleted).or_else(unready)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ended(code: i32, at: &str, conditions: Value) -> Arc<Pod> {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n"},
                "status": {"phase": phase, "conditions": conditions, "containerStatuses": [
                    {"name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                     "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let job: Job = serde_json::from_value(json!({"spec": {"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3], "containerName": "other"}},
            {"action": "Count", "onExitCodes": {"operator": "In", "values": [4]}},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [5]}}]}}}))
        .unwrap();
        let at = "2026-11-21T11:00:00Z";
        let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        let message =
            "Container c for pod n/p failed with exit code 3 matching FailJob rule at index 3";
        for (pod, expected) in [
            (ended(3, at, disrupted), Consequence::Ignore),
            (
                ended(3, at, json!([])),
                Consequence::FailJob(message.to_owned()),
            ),
            (ended(4, at, json!([])), Consequence::Count),
            (ended(5, at, json!([])), Consequence::Count),
        ] {
            assert_eq!(consequence(&job, &pod), expected);
        }
    }

    #[test]
    fn the_wait_doubles_with_each_failure_since_the_last_success() {
        let now = "2026-11-21T11:00:30Z".parse().unwrap();
        let failed = |at: &str| ended(1, at, json!([]));
        let mut pods = vec![failed("2026-11-21T11:00:25Z")];
        assert_eq!(remaining_backoff(&pods, now).as_secs(), 5);
        pods.push(failed("2026-11-21T11:00:10Z"));
        assert_eq!(remaining_backoff(&pods, now).as_secs(), 15);
        pods.push(ended(0, "2026-11-21T11:00:15Z", json!([])));
        assert_eq!(remaining_backoff(&pods, now).as_secs(), 5);
        pods.push(ended(0, "2026-11-21T11:00:29Z", json!([])));
        assert_eq!(remaining_backoff(&pods, now), Duration::ZERO);
    }
}

//! What happened in the cluster during a demo, as plain data: pods by tier, second by second and moment by moment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// Where a pod runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Owned,
    Serverless,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    Created,
    Ready,
    Deleting,
    Gone,
}

/// One step of one pod, in the order in which the watch told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    pub at: Timestamp,
    pub pod: String,
    pub tier: Tier,
    pub step: Step,
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub second: f64,
    pub owned: u32,
    pub owned_ready: u32,
    pub serverless: u32,
    pub serverless_ready: u32,
    /// In the price list's currency.
    pub owned_cost_per_hour: f64,
    pub serverless_cost_per_hour: f64,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    tier: Option<Tier>,
    ready: bool,
    deleting: bool,
}

/// Follows a watch over pods.
#[derive(Default)]
pub struct Recorder {
    pods: BTreeMap<String, Seen>,
    pub moments: Vec<Moment>,
}

/// Pods of a unit carry the label that routes them; everything else is owned.
pub fn tier(pod: &Pod) -> Tier {
    let serverless = pod
        .metadata
        .labels
        .iter()
        .flatten()
        .any(|(key, value)| key == "alibabacloud.com/eci" && value == "true");
    if serverless {
        Tier::Serverless
    } else {
        Tier::Owned
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

impl Recorder {
    /// A pod was added or changed.
    pub fn applied(&mut self, pod: &Pod, now: Timestamp) {
        let Some(name) = pod.metadata.name.clone() else {
            return;
        };
        let tier = tier(pod);
        let seen = self.pods.entry(name.clone()).or_default();
        let mut steps = Vec::new();
        if seen.tier.replace(tier).is_none() {
            steps.push(Step::Created);
        }
        if is_ready(pod) && !std::mem::replace(&mut seen.ready, is_ready(pod)) {
            steps.push(Step::Ready);
        }
        seen.ready = is_ready(pod);
        if pod.metadata.deletion_timestamp.is_some() && !std::mem::replace(&mut seen.deleting, true)
        {
            steps.push(Step::Deleting);
        }
        let moments = steps.into_iter().map(|step| Moment {
            at: now,
            pod: name.clone(),
            tier,
            step,
        });
        self.moments.extend(moments);
    }

    /// A pod is gone.
    pub fn deleted(&mut self, pod: &Pod, now: Timestamp) {
        let Some(name) = pod.metadata.name.clone() else {
            return;
        };
        if self.pods.remove(&name).is_some() {
            self.moments.push(Moment {
                at: now,
                pod: name,
                tier: tier(pod),
                step: Step::Gone,
            });
        }
    }

    /// Pods and ready pods of a tier right now; deleted ones do not count.
    pub fn count(&self, tier: Tier) -> (u32, u32) {
        let of_tier = self
            .pods
            .values()
            .filter(|seen| seen.tier == Some(tier) && !seen.deleting);
        of_tier.fold((0, 0), |(all, ready), seen| {
            (all + 1, ready + u32::from(seen.ready))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(serverless: bool, ready: bool, deleting: bool) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": if serverless { json!({"alibabacloud.com/eci": "true"}) } else { json!({}) }},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap();
        if deleting {
            pod.metadata.deletion_timestamp = Some(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
            );
        }
        pod
    }

    #[test]
    fn each_step_of_a_pod_is_told_once() {
        let mut recorder = Recorder::default();
        let now = Timestamp::UNIX_EPOCH;
        for state in [
            pod(true, false, false),
            pod(true, false, false),
            pod(true, true, false),
            pod(true, true, true),
            pod(true, false, true),
        ] {
            recorder.applied(&state, now);
        }
        assert_eq!(recorder.count(Tier::Serverless), (0, 0));
        recorder.deleted(&pod(true, false, true), now);
        let steps: Vec<Step> = recorder.moments.iter().map(|moment| moment.step).collect();
        assert_eq!(
            steps,
            [Step::Created, Step::Ready, Step::Deleting, Step::Gone]
        );
    }
}

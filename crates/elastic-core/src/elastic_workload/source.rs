//! What kind of workload the source is, and how its numbers and those of its units are read.
//!
//! Sources and units are objects as the API has them, so that fields this program does not know are carried along.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use super::rollout::{CountOrPercent, RolloutBudget, RolloutState, rollout_budget};
use super::{Bounds, ChildState, ElasticUnit, SourceTarget};

/// Label of the pods of a Job.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// What a Deployment does when its strategy says nothing.
const DEFAULT_SHARE: CountOrPercent = CountOrPercent::Percent(25);
/// A partition no ordinal reaches; it stops a StatefulSet's rollout.
pub(super) const STOPPED_PARTITION: i32 = i32::MAX;

/// The kinds a source can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `batch/v1` Job that works on a queue; its parallelism is distributed.
    Job,
}

impl SourceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::Job];

    /// The kind a spec names, if it is one of ours.
    pub fn of(target: &SourceTarget) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.kind() == target.kind && kind.api_version() == target.api_version)
    }

    /// `apps/v1` or `batch/v1`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "apps/v1",
            Self::Job => "batch/v1",
        }
    }

    /// As in manifests.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
        }
    }

    /// As in sentences, and as `kubectl` takes it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::Job => "job",
        }
    }

    /// For a client.
    pub fn api_resource(self) -> ApiResource {
        let (group, version) = self.api_version().split_once('/').unwrap_or_default();
        let kind = GroupVersionKind::gvk(group, version, self.kind());
        ApiResource::from_gvk_with_plural(&kind, &format!("{}s", self.noun()))
    }

    /// The member of `spec` with the number of pods.
    pub fn replicas_field(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "replicas",
            Self::Job => "parallelism",
        }
    }

    /// What the object asks for. Without the field it is one.
    pub fn wanted(self, object: &DynamicObject) -> u32 {
        let value = &object.data["spec"][self.replicas_field()];
        if value.is_null() { 1 } else { count(value) }
    }

    /// Pods that exist and are not ending, and the ready ones.
    pub fn counts(self, object: &DynamicObject) -> (u32, u32) {
        let status = &object.data["status"];
        match self {
            Self::Job => (count(&status["active"]), count(&status["ready"])),
            Self::Deployment | Self::StatefulSet => {
                (count(&status["replicas"]), count(&status["readyReplicas"]))
            }
        }
    }

    /// The object's own numbers.
    pub fn state(self, object: &DynamicObject) -> ChildState {
        let terminating = match self {
            Self::Job => &object.data["status"]["terminating"],
            Self::Deployment | Self::StatefulSet => &object.data["status"]["terminatingReplicas"],
        };
        let (pods, ready) = self.counts(object);
        ChildState {
            wanted: self.wanted(object),
            pods: pods.saturating_add(count(terminating)),
            ready,
            max: None,
        }
    }

    /// Where the object stands with its template. Whether it is behind its source is for the caller to say.
    pub fn rollout(self, object: &DynamicObject) -> RolloutState {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let pods = count(&status["replicas"]);
        let mut state = RolloutState {
            wanted: self.wanted(object),
            pods,
            updated: count(&status["updatedReplicas"]),
            available: count(&status["availableReplicas"]),
            settled: status["observedGeneration"].as_i64() >= object.metadata.generation,
            ..RolloutState::default()
        };
        match self {
            Self::Deployment => state.paused = spec["paused"] == true,
            Self::StatefulSet => {
                let strategy = &spec["updateStrategy"];
                state.paused = strategy["rollingUpdate"]["partition"] == STOPPED_PARTITION;
                if strategy["type"] == "OnDelete" {
                    // Nothing rolls by itself, so nobody has to wait for it.
                    (state.updated, state.settled) = (pods, true);
                }
            }
            // The template of a Job never changes.
            Self::Job => (state.pods, state.settled) = (0, true),
        }
        state
    }

    /// The strategy of the source, applied to `total` replicas.
    pub fn budget(self, source: &DynamicObject, total: u32) -> RolloutBudget {
        let spec = &source.data["spec"];
        let everything = RolloutBudget {
            surge: 0,
            unavailable: total.max(1),
        };
        let nothing = CountOrPercent::Count(0);
        let one = CountOrPercent::Count(1);
        match self {
            Self::Deployment if spec["strategy"]["type"] == "Recreate" => everything,
            Self::Deployment => {
                let rolling = &spec["strategy"]["rollingUpdate"];
                let share =
                    |name: &str| CountOrPercent::parse(&rolling[name]).unwrap_or(DEFAULT_SHARE);
                rollout_budget(share("maxSurge"), share("maxUnavailable"), total)
            }
            Self::StatefulSet if spec["updateStrategy"]["type"] == "OnDelete" => everything,
            Self::StatefulSet => {
                let most = &spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
                rollout_budget(nothing, CountOrPercent::parse(most).unwrap_or(one), total)
            }
            Self::Job => everything,
        }
    }

    /// What selects the pods of the source and of `units` together.
    pub fn selector(self, source: &DynamicObject, units: &[String]) -> LabelSelector {
        if self != Self::Job {
            return serde_json::from_value(source.data["spec"]["selector"].clone())
                .unwrap_or_default();
        }
        let names = std::iter::once(source.name_any()).chain(units.iter().cloned());
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: JOB_NAME_LABEL.to_owned(),
                operator: "In".to_owned(),
                values: Some(names.collect()),
            }]),
            match_labels: None,
        }
    }

    /// Whether the work is over; a finished Job makes no more pods.
    pub fn is_finished(self, object: &DynamicObject) -> bool {
        let conditions = object.data["status"]["conditions"].as_array();
        self == Self::Job
            && conditions.into_iter().flatten().any(|condition| {
                condition["status"] == "True"
                    && (condition["type"] == "Complete" || condition["type"] == "Failed")
            })
    }
}

fn count(value: &Value) -> u32 {
    u32::try_from(value.as_i64().unwrap_or(0)).unwrap_or(0)
}

/// The bounds of the source. A source that gives neither `min` nor `max` is a template only and runs nothing itself:
/// that is the documented "units only" form, in which the units name every place where pods may be.
pub fn bounds_of_source(source: &SourceTarget) -> Bounds {
    match (source.min, source.max) {
        (None, None) => Bounds {
            min: 0,
            max: Some(0),
        },
        (min, max) => bounds(min, max),
    }
}

/// The bounds of a unit; no `max` means no limit.
pub fn bounds_of_unit(unit: &ElasticUnit) -> Bounds {
    bounds(unit.min, unit.max)
}

fn bounds(min: Option<i32>, max: Option<i32>) -> Bounds {
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    Bounds {
        min: count(min.unwrap_or(0)),
        max: max.map(count),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_kind_says_its_numbers_in_its_own_words() {
        let deployment = object(json!({
            "metadata": {"name": "web", "generation": 3}, "spec": {"replicas": 4},
            "status": {"replicas": 5, "readyReplicas": 3, "terminatingReplicas": 1, "updatedReplicas": 2, "availableReplicas": 3, "observedGeneration": 2}
        }));
        let kind = SourceKind::Deployment;
        assert_eq!(
            kind.state(&deployment),
            ChildState {
                wanted: 4,
                pods: 6,
                ready: 3,
                max: None
            }
        );
        let rollout = kind.rollout(&deployment);
        assert_eq!(
            (rollout.updated, rollout.settled, rollout.paused),
            (2, false, false)
        );
        let job = object(
            json!({"metadata": {"name": "crawl"}, "spec": {"parallelism": 8}, "status": {"active": 6, "ready": 5, "terminating": 1}}),
        );
        assert_eq!(
            SourceKind::Job.state(&job),
            ChildState {
                wanted: 8,
                pods: 7,
                ready: 5,
                max: None
            }
        );
        assert_eq!(
            SourceKind::Job.wanted(&object(json!({"metadata": {}, "spec": {}}))),
            1
        );
    }

    #[test]
    fn the_budget_follows_the_strategy() {
        let of = |kind: SourceKind, spec: Value| {
            let budget = kind.budget(&object(json!({"metadata": {}, "spec": spec})), 20);
            (budget.surge, budget.unavailable)
        };
        let (deployment, stateful) = (SourceKind::Deployment, SourceKind::StatefulSet);
        assert_eq!(of(deployment, json!({})), (5, 5));
        let rolling = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": "10%"}}});
        assert_eq!(of(deployment, rolling), (2, 2));
        assert_eq!(
            of(deployment, json!({"strategy": {"type": "Recreate"}})),
            (0, 20)
        );
        assert_eq!(of(stateful, json!({})), (0, 1));
        assert_eq!(
            of(stateful, json!({"updateStrategy": {"type": "OnDelete"}})),
            (0, 20)
        );
    }

    #[test]
    fn pods_of_jobs_are_selected_by_the_names_of_their_jobs() {
        let job = object(json!({"metadata": {"name": "crawl"}, "spec": {}}));
        let selector = SourceKind::Job.selector(&job, &["crawl-unit-vk".to_owned()]);
        let text = kube::core::Selector::try_from(selector)
            .unwrap()
            .to_string();
        assert_eq!(
            text,
            "batch.kubernetes.io/job-name in (crawl,crawl-unit-vk)"
        );
    }

    #[test]
    fn only_a_job_can_be_finished() {
        let ended = |kind: &str| {
            object(
                json!({"metadata": {}, "status": {"conditions": [{"type": kind, "status": "True"}]}}),
            )
        };
        assert!(SourceKind::Job.is_finished(&ended("Complete")));
        assert!(!SourceKind::Job.is_finished(&ended("Suspended")));
        assert!(!SourceKind::Deployment.is_finished(&ended("Failed")));
    }
}

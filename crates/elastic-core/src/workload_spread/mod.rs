//! The kind `WorkloadSpread`: gives the pods of one workload to subsets of the nodes, in order, without changing the workload.
//!
//! Field names are those of the product it comes from, so that existing manifests work unchanged. A pod is given to a subset
//! when it is created; which pods go first later is said by their deletion cost.

mod cost;
mod crd;
mod enter;
mod validation;

pub use cost::{SpreadPod, deletion_costs};
pub use crd::custom_resource_definition;
pub use enter::{Match, enter, matched, subset_of_node, takes_pods_somewhere};
pub use validation::{validate, validate_against};

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, PreferredSchedulingTerm, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::assignment::Place;
use crate::elastic_workload::Bounds;
use crate::united_deployment::{after, amount};

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.kruise.io",
    version = "v1alpha1",
    kind = "WorkloadSpread",
    plural = "workloadspreads",
    shortname = "ws",
    namespaced,
    status = "WorkloadSpreadStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpreadSpec {
    /// The workload whose pods are spread.
    #[serde(default)]
    pub target_ref: TargetReference,
    /// Only some of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_filter: Option<TargetFilter>,
    /// The subsets, in the order in which they fill.
    #[serde(default)]
    pub subsets: Vec<SpreadSubset>,
    /// What happens to pods that find no place.
    #[serde(default)]
    pub schedule_strategy: SpreadStrategy,
}

/// A workload in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl TargetReference {
    /// The group, without the version.
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// Whether its pods belong to ReplicaSets, which are the only ones that honour a deletion cost.
    pub fn honours_cost(&self) -> bool {
        self.group() == "apps" && matches!(self.kind.as_str(), "Deployment" | "ReplicaSet")
    }

    /// Whether it rolls from one ReplicaSet to another, each of which is spread by itself.
    pub fn is_deployment(&self) -> bool {
        self.group() == "apps" && self.kind == "Deployment"
    }
}

/// Only some pods of the workload, such as those of one role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetFilter {
    /// Their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Where in the workload their number is; several are added up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas_path_list: Vec<String>,
}

/// One subset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpreadSubset {
    /// Its name.
    pub name: String,
    /// Nodes of the subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_node_selector_term: Option<NodeSelectorTerm>,
    /// Nodes of the subset that are liked best.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selector_terms: Vec<PreferredSchedulingTerm>,
    /// Added to the pods' tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Filled before others go beyond their own minimum, as a number or a percentage of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<IntOrString>,
    /// Most pods here, as a number or a percentage of all; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<IntOrString>,
    /// Strategic merge patch on the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

/// What happens to pods that find no place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpreadStrategy {
    /// `Fixed`, which is the default, or `Adaptive`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// With `Adaptive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<SpreadAdaptive>,
}

/// How long to wait for a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpreadAdaptive {
    /// Subsets that no node fits are skipped unless this says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_simulation_schedule: Option<bool>,
    /// A pod without a place for this long is deleted and its subset skipped; never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reschedule_critical_seconds: Option<i32>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpreadStatus {
    /// Generation of the spec that the rest is from.
    pub observed_generation: i64,
    /// Replicas of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_workload_replicas: Option<i32>,
    /// Each subset, for the newest revision of the workload.
    pub subset_statuses: Vec<SpreadSubsetStatus>,
    /// Each subset by revision, while a Deployment rolls.
    pub versioned_subset_statuses: BTreeMap<String, Vec<SpreadSubsetStatus>>,
    /// Whether all is well, and why not.
    pub conditions: Vec<Condition>,
}

/// One subset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpreadSubsetStatus {
    /// Its name.
    pub name: String,
    /// Pods it has.
    pub replicas: i32,
    /// Pods it still takes; -1 without a limit.
    pub missing_replicas: i32,
    /// Pods that were given to it and have not been seen yet, by the call that created them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub creating_pods: BTreeMap<String, Time>,
    /// Pods that are ending.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub deleting_pods: BTreeMap<String, Time>,
    /// `SubsetUnschedulable`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Condition of a subset that is skipped.
pub const SUBSET_UNSCHEDULABLE: &str = "SubsetUnschedulable";
/// A skipped subset is tried again after this.
pub const RECOVER_SECONDS: i64 = 300;
/// A pod that was given to a subset and has not been seen for this long will not come.
pub const CREATING_SECONDS: i64 = 30;
/// Revision of workloads that are not told apart by revision.
pub const NO_VERSION: &str = "versionIgnored";

impl WorkloadSpreadSpec {
    /// Whether pods without a place are moved.
    pub fn is_adaptive(&self) -> bool {
        self.schedule_strategy.type_.as_deref() == Some("Adaptive")
    }

    /// After how long a pod without a place is moved; never when absent.
    pub fn critical_seconds(&self) -> Option<i64> {
        let adaptive = self.schedule_strategy.adaptive.as_ref()?;
        let seconds = adaptive.reschedule_critical_seconds.map(i64::from);
        seconds.filter(|_| self.is_adaptive())
    }

    /// Whether subsets that no node fits are skipped.
    pub fn simulates(&self) -> bool {
        let adaptive = self.schedule_strategy.adaptive.as_ref();
        let disabled = adaptive.and_then(|adaptive| adaptive.disable_simulation_schedule);
        self.is_adaptive() && disabled != Some(true)
    }

    /// Whether any subset has a limit, so that pods have to be counted.
    pub fn counts(&self) -> bool {
        let limited =
            |subset: &SpreadSubset| subset.max_replicas.is_some() || subset.min_replicas.is_some();
        self.subsets.iter().any(limited)
    }

    /// Least and most pods of each subset, of a workload with so many replicas.
    pub fn bounds(&self, replicas: u32) -> Vec<Bounds> {
        let count = |written: &Option<IntOrString>| {
            let amount = written.as_ref().and_then(|written| amount(written).ok());
            amount.map(|amount| amount.of(replicas))
        };
        let bounds = self.subsets.iter().map(|subset| Bounds {
            min: count(&subset.min_replicas).unwrap_or(0),
            max: count(&subset.max_replicas),
        });
        bounds.collect()
    }

    /// Whether any limit is a percentage.
    pub fn has_percentages(&self) -> bool {
        let all = self
            .subsets
            .iter()
            .flat_map(|subset| [&subset.min_replicas, &subset.max_replicas]);
        all.flatten()
            .any(|written| matches!(written, IntOrString::String(_)))
    }
}

impl WorkloadSpreadStatus {
    /// Since when a subset is skipped, unless its time is over.
    pub fn skipped_since(&self, subset: &str, now: Timestamp) -> Option<Timestamp> {
        let mut known = self.subset_statuses.iter();
        let known = known.find(|known| known.name == subset)?;
        let mut conditions = known.conditions.iter();
        let condition =
            conditions.find(|one| one.type_ == SUBSET_UNSCHEDULABLE && one.status == "True")?;
        let since = condition.last_transition_time.0;
        (after(since, RECOVER_SECONDS) > now).then_some(since)
    }

    /// Pods of a revision that were given to a subset and are still to come: those not seen, and not too long ago.
    pub fn creating(
        &self,
        version: &str,
        subset: &str,
        seen: &[String],
        now: Timestamp,
    ) -> BTreeMap<String, Time> {
        let known = self.versioned_subset_statuses.get(version);
        let mut known = known.into_iter().flatten();
        let known = known.find(|known| known.name == subset);
        let creating = known.map(|known| known.creating_pods.clone());
        let mut creating = creating.unwrap_or_default();
        creating.retain(|id, since| !seen.contains(id) && after(since.0, CREATING_SECONDS) > now);
        creating
    }
}

/// The subsets as places, with the pods they have.
pub fn places(
    spec: &WorkloadSpreadSpec,
    status: &WorkloadSpreadStatus,
    pods: &[u32],
    replicas: u32,
    now: Timestamp,
) -> Vec<Place> {
    let bounds = spec.bounds(replicas);
    let all = spec.subsets.iter().zip(bounds).zip(pods);
    all.map(|((subset, bounds), pods)| Place {
        bounds,
        pods: *pods,
        open: status.skipped_since(&subset.name, now).is_none(),
    })
    .collect()
}

//! The kind `UnitedDeployment`: one workload of several child workloads, one for each subset of the nodes.
//!
//! Field names are those of the product it comes from, so that existing manifests work unchanged. Refused by name are
//! templates of kinds that only that product serves, and partial updates of Deployments.

mod adaptive;
mod child;
mod crd;
mod shares;
mod validation;

pub(crate) use adaptive::after;
pub use adaptive::{Adapted, AdaptivePolicy, SubsetSight, adapt};
pub use child::{ChildKind, child_is_current, child_name, derive_child};
pub use crd::custom_resource_definition;
pub(crate) use shares::{Amount, amount};
pub use shares::{elastic_bounds, share};
pub use validation::validate;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.kruise.io",
    version = "v1alpha1",
    kind = "UnitedDeployment",
    plural = "uniteddeployments",
    shortname = "ud",
    namespaced,
    status = "UnitedDeploymentStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct UnitedDeploymentSpec {
    /// Replicas of all subsets together; 1 when absent. `scale` and the autoscaler change this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods of all subsets.
    pub selector: LabelSelector,
    /// What a child workload is made from.
    #[serde(default)]
    pub template: SubsetTemplate,
    /// The subsets.
    #[serde(default)]
    pub topology: Topology,
    /// How children are updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Old revisions that each child keeps, unless its template says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
}

/// Exactly one of the templates. They are kept as written and read where they are used, so that one that cannot be read
/// is told on its own object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubsetTemplate {
    /// Children are Deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_template: Option<Value>,
    /// Children are StatefulSets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set_template: Option<Value>,
    /// Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_set_template: Option<Value>,
    /// Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_stateful_set_template: Option<Value>,
}

/// The subsets, in the order in which they fill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// The subsets.
    #[serde(default)]
    pub subsets: Vec<Subset>,
    /// What happens to pods that find no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_strategy: Option<ScheduleStrategy>,
}

/// One subset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// Nodes of the subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector_term: Option<NodeSelectorTerm>,
    /// Added to the pods' tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// A fixed number or a percentage of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<IntOrString>,
    /// Reserved here, as a number or a percentage of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<IntOrString>,
    /// Most replicas here, as a number or a percentage of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<IntOrString>,
    /// Strategic merge patch on the pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

/// What happens to pods that find no place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStrategy {
    /// `Fixed`, which is the default, or `Adaptive`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// With `Adaptive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveStrategy>,
}

/// How long to wait for a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdaptiveStrategy {
    /// A pod without a place for this long goes elsewhere; 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reschedule_critical_seconds: Option<i32>,
    /// A subset that had no place gets nothing for this long; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable_duration: Option<i32>,
    /// Older name of `unschedulable_duration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable_last_seconds: Option<i32>,
    /// The pod goes on waiting, and a temporary one runs elsewhere until it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_unschedulable_pods: Option<bool>,
}

/// How children are updated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// `Manual`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// With `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual_update: Option<ManualUpdate>,
}

/// Pods that keep the old template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManualUpdate {
    /// By subset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitions: BTreeMap<String, i32>,
}

/// What was found and asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitedDeploymentStatus {
    /// Generation of the spec that the numbers are from.
    pub observed_generation: i64,
    /// Pods that exist, without those that only stand in for others.
    pub replicas: i32,
    /// Ready pods.
    pub ready_replicas: i32,
    /// Pods of the newest template.
    pub updated_replicas: i32,
    /// Pods that wait for a place while others stand in for them.
    pub reserved_pods: i32,
    /// Asked of each subset.
    pub subset_replicas: BTreeMap<String, i32>,
    /// Each subset, in the order of the spec.
    pub subset_statuses: Vec<SubsetStatus>,
    /// All pods, as the text that `scale` shows.
    pub label_selector: String,
    /// Whether all is well, and why not.
    pub conditions: Vec<Condition>,
}

/// One subset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubsetStatus {
    /// Its name.
    pub name: String,
    /// Pods that exist.
    pub replicas: i32,
    /// Ready pods.
    pub ready_replicas: i32,
    /// Pods that keep the old template.
    #[serde(skip_serializing_if = "is_zero")]
    pub partition: i32,
    /// Pods that wait for a place while others stand in for them.
    #[serde(skip_serializing_if = "is_zero")]
    pub reserved_pods: i32,
    /// `Schedulable`: whether the subset takes new pods.
    pub conditions: Vec<Condition>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Condition of a subset: whether it takes new pods.
pub const SCHEDULABLE: &str = "Schedulable";

impl UnitedDeploymentSpec {
    /// The policy for pods without a place; none when the strategy is fixed.
    pub fn adaptive(&self) -> Option<AdaptivePolicy> {
        let strategy = self.topology.schedule_strategy.as_ref()?;
        if strategy.type_.as_deref() != Some("Adaptive") {
            return None;
        }
        let given = strategy.adaptive.clone().unwrap_or_default();
        let duration = given
            .unschedulable_duration
            .or(given.unschedulable_last_seconds);
        Some(AdaptivePolicy {
            critical_seconds: i64::from(given.reschedule_critical_seconds.unwrap_or(30)),
            unschedulable_seconds: i64::from(duration.unwrap_or(300)),
            reserve: given.reserve_unschedulable_pods.unwrap_or(false),
        })
    }

    /// The partition of a subset.
    pub fn partition(&self, subset: &str) -> i32 {
        let manual = self
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.manual_update.as_ref());
        let partition = manual.and_then(|manual| manual.partitions.get(subset));
        partition.copied().unwrap_or(0)
    }
}

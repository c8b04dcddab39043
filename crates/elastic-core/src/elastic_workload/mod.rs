//! The kind `ElasticWorkload`: a few replicas on nodes you own, the rest on serverless units.
//!
//! Field names are those of the closed component, so that existing manifests work unchanged.

mod condition;
mod crd;
mod distribution;
mod plan;
mod source;
mod unit;
mod validation;

pub use condition::{ConditionStatus, set_condition};
pub use crd::custom_resource_definition;
pub use distribution::{Bounds, Distribution, distribute};
pub use plan::{ChildAction, ChildState, HoldReason, ScalePlan, ScaleState, plan_scale};
pub use source::{bounds_of_source, bounds_of_unit};
pub use unit::{UnitError, derive_unit, unit_is_current, unit_name};
pub use validation::{FieldError, validate};

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use crate::timeline::BurstMoments;

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.alibabacloud.com",
    version = "v1beta1",
    kind = "ElasticWorkload",
    plural = "elasticworkloads",
    shortname = "ew",
    namespaced,
    status = "ElasticWorkloadStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ElasticWorkloadSpec {
    /// Replicas of the source and all units together; this is what `scale` and the autoscaler change.
    /// Absent means: whatever the source has when it is first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The workload that runs on owned nodes and is the template of every unit.
    pub source_target: SourceTarget,
    /// Where replicas beyond the source's `max` go, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elastic_unit: Vec<ElasticUnit>,
}

/// The workload on owned nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTarget {
    /// Always `apps/v1`.
    pub api_version: String,
    /// Always `Deployment`.
    pub kind: String,
    /// Name, in the ElasticWorkload's own namespace.
    pub name: String,
    /// Replicas the source keeps while units take the others away from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// Most replicas on owned nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
}

/// One target of the overflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElasticUnit {
    /// Becomes part of the unit Deployment's name.
    pub name: String,
    /// Replicas kept here always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i32>,
    /// Most replicas here; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
    /// Added to the pods' labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Added to the pods' annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Replaces the pods' node selector when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Added to the pods' tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Replaces the pods' affinity when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElasticWorkloadStatus {
    /// Pods of the source and all units.
    #[serde(default)]
    pub replicas: i32,
    /// Ready pods of the source and all units.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The source's selector as text; it matches the pods of all units too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What was last asked of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_target: Option<SourceTargetStatus>,
    /// What was last asked of each unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elastic_units_status: Vec<ElasticUnitStatus>,
    /// The last change of the number of replicas, for the timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<ScaleMoments>,
    /// Moments of the last rise whose overflow became ready, kept for when its pods are gone: those of the first and
    /// the last pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_burst: Option<BurstMoments>,
    /// `Ready`, `SourceFound`, `Valid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What was last asked of the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTargetStatus {
    /// As in the spec.
    pub api_version: String,
    /// As in the spec.
    pub kind: String,
    /// As in the spec.
    pub name: String,
    /// Replicas asked for.
    pub desired_replicas: i32,
    /// When that number last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_timestamp: Option<Time>,
}

/// What was last asked of one unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElasticUnitStatus {
    /// The unit's name.
    pub name: String,
    /// Replicas asked for.
    pub desired_replicas: i32,
    /// When that number last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_timestamp: Option<Time>,
}

/// Moments of the last change of `spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleMoments {
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// When the new number was first seen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<MicroTime>,
    /// When the source and the units had been asked for their shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_at: Option<MicroTime>,
    /// When the newest sample of the pods' use was taken that the autoscaler can have seen; absent when the metrics API
    /// does not say so, or nobody asked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_at: Option<MicroTime>,
    /// When the metrics API had that sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<MicroTime>,
}

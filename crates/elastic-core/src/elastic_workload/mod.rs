//! The kind `ElasticWorkload`: a few replicas on nodes you own, the rest on serverless units.
//!
//! Field names are those of the closed component, so that existing manifests work unchanged.

mod condition;
mod crd;
mod decision;
mod difference;
mod distribution;
mod explain;
mod overrides;
mod plan;
mod rollout;
mod shortage;
#[cfg(test)]
mod simulation;
mod source;
mod source_mark;
mod status;
mod unit;
mod validation;

pub use condition::{ConditionStatus, set_condition};
pub use crd::custom_resource_definition;
pub use decision::{Decision, Observed, OverflowPolicy, decide};
pub use difference::UnitDifference;
pub(crate) use difference::{contains, fingerprint};
pub use distribution::{Bounds, Distribution, Place, distribute, distribute_places};
pub use explain::{PlaceFacts, explain, until};
pub use plan::{ChildAction, ChildState, HoldReason, ScalePlan, ScaleState, plan_scale};
pub use rollout::{
    CountOrPercent, HeldBy, RolloutBudget, RolloutState, RolloutStep, plan_rollout, rollout_budget,
};
pub use shortage::{
    Assessment, PlacePods, Shortage, ShortagePolicy, WaitingPod, assess, waiting_pod,
};
pub use source::{SourceKind, bounds_of_source, bounds_of_unit};
pub use source_mark::{SourceMark, last_scaler};
pub use status::{ElasticUnitStatus, ElasticWorkloadStatus, ScaleMoments, SourceTargetStatus};
pub use unit::{UnitError, UnitWrite, derive_unit, unit_difference, unit_name, unit_write};
pub use validation::{FieldError, validate};

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Toleration;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Seconds until a place that was short is tried again, unless the spec says otherwise.
pub const DEFAULT_RECOVER_AFTER_SECONDS: i32 = 300;

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
    /// A pod that waits longer than this for capacity passes its share on to the next place. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reschedule_after_seconds: Option<i32>,
    /// A place that was short is tried again after this; [`DEFAULT_RECOVER_AFTER_SECONDS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_after_seconds: Option<i32>,
    /// Whether running replicas return to an earlier place that has room again. Absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<bool>,
}

impl ElasticWorkloadSpec {
    /// What the spec asks for, when `replicas` is the total.
    pub fn policy(&self, replicas: u32) -> OverflowPolicy {
        let seconds = |seconds: i32| SignedDuration::from_secs(i64::from(seconds));
        let recover_after = self
            .recover_after_seconds
            .unwrap_or(DEFAULT_RECOVER_AFTER_SECONDS);
        OverflowPolicy {
            replicas,
            source: bounds_of_source(&self.source_target),
            units: self.elastic_unit.iter().map(bounds_of_unit).collect(),
            shortage: self
                .reschedule_after_seconds
                .map(|reschedule_after| ShortagePolicy {
                    reschedule_after: seconds(reschedule_after),
                    recover_after: seconds(recover_after),
                }),
            rebalance: self.rebalance.unwrap_or(true),
        }
    }
}

/// The workload on owned nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTarget {
    /// `apps/v1`, or `batch/v1` for a Job.
    pub api_version: String,
    /// `Deployment`, `StatefulSet` or `Job`.
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
    /// Becomes part of the name of the unit's workload.
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
    /// Replaces the pods' affinity when present. This and the following are read when the unit is derived, so that a
    /// mistake is told by its field and concerns nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Value>,
    /// The container that `image`, `env` and `resources` are for; the first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Variables, added or replaced by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Value>,
    /// Requests and limits, replaced one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// A strategic merge patch of the pod template, applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

//! What the status of an ElasticWorkload says.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use serde::{Deserialize, Serialize};

use super::Shortage;
use crate::timeline::BurstMoments;

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
    /// The units with what was last asked of each, in one line; a printed column shows one value only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit_summary: String,
    /// The last change of the number of replicas, for the timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<ScaleMoments>,
    /// Moments of the last rise whose overflow became ready, kept for when its pods are gone: those of the first and
    /// the last pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_burst: Option<BurstMoments>,
    /// `Ready`, `SourceFound`, `Valid`, `Placed`, `RolledOut`, `HandScaled`.
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
    /// Replicas that belong here; `desiredReplicas` follows when its time has come.
    #[serde(default)]
    pub wanted_replicas: i32,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Of these, the ready ones.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The last time it could not get capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Shortage>,
    /// `Ready`: what was wanted, what is, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
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
    /// Replicas that belong here; `desiredReplicas` follows when its time has come.
    #[serde(default)]
    pub wanted_replicas: i32,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Of these, the ready ones.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The last time it could not get capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Shortage>,
    /// `Ready`: what was wanted, what is, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
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

//! The kind `ResourcePolicy`: gives the pods of a namespace to units of the cluster's resources, in order.
//!
//! Field names are those of the product it comes from, so that existing manifests work unchanged. There a scheduler of its
//! own decides; here a pod gets its unit when it is created, or waits behind a scheduling gate until a unit takes it, so any
//! scheduler will do. Which pods go first later is said by their deletion cost.

mod choice;
mod crd;
mod enter;
mod validation;

pub use choice::{Choice, Patience, UnitState, choose, patience, room_after};
pub use crd::custom_resource_definition;
pub use enter::{Match, allows, enter, is_waiting, leave_alone, matched, unit_of_node, wait};
pub use validation::{unhonoured, validate};

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::elastic_workload::Bounds;
use crate::united_deployment::after;

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "scheduling.alibabacloud.com",
    version = "v1alpha1",
    kind = "ResourcePolicy",
    plural = "resourcepolicies",
    shortname = "rp",
    namespaced,
    status = "ResourcePolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcePolicySpec {
    /// Labels of the pods; all pods of the namespace when empty.
    pub selector: BTreeMap<String, String>,
    /// `prefer`, the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// The units, in the order in which they fill.
    pub units: Vec<Unit>,
    /// When pods of lower priority make room: `AfterAllUnits` or `BeforeNextUnit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preempt_policy: Option<String>,
    /// Whether pods older than the policy do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_previous_pod: Option<bool>,
    /// Whether pods that are ending do not count; they do not when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_terminating_pod: Option<bool>,
    /// Maxima hold for each group of pods that agree in these labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_label_keys: Vec<String>,
    /// When a pod goes on to the next unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_try_next_units: Option<WhenTryNextUnits>,
    /// What is not known here, to be refused by name.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// One unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// `ecs`, `elastic` or `eci`.
    pub resource: String,
    /// Labels of its nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Most pods; no limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
    /// Written on its pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Written on its pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
    /// What is not known here, to be refused by name.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// When a pod goes on to the next unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WhenTryNextUnits {
    /// One of four; `LackResourceOrExceedMax` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// With `TimeoutOrExceedMax`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What is not known here, to be refused by name.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// When a pod goes on to the next unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryNext {
    /// When the unit has no room for it, or has its maximum.
    LackResourceOrExceedMax,
    /// When the unit has its maximum, or none is set.
    ExceedMax,
    /// When the unit has its maximum, or after this long without room.
    TimeoutOrExceedMax(SignedDuration),
    /// As the first, but not while pods of the unit are ending.
    LackResourceAndNoTerminating,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcePolicyStatus {
    /// Generation of the spec that the rest is from.
    pub observed_generation: i64,
    /// Each unit's pods in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Pods that no unit takes now.
    pub waiting_pods: i32,
    /// Each unit, all groups together.
    pub units: Vec<UnitStatus>,
    /// Each unit by group of pods; one group, [`ALL`], without `matchLabelKeys`.
    pub groups: BTreeMap<String, Vec<UnitStatus>>,
    /// Whether all is well, and why not.
    pub conditions: Vec<Condition>,
}

/// One unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitStatus {
    /// Its key; see [`ResourcePolicySpec::keys`].
    pub unit: String,
    /// Pods it has, without those that are ending.
    pub pods: i32,
    /// Those that have a node.
    pub bound_pods: i32,
    /// Pods that are ending.
    pub terminating_pods: i32,
    /// Most it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
    /// Pods that were given to it and have not been seen yet, by the call that created them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub creating_pods: BTreeMap<String, Time>,
    /// [`UNIT_SHORT`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Condition of a unit without room, which is skipped.
pub const UNIT_SHORT: &str = "UnitShort";
/// A skipped unit is tried again after this.
pub const RETRY_SECONDS: i64 = 60;
/// A pod that was given to a unit and has not been seen for this long will not come.
pub const CREATING_SECONDS: i64 = 30;
/// The group of all pods.
pub const ALL: &str = "*";
/// Of [`WhenTryNextUnits::timeout`].
pub const DEFAULT_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
/// Entry of `podLabels` that is an order to wait for new nodes and never written on pods.
pub const WAIT_FOR_SCALING: &str = "k8s.aliyun.com/resource-policy-wait-for-ecs-scaling";

impl Unit {
    /// Whether it is on virtual nodes.
    pub fn is_virtual(&self) -> bool {
        self.resource == "eci"
    }

    /// Whether nodes may be added to it on demand, which pods wait for.
    pub fn waits_for_scaling(&self) -> bool {
        self.resource == "elastic"
            || self.pod_labels.get(WAIT_FOR_SCALING).map(String::as_str) == Some("true")
    }

    /// Most pods it takes.
    pub fn most(&self) -> Option<u32> {
        self.max.map(|max| u32::try_from(max).unwrap_or(0))
    }
}

impl ResourcePolicySpec {
    /// Whether pods older than the policy do not count.
    pub fn ignores_previous(&self) -> bool {
        self.ignore_previous_pod == Some(true)
    }

    /// Whether pods that are ending do not count.
    pub fn ignores_terminating(&self) -> bool {
        self.ignore_terminating_pod != Some(false)
    }

    /// When a pod goes on.
    ///
    /// # Errors
    /// The field below `whenTryNextUnits`, and what is wrong with it.
    pub fn try_next(&self) -> Result<TryNext, (&'static str, String)> {
        let written = self.when_try_next_units.clone().unwrap_or_default();
        let timeout = match written.timeout.as_deref() {
            None | Some("") => DEFAULT_TIMEOUT,
            Some(text) => match text.parse::<SignedDuration>() {
                Ok(timeout) if !timeout.is_negative() => timeout,
                _ => {
                    let reason =
                        format!("{text:?} is no time; expected one such as 90s, 1m or 1h30m");
                    return Err(("timeout", reason));
                }
            },
        };
        Ok(match written.policy.as_deref() {
            None | Some("" | "LackResourceOrExceedMax") => TryNext::LackResourceOrExceedMax,
            Some("ExceedMax") => TryNext::ExceedMax,
            Some("TimeoutOrExceedMax") => TryNext::TimeoutOrExceedMax(timeout),
            Some("LackResourceAndNoTerminating") => TryNext::LackResourceAndNoTerminating,
            Some(other) => {
                let reason = format!(
                    "{other:?} is none of LackResourceOrExceedMax, ExceedMax, TimeoutOrExceedMax and LackResourceAndNoTerminating"
                );
                return Err(("policy", reason));
            }
        })
    }

    /// Names of the units that stay the same when units are put in another order: resource and node labels, and a number
    /// where several say the same.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            let labels: Vec<String> = unit
                .node_selector
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let mut key = unit.resource.clone();
            if !labels.is_empty() {
                key = format!("{key}/{}", labels.join(","));
            }
            let plain = key.clone();
            let mut number = 1;
            while keys.contains(&key) {
                number += 1;
                key = format!("{plain}#{number}");
            }
            keys.push(key);
        }
        keys
    }

    /// Whether any unit has a maximum, so that pods have to be counted.
    pub fn counts(&self) -> bool {
        self.units.iter().any(|unit| unit.max.is_some())
    }

    /// Least and most pods of each unit.
    pub fn bounds(&self) -> Vec<Bounds> {
        let bounds = |unit: &Unit| Bounds {
            min: 0,
            max: unit.most(),
        };
        self.units.iter().map(bounds).collect()
    }

    /// Whether a pod with these labels is meant.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.selector.iter();
        wanted.all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The group of a pod with these labels.
    ///
    /// # Errors
    /// The label that it lacks.
    pub fn group(&self, labels: &BTreeMap<String, String>) -> Result<String, String> {
        if self.match_label_keys.is_empty() {
            return Ok(ALL.to_owned());
        }
        let mut parts = Vec::with_capacity(self.match_label_keys.len());
        for key in &self.match_label_keys {
            let value = labels.get(key).ok_or_else(|| key.clone())?;
            parts.push(format!("{key}={value}"));
        }
        Ok(parts.join(","))
    }

    /// The selector of a group's pods, as lists take it.
    pub fn list_selector(&self, group: &str) -> String {
        let own = self
            .selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let mut all: Vec<String> = own.collect();
        if group != ALL {
            all.push(group.to_owned());
        }
        all.join(",")
    }
}

impl ResourcePolicyStatus {
    /// Since when a unit is skipped, unless its time is over.
    pub fn skipped_since(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let known = self.units.iter().find(|known| known.unit == key)?;
        let mut conditions = known.conditions.iter();
        let condition = conditions.find(|one| one.type_ == UNIT_SHORT && one.status == "True")?;
        let since = condition.last_transition_time.0;
        (after(since, RETRY_SECONDS) > now).then_some(since)
    }

    /// Pods of a group that were given to a unit and are still to come: those not seen, and not too long ago.
    pub fn creating(
        &self,
        group: &str,
        key: &str,
        seen: &[String],
        now: Timestamp,
    ) -> BTreeMap<String, Time> {
        let mut known = self.groups.get(group).into_iter().flatten();
        let known = known.find(|known| known.unit == key);
        let mut creating = known
            .map(|known| known.creating_pods.clone())
            .unwrap_or_default();
        creating.retain(|id, since| !seen.contains(id) && after(since.0, CREATING_SECONDS) > now);
        creating
    }
}

//! A unit, derived from the source: the same pods in another place.
//!
//! Its pods carry the source's labels, so that Services keep selecting them, and one more, so that the unit's and the
//! source's controllers never claim each other's pods. Replicas and rollout are not part of the derivation; they are
//! decided in `plan` and `rollout`, and [`unit_write`] puts all three into at most one write.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::DynamicObject;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::difference::{UnitDifference, difference, fingerprint};
use super::overrides::{member, object, unit_template};
use super::rollout::{RolloutBudget, RolloutStep};
use super::source::STOPPED_PARTITION;
use super::{ElasticWorkload, SourceKind};
use crate::names::{DERIVED_FROM_ANNOTATION, SOURCE_LABEL, UNIT_LABEL, WORKLOAD_LABEL};

/// Labels a Job's controller puts on Jobs and pods.
const JOB_LABELS: [&str; 4] = [
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

/// Why no unit can be derived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The source has no usable spec.
    #[error("{0} has no spec to derive from")]
    NoSpec(String),
    /// The source is one that cannot be shared between places.
    #[error("spec.sourceTarget: {noun} {name} cannot be distributed: {reason}")]
    Source {
        /// What it is.
        noun: &'static str,
        /// Its name.
        name: String,
        /// The field, what is wrong with it and what would be right.
        reason: String,
    },
    /// An override would take the pods out of the source's selector.
    #[error("{field}: {label} is part of the source's selector and must stay {value:?}")]
    SelectorLabel {
        /// Path from the object's root.
        field: String,
        /// The label.
        label: String,
        /// The value in the selector.
        value: String,
    },
    /// An override cannot be applied.
    #[error("{field}: {reason}")]
    Field {
        /// Path from the object's root.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl UnitError {
    pub(super) fn field(field: String, reason: impl Into<String>) -> Self {
        Self::Field {
            field,
            reason: reason.into(),
        }
    }
}

/// `<source>-unit-<unit>`.
pub fn unit_name(source: &str, unit: &str) -> String {
    format!("{source}-unit-{unit}")
}

/// The unit at `index` of the spec, without replicas and strategy.
pub fn derive_unit(
    workload: &ElasticWorkload,
    kind: SourceKind,
    source: &DynamicObject,
    index: usize,
) -> Result<DynamicObject, UnitError> {
    let source_name = source.name_any();
    let unit = &workload.spec.elastic_unit[index];
    if !source.data["spec"].is_object() {
        return Err(UnitError::NoSpec(format!("{} {source_name}", kind.noun())));
    }
    let spec = unit_spec(workload, kind, source, index)?;
    let labels = source
        .labels()
        .iter()
        .filter(|(key, _)| *key != SOURCE_LABEL && !JOB_LABELS.contains(&key.as_str()));
    let mut labels: BTreeMap<String, String> = labels
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.insert(WORKLOAD_LABEL.to_owned(), workload.name_any());
    labels.insert(UNIT_LABEL.to_owned(), unit.name.clone());
    let annotations = BTreeMap::from([(DERIVED_FROM_ANNOTATION.to_owned(), fingerprint(&spec))]);
    let owner: Option<OwnerReference> = workload.controller_owner_ref(&());
    let mut derived =
        DynamicObject::new(&unit_name(&source_name, &unit.name), &kind.api_resource())
            .data(json!({"spec": spec}));
    derived.metadata = ObjectMeta {
        namespace: source.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: owner.map(|owner| vec![owner]),
        ..derived.metadata
    };
    Ok(derived)
}

fn unit_spec(
    workload: &ElasticWorkload,
    kind: SourceKind,
    source: &DynamicObject,
    index: usize,
) -> Result<Value, UnitError> {
    let mut spec = source.data["spec"].clone();
    if let Some(members) = spec.as_object_mut() {
        for name in [
            kind.replicas_field(),
            "paused",
            "strategy",
            "updateStrategy",
        ] {
            members.remove(name);
        }
    }
    let unit = &workload.spec.elastic_unit[index];
    let mut selected = BTreeMap::new();
    match kind {
        SourceKind::Job => queue_job(source, &mut spec)?,
        SourceKind::Deployment | SourceKind::StatefulSet => {
            selected =
                serde_json::from_value(spec["selector"]["matchLabels"].clone()).unwrap_or_default();
            let mut selector = spec["selector"].take();
            object(&mut selector, "matchLabels")
                .insert(UNIT_LABEL.to_owned(), unit.name.clone().into());
            spec["selector"] = selector;
        }
    }
    if kind == SourceKind::StatefulSet {
        object(&mut spec, "ordinals").insert(
            "start".to_owned(),
            first_ordinal(workload, source, index).into(),
        );
    }
    spec["template"] = unit_template(&spec["template"], unit, index, &selected)?;
    Ok(spec)
}

/// Ordinals number on: a unit begins where the places before it end at their most.
fn first_ordinal(workload: &ElasticWorkload, source: &DynamicObject, index: usize) -> i64 {
    let own = source.data["spec"]["ordinals"]["start"]
        .as_i64()
        .unwrap_or(0);
    let before = workload.spec.elastic_unit[..index]
        .iter()
        .map(|unit| unit.max);
    let most = std::iter::once(workload.spec.source_target.max).chain(before);
    own + most.map(|max| i64::from(max.unwrap_or(0))).sum::<i64>()
}

/// Only workers on a queue can be in several Jobs: they need no count of completions and no index of their own.
fn queue_job(source: &DynamicObject, spec: &mut Value) -> Result<(), UnitError> {
    let refuse = |reason: &str| UnitError::Source {
        noun: "job",
        name: source.name_any(),
        reason: reason.to_owned(),
    };
    if !spec["completions"].is_null() {
        return Err(refuse(
            "its spec.completions is set, and completions cannot be counted over several Jobs; only a work queue Job (parallelism without completions) can",
        ));
    }
    if spec["manualSelector"] == true {
        return Err(refuse(
            "its spec.manualSelector is true, and several Jobs would claim the same pods",
        ));
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("selector");
    }
    let labels = object(member(&mut spec["template"], "metadata"), "labels");
    labels.retain(|label, _| !JOB_LABELS.contains(&label.as_str()));
    Ok(())
}

/// What to do with one unit so that it is as decided; never more than one write.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitWrite {
    /// It is as it should be.
    Nothing,
    /// It does not exist.
    Create(Box<DynamicObject>),
    /// Only its number of pods differs.
    Scale(u32),
    /// This takes its place.
    Replace(Box<DynamicObject>),
    /// Something that cannot be changed differs: it has to go, and is made anew in the next pass.
    Remake,
}

/// The write that gives the unit `replicas`, and its new template when the rollout's `step` lets it have it.
pub fn unit_write(
    kind: SourceKind,
    source: &DynamicObject,
    existing: Option<&DynamicObject>,
    derived: &DynamicObject,
    replicas: u32,
    step: RolloutStep,
) -> UnitWrite {
    let everything = kind.budget(source, replicas);
    let Some(existing) = existing else {
        let mut fresh = derived.clone();
        let share = match step {
            RolloutStep::Follow(share) => share,
            _ => everything,
        };
        put_strategy(kind, source, &mut fresh, Some(share), false);
        put_replicas(kind, &mut fresh, replicas);
        return UnitWrite::Create(Box::new(fresh));
    };
    let difference = unit_difference(kind, existing, derived);
    if difference.identity {
        return UnitWrite::Remake;
    }
    let follows = matches!(step, RolloutStep::Follow(_));
    let stops = matches!(step, RolloutStep::Pause(_) | RolloutStep::Resume(_));
    if !(difference.rest || (difference.template && follows) || stops) {
        return if kind.wanted(existing) == replicas {
            UnitWrite::Nothing
        } else {
            UnitWrite::Scale(replicas)
        };
    }
    let mut next = rebuilt(existing, derived, difference.template && !follows);
    match step {
        RolloutStep::Follow(share) | RolloutStep::Resume(share) => {
            put_strategy(kind, source, &mut next, Some(share), false)
        }
        RolloutStep::Pause(_) => put_strategy(kind, source, &mut next, None, true),
        RolloutStep::Leave | RolloutStep::Hold(_) => keep_strategy(existing, &mut next),
    }
    put_replicas(kind, &mut next, replicas);
    UnitWrite::Replace(Box::new(next))
}

/// What of `existing` is not as derived.
pub fn unit_difference(
    kind: SourceKind,
    existing: &DynamicObject,
    derived: &DynamicObject,
) -> UnitDifference {
    difference(kind, existing, derived)
}

/// Everything derived, on top of what others put on the object.
fn rebuilt(
    existing: &DynamicObject,
    derived: &DynamicObject,
    keep_template: bool,
) -> DynamicObject {
    let mut next = existing.clone();
    next.labels_mut().extend(derived.labels().clone());
    next.annotations_mut().extend(derived.annotations().clone());
    next.metadata.managed_fields = None;
    // Items of a list come without.
    next.types = derived.types.clone();
    next.data = json!({"spec": derived.data["spec"]});
    if keep_template {
        next.data["spec"]["template"] = existing.data["spec"]["template"].clone();
        super::difference::keep_template_fingerprint(existing, &mut next);
    }
    next
}

fn put_replicas(kind: SourceKind, unit: &mut DynamicObject, replicas: u32) {
    unit.data["spec"][kind.replicas_field()] = i32::try_from(replicas).unwrap_or(i32::MAX).into();
}

const STRATEGIES: [&str; 3] = ["strategy", "updateStrategy", "paused"];

fn keep_strategy(existing: &DynamicObject, next: &mut DynamicObject) {
    for name in STRATEGIES {
        let value = &existing.data["spec"][name];
        if !value.is_null() {
            next.data["spec"][name] = value.clone();
        }
    }
}

/// The source's strategy with this unit's share of the budget; without a share it stays what it is.
fn put_strategy(
    kind: SourceKind,
    source: &DynamicObject,
    unit: &mut DynamicObject,
    share: Option<RolloutBudget>,
    stopped: bool,
) {
    let spec = &mut unit.data["spec"];
    match kind {
        SourceKind::Deployment => {
            let strategy = &source.data["spec"]["strategy"];
            spec["strategy"] = match share {
                Some(share) if strategy["type"] != "Recreate" => json!({
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": share.surge, "maxUnavailable": share.unavailable}
                }),
                _ => strategy.clone(),
            };
            spec["paused"] = stopped.into();
        }
        SourceKind::StatefulSet => {
            let mut strategy = source.data["spec"]["updateStrategy"].clone();
            if strategy["type"] != "OnDelete" {
                strategy["type"] = "RollingUpdate".into();
                object(&mut strategy, "rollingUpdate").insert(
                    "partition".to_owned(),
                    if stopped { STOPPED_PARTITION } else { 0 }.into(),
                );
            }
            spec["updateStrategy"] = strategy;
        }
        SourceKind::Job => {}
    }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;

//! Checks that the schema cannot express everywhere; each failure names the field, what is wrong and what would be right.

use serde_json::Value;

use super::{ElasticUnit, ElasticWorkloadSpec, SourceKind};
use crate::names::UNIT_LABEL;
use crate::strategic_merge::merge_pod;

const MAX_NAME_LENGTH: usize = 63;

/// One thing wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Path from the object's root.
    pub field: String,
    /// What is wrong, and the remedy.
    pub reason: String,
}

/// Every problem of `spec`, in the order of its fields.
pub fn validate(spec: &ElasticWorkloadSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fail = |field: String, reason: String| errors.push(FieldError { field, reason });
    if spec.replicas.is_some_and(|replicas| replicas < 0) {
        fail("spec.replicas".into(), "must be 0 or more".into());
    }
    let source = &spec.source_target;
    let kind = SourceKind::of(source);
    if kind.is_none() {
        fail(
            "spec.sourceTarget.kind".into(),
            format!(
                "must be Deployment or StatefulSet of apps/v1, or Job of batch/v1, found {} of {}",
                source.kind, source.api_version
            ),
        );
    }
    if source.name.is_empty() {
        fail(
            "spec.sourceTarget.name".into(),
            "must name a workload in the same namespace".into(),
        );
    }
    check_bounds("spec.sourceTarget", source.min, source.max, &mut fail);
    if kind == Some(SourceKind::StatefulSet) {
        check_ordinals(spec, &mut fail);
    }
    check_times(spec, &mut fail);
    for (index, unit) in spec.elastic_unit.iter().enumerate() {
        let path = format!("spec.elasticUnit[{index}]");
        if let Some(reason) = wrong_name(&unit.name) {
            fail(format!("{path}.name"), reason);
        } else if super::unit_name(&source.name, &unit.name).len() > MAX_NAME_LENGTH {
            fail(
                format!("{path}.name"),
                "the name of the unit's workload would exceed 63 characters, shorten it".into(),
            );
        }
        if spec.elastic_unit[..index]
            .iter()
            .any(|other| other.name == unit.name)
        {
            fail(
                format!("{path}.name"),
                format!("unit {:?} appears twice, names must differ", unit.name),
            );
        }
        check_bounds(&path, unit.min, unit.max, &mut fail);
        check_overrides(&path, unit, &mut fail);
    }
    errors
}

/// Ordinals of a StatefulSet number on, so every place but the last needs an end.
fn check_ordinals(spec: &ElasticWorkloadSpec, fail: &mut impl FnMut(String, String)) {
    const REASON: &str =
        "is required with a StatefulSet, because the ordinals of the next unit begin after it";
    let source = &spec.source_target;
    if source.max.is_none() && source.min.is_some() && !spec.elastic_unit.is_empty() {
        fail("spec.sourceTarget.max".into(), REASON.into());
    }
    let followed = spec.elastic_unit.len().saturating_sub(1);
    for (index, unit) in spec.elastic_unit[..followed].iter().enumerate() {
        if unit.max.is_none() {
            fail(format!("spec.elasticUnit[{index}].max"), REASON.into());
        }
    }
}

fn check_times(spec: &ElasticWorkloadSpec, fail: &mut impl FnMut(String, String)) {
    let times = [
        ("rescheduleAfterSeconds", spec.reschedule_after_seconds, 0),
        ("recoverAfterSeconds", spec.recover_after_seconds, 1),
    ];
    for (name, seconds, least) in times {
        if seconds.is_some_and(|seconds| seconds < least) {
            fail(format!("spec.{name}"), format!("must be {least} or more"));
        }
    }
    if spec.recover_after_seconds.is_some() && spec.reschedule_after_seconds.is_none() {
        fail(
            "spec.recoverAfterSeconds".into(),
            "needs rescheduleAfterSeconds, without which no share is passed on".into(),
        );
    }
}

/// What can be told without the source: the rest is told when the unit is derived.
fn check_overrides(path: &str, unit: &ElasticUnit, fail: &mut impl FnMut(String, String)) {
    if unit.labels.contains_key(UNIT_LABEL) {
        fail(
            format!("{path}.labels"),
            format!("{UNIT_LABEL} is set by the controller, remove it"),
        );
    }
    for (index, variable) in unit.env.iter().enumerate() {
        if variable["name"].as_str().is_none_or(str::is_empty) {
            fail(
                format!("{path}.env[{index}].name"),
                "must not be empty".into(),
            );
        }
    }
    if unit.image.as_deref() == Some("") {
        fail(
            format!("{path}.image"),
            "must not be empty; leave it out to keep the source's".into(),
        );
    }
    let Some(patch) = &unit.patch else {
        return;
    };
    let members = patch.as_object().into_iter().flatten();
    for (name, _) in members.filter(|(name, _)| !["metadata", "spec"].contains(&name.as_str())) {
        fail(
            format!("{path}.patch.{name}"),
            "a pod template has metadata and spec only".into(),
        );
    }
    let metadata = patch["metadata"].as_object().into_iter().flatten();
    for (name, _) in
        metadata.filter(|(name, _)| !["labels", "annotations"].contains(&name.as_str()))
    {
        fail(
            format!("{path}.patch.metadata.{name}"),
            "only labels and annotations can be changed".into(),
        );
    }
    if let Err(error) = merge_pod(&Value::Null, patch) {
        fail(format!("{path}.patch.{}", error.path), error.reason);
    }
}

fn check_bounds(
    path: &str,
    min: Option<i32>,
    max: Option<i32>,
    fail: &mut impl FnMut(String, String),
) {
    if min.is_some_and(|min| min < 0) {
        fail(format!("{path}.min"), "must be 0 or more".into());
    }
    if max.is_some_and(|max| max < 0) {
        fail(format!("{path}.max"), "must be 0 or more".into());
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        fail(
            format!("{path}.min"),
            format!("must not be above max, {min} > {max}"),
        );
    }
}

fn wrong_name(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let right = bytes.len() <= MAX_NAME_LENGTH
        && bytes.iter().all(inner)
        && edge(bytes.first())
        && edge(bytes.last());
    (!right).then(|| {
        format!("{name:?} must be 1 to 63 lower-case letters, digits or '-', and start and end with a letter or digit")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::SourceTarget;
    use super::*;

    fn spec() -> ElasticWorkloadSpec {
        ElasticWorkloadSpec {
            replicas: Some(2),
            source_target: SourceTarget {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: "web".into(),
                min: Some(1),
                max: Some(4),
            },
            elastic_unit: vec![ElasticUnit {
                name: "virtual-kubelet".into(),
                ..ElasticUnit::default()
            }],
            ..ElasticWorkloadSpec::default()
        }
    }

    #[test]
    fn a_documented_spec_has_no_errors() {
        assert_eq!(validate(&spec()), []);
    }

    #[test]
    fn every_problem_names_its_field() {
        let mut spec = spec();
        spec.replicas = Some(-1);
        spec.source_target.kind = "CloneSet".into();
        spec.source_target.min = Some(5);
        spec.elastic_unit.push(spec.elastic_unit[0].clone());
        spec.elastic_unit.push(ElasticUnit {
            name: "Bad_".into(),
            max: Some(-1),
            ..ElasticUnit::default()
        });
        let fields: Vec<_> = validate(&spec)
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(
            fields,
            [
                "spec.replicas",
                "spec.sourceTarget.kind",
                "spec.sourceTarget.min",
                "spec.elasticUnit[1].name",
                "spec.elasticUnit[2].name",
                "spec.elasticUnit[2].max",
            ]
        );
    }

    fn errors(change: impl FnOnce(&mut ElasticWorkloadSpec)) -> Vec<String> {
        let mut spec = spec();
        change(&mut spec);
        validate(&spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_source_is_valid() {
        for (version, kind) in [("apps/v1", "StatefulSet"), ("batch/v1", "Job")] {
            let found = errors(|spec| {
                spec.source_target.api_version = version.into();
                spec.source_target.kind = kind.into();
            });
            assert_eq!(found, [""; 0]);
        }
        let found = errors(|spec| spec.source_target.api_version = "batch/v1".into());
        assert_eq!(
            found,
            [
                "spec.sourceTarget.kind: must be Deployment or StatefulSet of apps/v1, or Job of batch/v1, found Deployment of batch/v1"
            ]
        );
    }

    #[test]
    fn the_places_of_a_statefulset_need_an_end() {
        let found = errors(|spec| {
            spec.source_target.kind = "StatefulSet".into();
            spec.source_target.max = None;
            spec.elastic_unit.push(ElasticUnit {
                name: "b".into(),
                ..ElasticUnit::default()
            });
        });
        let reason =
            "is required with a StatefulSet, because the ordinals of the next unit begin after it";
        assert_eq!(
            found,
            [
                format!("spec.sourceTarget.max: {reason}"),
                format!("spec.elasticUnit[0].max: {reason}")
            ]
        );
    }

    #[test]
    fn times_and_overrides_are_refused_by_their_field() {
        let found = errors(|spec| {
            spec.reschedule_after_seconds = Some(-1);
            spec.recover_after_seconds = Some(0);
            let unit = &mut spec.elastic_unit[0];
            unit.image = Some(String::new());
            unit.patch = Some(
                json!({"status": {}, "metadata": {"name": "x"}, "spec": {"containers": [{"image": "x"}]}}),
            );
        });
        assert_eq!(
            found,
            [
                "spec.rescheduleAfterSeconds: must be 0 or more",
                "spec.recoverAfterSeconds: must be 1 or more",
                "spec.elasticUnit[0].image: must not be empty; leave it out to keep the source's",
                "spec.elasticUnit[0].patch.status: a pod template has metadata and spec only",
                "spec.elasticUnit[0].patch.metadata.name: only labels and annotations can be changed",
                "spec.elasticUnit[0].patch.spec.containers[0]: needs name, by which elements are told apart",
            ]
        );
        let found = errors(|spec| spec.recover_after_seconds = Some(60));
        assert_eq!(
            found,
            [
                "spec.recoverAfterSeconds: needs rescheduleAfterSeconds, without which no share is passed on"
            ]
        );
    }
}

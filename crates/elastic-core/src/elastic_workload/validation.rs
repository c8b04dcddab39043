//! Checks that the schema cannot express everywhere; each failure names the field, what is wrong and what would be right.

use super::ElasticWorkloadSpec;

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
    if source.kind != "Deployment" || source.api_version != "apps/v1" {
        fail(
            "spec.sourceTarget.kind".into(),
            format!(
                "only apps/v1 Deployment is supported, found {} {}",
                source.api_version, source.kind
            ),
        );
    }
    if source.name.is_empty() {
        fail(
            "spec.sourceTarget.name".into(),
            "must name a Deployment in the same namespace".into(),
        );
    }
    check_bounds("spec.sourceTarget", source.min, source.max, &mut fail);
    for (index, unit) in spec.elastic_unit.iter().enumerate() {
        let path = format!("spec.elasticUnit[{index}]");
        if let Some(reason) = wrong_name(&unit.name) {
            fail(format!("{path}.name"), reason);
        } else if super::unit_name(&source.name, &unit.name).len() > MAX_NAME_LENGTH {
            fail(
                format!("{path}.name"),
                "the unit Deployment's name would exceed 63 characters, shorten it".into(),
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
    }
    errors
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
    use super::super::{ElasticUnit, SourceTarget};
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
        spec.source_target.kind = "StatefulSet".into();
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
}

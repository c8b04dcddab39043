//! Checks of a ResourcePolicy; each failure names the field, what is wrong and what would be right.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ResourcePolicySpec, Unit};
use crate::elastic_workload::FieldError;

type Fail<'a> = dyn FnMut(String, String) + 'a;

/// Every problem of `spec`, in the order of its fields.
pub fn validate(spec: &ResourcePolicySpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fail = |field: String, reason: String| errors.push(FieldError { field, reason });
    if !matches!(spec.strategy.as_deref(), None | Some("" | "prefer")) {
        let reason = format!(
            "{:?} is not prefer, the only strategy",
            spec.strategy.as_deref().unwrap_or_default()
        );
        fail("spec.strategy".into(), reason);
    }
    if spec.units.is_empty() {
        fail("spec.units".into(), "must have at least one unit".into());
    }
    for (index, one) in spec.units.iter().enumerate() {
        unit(one, &format!("spec.units[{index}]"), &mut fail);
    }
    if !matches!(
        spec.preempt_policy.as_deref(),
        None | Some("" | "AfterAllUnits" | "BeforeNextUnit")
    ) {
        let reason = format!(
            "{:?} is neither AfterAllUnits nor BeforeNextUnit",
            spec.preempt_policy.as_deref().unwrap_or_default()
        );
        fail("spec.preemptPolicy".into(), reason);
    }
    for (index, key) in spec.match_label_keys.iter().enumerate() {
        if key.is_empty() || spec.match_label_keys[..index].contains(key) {
            let reason = format!(
                "{key:?} is empty or appears twice; expected keys of labels that the pods have"
            );
            fail(format!("spec.matchLabelKeys[{index}]"), reason);
        }
    }
    if let Err((below, reason)) = spec.try_next() {
        fail(format!("spec.whenTryNextUnits.{below}"), reason);
    }
    let nested = spec.when_try_next_units.as_ref();
    if let Some(nested) = nested {
        unknown(&nested.unknown, "spec.whenTryNextUnits", &mut fail);
    }
    unknown(&spec.unknown, "spec", &mut fail);
    errors
}

fn unit(unit: &Unit, path: &str, fail: &mut Fail<'_>) {
    match unit.resource.as_str() {
        "ecs" | "eci" => {}
        "elastic" if unit.node_selector.is_empty() => {
            let reason = "must say which nodes are added on demand, for a unit of resource elastic";
            fail(format!("{path}.nodeSelector"), reason.into());
        }
        "elastic" => {}
        "acs" => {
            let reason = "acs cannot be reached from here; expected ecs, elastic or eci";
            fail(format!("{path}.resource"), reason.into());
        }
        other => {
            let reason = format!("{other:?} is none of ecs, elastic and eci");
            fail(format!("{path}.resource"), reason);
        }
    }
    if let Some(max) = unit.max.filter(|max| *max < 0) {
        fail(format!("{path}.max"), format!("{max} must be 0 or more"));
    }
    unknown(&unit.unknown, path, fail);
}

/// Fields that are not followed are refused, so that nobody believes they are.
fn unknown(fields: &BTreeMap<String, Value>, path: &str, fail: &mut Fail<'_>) {
    for name in fields.keys() {
        let reason = match name.as_str() {
            "maxResources" => "is not supported; limit the pods with max instead",
            _ => "is no field that is followed here; remove it",
        };
        fail(format!("{path}.{name}"), reason.into());
    }
}

/// Fields that are allowed and cannot be followed to the letter on a scheduler that is not ours; each says why.
pub fn unhonoured(spec: &ResourcePolicySpec) -> Vec<FieldError> {
    let mut all = Vec::new();
    if spec.preempt_policy.as_deref() == Some("AfterAllUnits") && spec.units.len() > 1 {
        all.push(FieldError {
            field: "spec.preemptPolicy".into(),
            reason: "the cluster's scheduler preempts in each unit, as BeforeNextUnit says, when it preempts at all".into(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> ResourcePolicySpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_references_manifest_is_right() {
        let spec = read(json!({
            "selector": {"app": "web"}, "strategy": "prefer",
            "units": [{"resource": "ecs", "nodeSelector": {"pool": "owned"}, "max": 4}, {"resource": "eci"}],
            "preemptPolicy": "AfterAllUnits", "ignorePreviousPod": false, "ignoreTerminatingPod": true,
            "matchLabelKeys": ["pod-template-hash"], "whenTryNextUnits": {"policy": "TimeoutOrExceedMax", "timeout": "1m"}}));
        assert_eq!(validate(&spec), []);
        assert_eq!(unhonoured(&spec)[0].field, "spec.preemptPolicy");
        assert_eq!(spec.keys(), ["ecs/pool=owned", "eci"]);
    }

    #[test]
    fn every_problem_names_its_field() {
        let wrong = read(json!({
            "strategy": "require", "priority": 3,
            "units": [
                {"resource": "acs", "max": -1}, {"resource": "elastic"}, {"resource": "gpu", "spotInstance": true},
                {"resource": "ecs", "maxResources": {"cpu": "4"}}],
            "preemptPolicy": "Never", "matchLabelKeys": ["a", "a"],
            "whenTryNextUnits": {"policy": "Sometimes", "factor": 2}}));
        let fields: Vec<String> = validate(&wrong)
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(
            fields,
            [
                "spec.strategy",
                "spec.units[0].resource",
                "spec.units[0].max",
                "spec.units[1].nodeSelector",
                "spec.units[2].resource",
                "spec.units[2].spotInstance",
                "spec.units[3].maxResources",
                "spec.preemptPolicy",
                "spec.matchLabelKeys[1]",
                "spec.whenTryNextUnits.policy",
                "spec.whenTryNextUnits.factor",
                "spec.priority",
            ]
        );
        let late = read(json!({"units": [], "whenTryNextUnits": {"timeout": "soon"}}));
        let fields: Vec<String> = validate(&late)
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(fields, ["spec.units", "spec.whenTryNextUnits.timeout"]);
    }

    #[test]
    fn groups_are_made_by_the_labels_named_and_units_keep_their_keys() {
        let spec = read(
            json!({"selector": {"app": "web"}, "matchLabelKeys": ["hash"],
            "units": [{"resource": "ecs"}, {"resource": "ecs"}, {"resource": "eci"}]}),
        );
        assert_eq!(spec.keys(), ["ecs", "ecs#2", "eci"]);
        let labels = BTreeMap::from([("hash".to_owned(), "7d9c".to_owned())]);
        assert_eq!(spec.group(&labels), Ok("hash=7d9c".to_owned()));
        assert_eq!(spec.group(&BTreeMap::new()), Err("hash".to_owned()));
        assert_eq!(spec.list_selector("hash=7d9c"), "app=web,hash=7d9c");
        assert_eq!(spec.list_selector(super::super::ALL), "app=web");
    }
}

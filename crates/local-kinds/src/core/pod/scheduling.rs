//! Tolerations, topology spread, gates.

use std::collections::BTreeSet;

use local_schema::FieldError;
use serde_json::Value;

use crate::check::labels::label_key;
use crate::check::names::{invalid, label_value, qualified};
use crate::check::selector;
use crate::tree::{child, index, integer, list, number, present, text};

/// What a taint can do, as upstream names it.
pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const EVERYTHING: &str =
    "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";

/// The tolerations of a spec.
pub fn tolerations(spec: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "tolerations");
    list(spec, "tolerations")
        .iter()
        .enumerate()
        .flat_map(|(position, one)| toleration(one, &index(&path, position)))
        .collect()
}

fn toleration(one: &Value, path: &str) -> Vec<FieldError> {
    let key = text(one, "key");
    let operator = text(one, "operator");
    let value = text(one, "value");
    let effect = text(one, "effect");
    let operator_path = child(path, "operator");
    let mut errors = Vec::new();
    if !key.is_empty() {
        errors.extend(label_key(key, &child(path, "key")));
    } else if operator != "Exists" {
        errors.push(FieldError::invalid(
            operator_path.clone(),
            operator,
            EVERYTHING,
        ));
    }
    if present(one, "tolerationSeconds") && effect != "NoExecute" {
        errors.push(FieldError::invalid(
            child(path, "effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    match operator {
        "Equal" | "" => {
            let wrong = label_value(value);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(operator_path, value, wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => errors.push(FieldError::invalid(
            operator_path,
            value,
            "value must be empty when `operator` is 'Exists'",
        )),
        "Exists" => {}
        other => errors.push(FieldError::not_supported(
            operator_path,
            other,
            &["Equal", "Exists"],
        )),
    }
    if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(
            child(path, "effect"),
            effect,
            TAINT_EFFECTS,
        ));
    }
    errors
}

/// Readiness and scheduling gates.
pub fn gates(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let readiness = child(path, "readinessGates");
    for (position, gate) in list(spec, "readinessGates").iter().enumerate() {
        let path = child(&index(&readiness, position), "conditionType");
        let name = text(gate, "conditionType");
        errors.extend(invalid(&path, name, qualified(name)));
    }
    let scheduling = child(path, "schedulingGates");
    let mut names = BTreeSet::new();
    for (position, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let path = index(&scheduling, position);
        let name = text(gate, "name");
        errors.extend(invalid(&path, name, qualified(name)));
        if !names.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}

/// Topology spread constraints.
pub fn spread(spec: &Value, path: &str) -> Vec<FieldError> {
    const CHOICES: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    let path = child(path, "topologySpreadConstraints");
    let constraints = list(spec, "topologySpreadConstraints");
    let mut errors = Vec::new();
    for (position, one) in constraints.iter().enumerate() {
        let path = index(&path, position);
        let skew = number(one, "maxSkew");
        if skew <= 0 {
            errors.push(FieldError::invalid(
                child(&path, "maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        let key = text(one, "topologyKey");
        if key.is_empty() {
            let path = child(&path, "topologyKey");
            errors.push(FieldError::required(path, "can not be empty"));
        } else {
            errors.extend(label_key(key, &child(&path, "topologyKey")));
        }
        let choice = text(one, "whenUnsatisfiable");
        if !CHOICES.contains(&choice) {
            let path = child(&path, "whenUnsatisfiable");
            errors.push(FieldError::not_supported(path, choice, CHOICES));
        }
        let twice = constraints[position + 1..].iter().any(|other| {
            text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == choice
        });
        if twice {
            let pair = format!("{{{key}, {choice}}}");
            let path = child(&path, "{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(path, pair));
        }
        if let Some(domains) = integer(one, "minDomains")
            && domains <= 0
        {
            let path = child(&path, "minDomains");
            errors.push(FieldError::invalid(path, domains, "must be greater than 0"));
        }
        errors.extend(selector::check(
            &one["labelSelector"],
            &child(&path, "labelSelector"),
        ));
    }
    errors
}

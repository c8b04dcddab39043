//! What an autoscaler may ask for.

use local_schema::FieldError;
use serde_json::Value;

use super::SOURCES;
use crate::check::names::{invalid, path_segment};
use crate::check::numbers::not_negative;
use crate::check::resources::quantity;
use crate::tree::{child, index, integer, list, number, present, text};

const TYPES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
const LONGEST_WINDOW_SECONDS: i64 = 3600;
const LONGEST_PERIOD_SECONDS: i64 = 1800;

/// A whole spec.
pub fn spec(spec: &Value) -> Vec<FieldError> {
    let most = number(spec, "maxReplicas");
    let least = integer(spec, "minReplicas");
    let outside = |one: &Value| matches!(text(one, "type"), "Object" | "External");
    let has_outside = list(spec, "metrics").iter().any(outside);
    let mut errors = Vec::new();
    // To zero, as from 1.37 on, where something outside of the pods can wake them.
    let lowest = i64::from(!has_outside);
    if let Some(least) = least.filter(|least| *least < lowest) {
        let words = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", least, words));
    }
    if most < 1 {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            most,
            "must be greater than 0",
        ));
    }
    if least.is_some_and(|least| most < least) {
        let words = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", most, words));
    }
    errors.extend(target(&spec["scaleTargetRef"]));
    for (position, metric) in list(spec, "metrics").iter().enumerate() {
        errors.extend(check_metric(metric, &index("spec.metrics", position)));
    }
    if least == Some(0) && !has_outside {
        let words = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", words));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let path = format!("spec.behavior.{direction}");
        errors.extend(check_rules(&spec["behavior"][direction], &path));
    }
    errors
}

fn reference(reference: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["kind", "name"] {
        let path = child(path, key);
        match text(reference, key) {
            "" => errors.push(FieldError::required(path, "")),
            value => errors.extend(invalid(&path, value, path_segment(value))),
        }
    }
    errors
}

/// What is scaled; everything scalable but ReplicationControllers has a group.
fn target(own: &Value) -> Vec<FieldError> {
    let path = "spec.scaleTargetRef";
    let mut errors = reference(own, path);
    let version = text(own, "apiVersion");
    let words = match version.matches('/').count() {
        0 if version != "v1" => "apiVersion must specify API group".to_string(),
        0 | 1 => return errors,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(
        child(path, "apiVersion"),
        version,
        words,
    ));
    errors
}

fn check_metric(metric: &Value, path: &str) -> Vec<FieldError> {
    let kind = text(metric, "type");
    let mut errors = Vec::new();
    let type_path = child(path, "type");
    if kind.is_empty() {
        let words = "must specify a metric source type";
        errors.push(FieldError::required(type_path.clone(), words));
    }
    let unsupported = || FieldError::not_supported(type_path.clone(), kind, TYPES);
    if !TYPES.contains(&kind) {
        errors.push(unsupported());
    }
    let given: Vec<&str> = SOURCES
        .iter()
        .map(|(_, key)| *key)
        .filter(|key| present(metric, key))
        .collect();
    if let Some(first) = given.first() {
        errors.extend(check_source(first, &metric[*first], &child(path, first)));
    }
    let expected = SOURCES
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, key)| *key);
    match expected {
        Some(key) if !present(metric, key) => errors.push(FieldError::required(
            child(path, key),
            "must populate information for the given metric source",
        )),
        Some(_) => {}
        // Upstream says this twice.
        None => errors.push(unsupported()),
    }
    if given.len() > 1 {
        for key in given.iter().filter(|key| Some(**key) != expected) {
            let words = "must populate the given metric source only";
            errors.push(FieldError::forbidden(child(path, key), words));
        }
    }
    errors
}

fn check_source(key: &str, source: &Value, path: &str) -> Vec<FieldError> {
    let own = &source["target"];
    let target_path = child(path, "target");
    let mut errors = Vec::new();
    match key {
        "object" => {
            errors.extend(reference(
                &source["describedObject"],
                &child(path, "describedObject"),
            ));
            errors.extend(identifier(source, path));
            errors.extend(check_target(own, &target_path));
            errors.extend(value_or_average(own, &target_path));
        }
        "external" => {
            errors.extend(identifier(source, path));
            errors.extend(check_target(own, &target_path));
            errors.extend(value_or_average(own, &target_path));
            if present(own, "value") && present(own, "averageValue") {
                let words = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(child(&target_path, "value"), words));
            }
        }
        "pods" => {
            errors.extend(identifier(source, path));
            errors.extend(check_target(own, &target_path));
            if !present(own, "averageValue") {
                let words = "must specify a positive target averageValue";
                errors.push(FieldError::required(
                    child(&target_path, "averageValue"),
                    words,
                ));
            }
        }
        _ => errors.extend(resource(key, source, path)),
    }
    errors
}

fn resource(key: &str, source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(source, "name").is_empty() {
        let words = "must specify a resource name";
        errors.push(FieldError::required(child(path, "name"), words));
    }
    if key == "containerResource" && text(source, "container").is_empty() {
        let words = "must specify a container";
        errors.push(FieldError::required(child(path, "container"), words));
    }
    let own = &source["target"];
    let path = child(path, "target");
    errors.extend(check_target(own, &path));
    match (
        present(own, "averageUtilization"),
        present(own, "averageValue"),
    ) {
        (false, false) => {
            let words = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(
                child(&path, "averageUtilization"),
                words,
            ));
        }
        (true, true) => {
            let words = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(child(&path, "averageValue"), words));
        }
        _ => {}
    }
    errors
}

fn identifier(source: &Value, path: &str) -> Vec<FieldError> {
    let path = format!("{path}.metric.name");
    match text(&source["metric"], "name") {
        "" => vec![FieldError::required(path, "must specify a metric name")],
        name => invalid(&path, name, path_segment(name)),
    }
}

fn value_or_average(own: &Value, path: &str) -> Option<FieldError> {
    let none = !present(own, "value") && !present(own, "averageValue");
    none.then(|| {
        FieldError::required(
            child(path, "averageValue"),
            "must set either a target value for metric or a per-pod target",
        )
    })
}

fn check_target(own: &Value, path: &str) -> Vec<FieldError> {
    let kind = text(own, "type");
    let mut errors = Vec::new();
    if kind.is_empty() {
        let words = "must specify a metric target type";
        errors.push(FieldError::required(child(path, "type"), words));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let words = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(child(path, "type"), kind, words));
    }
    for key in ["value", "averageValue"] {
        if present(own, key) && quantity(&own[key]).nanos() <= 0 {
            let shown = quantity(&own[key]).to_string();
            errors.push(FieldError::invalid(
                child(path, key),
                shown,
                "must be positive",
            ));
        }
    }
    if let Some(share) = integer(own, "averageUtilization").filter(|share| *share < 1) {
        let path = child(path, "averageUtilization");
        errors.push(FieldError::invalid(path, share, "must be greater than 0"));
    }
    errors
}

fn check_rules(rules: &Value, path: &str) -> Vec<FieldError> {
    if rules.is_null() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if let Some(window) = integer(rules, "stabilizationWindowSeconds") {
        let path = child(path, "stabilizationWindowSeconds");
        if window < 0 {
            let words = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(path, window, words));
        } else if window > LONGEST_WINDOW_SECONDS {
            let words = format!("must be less than or equal to {LONGEST_WINDOW_SECONDS}");
            errors.push(FieldError::invalid(path, window, words));
        }
    }
    let choices = &["Disabled", "Max", "Min"];
    let choice = text(rules, "selectPolicy");
    if present(rules, "selectPolicy") && !choices.contains(&choice) {
        let path = child(path, "selectPolicy");
        errors.push(FieldError::not_supported(path, choice, choices));
    }
    let path = child(path, "policies");
    let policies = list(rules, "policies");
    if policies.is_empty() {
        let words = "must specify at least one Policy";
        errors.push(FieldError::required(path.clone(), words));
    }
    for (position, policy) in policies.iter().enumerate() {
        errors.extend(check_policy(policy, &index(&path, position)));
    }
    errors
}

fn check_policy(policy: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(policy, "type");
    if kind != "Percent" && kind != "Pods" {
        let path = child(path, "type");
        errors.push(FieldError::not_supported(path, kind, &["Percent", "Pods"]));
    }
    for key in ["value", "periodSeconds"] {
        let value = number(policy, key);
        if value <= 0 {
            let words = "must be greater than zero";
            errors.push(FieldError::invalid(child(path, key), value, words));
        }
    }
    let period = number(policy, "periodSeconds");
    if period > LONGEST_PERIOD_SECONDS {
        let words = format!("must be less than or equal to {LONGEST_PERIOD_SECONDS}");
        errors.push(FieldError::invalid(
            child(path, "periodSeconds"),
            period,
            words,
        ));
    }
    errors
}

/// A status that a controller writes.
pub fn status(status: &Value) -> Vec<FieldError> {
    let mut errors = not_negative(status, "currentReplicas", "status");
    errors.extend(not_negative(status, "desiredReplicas", "status"));
    errors
}

//! Node and pod affinity.

use local_schema::FieldError;
use serde_json::Value;

use crate::check::labels::label_key;
use crate::check::names::{invalid, label, label_value};
use crate::check::selector::{self, VALUES_NEEDED, VALUES_REFUSED};
use crate::tree::{child, index, list, number, present, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// All three sorts of affinity.
pub fn check(affinity: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if present(affinity, "nodeAffinity") {
        errors.extend(node_affinity(
            &affinity["nodeAffinity"],
            &child(path, "nodeAffinity"),
        ));
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        errors.extend(pod_affinity(&affinity[key], &child(path, key)));
    }
    errors
}

fn node_affinity(affinity: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if present(affinity, REQUIRED) {
        errors.extend(node_selector(&affinity[REQUIRED], &child(path, REQUIRED)));
    }
    let path = child(path, PREFERRED);
    for (position, one) in list(affinity, PREFERRED).iter().enumerate() {
        let path = index(&path, position);
        errors.extend(weight(one, &path));
        errors.extend(node_term(&one["preference"], &child(&path, "preference")));
    }
    errors
}

/// A node selector, as in affinities and in volumes.
pub fn node_selector(selector: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        let words = "must have at least one node selector term";
        return vec![FieldError::required(path, words)];
    }
    terms
        .iter()
        .enumerate()
        .flat_map(|(position, term)| node_term(term, &index(&path, position)))
        .collect()
}

fn weight(one: &Value, path: &str) -> Option<FieldError> {
    let weight = number(one, "weight");
    (!(1..=100).contains(&weight))
        .then(|| FieldError::invalid(child(path, "weight"), weight, "must be in the range 1-100"))
}

fn node_term(term: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let expressions = child(path, "matchExpressions");
    for (position, one) in list(term, "matchExpressions").iter().enumerate() {
        errors.extend(node_requirement(one, &index(&expressions, position)));
    }
    let fields = child(path, "matchFields");
    for (position, one) in list(term, "matchFields").iter().enumerate() {
        errors.extend(node_field(one, &index(&fields, position)));
    }
    errors
}

fn node_requirement(one: &Value, path: &str) -> Vec<FieldError> {
    let values = list(one, "values");
    let values_path = child(path, "values");
    let mut errors = Vec::new();
    match text(one, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(values_path.clone(), VALUES_NEEDED));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(FieldError::forbidden(values_path.clone(), VALUES_REFUSED));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let words = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(values_path.clone(), words));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        operator => errors.push(FieldError::invalid(
            child(path, "operator"),
            operator,
            "not a valid selector operator",
        )),
    }
    errors.extend(label_key(text(one, "key"), &child(path, "key")));
    for (position, value) in values.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(invalid(
            &index(&values_path, position),
            value,
            label_value(value),
        ));
    }
    errors
}

fn node_field(one: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(one, "operator") {
        "In" | "NotIn" if list(one, "values").len() != 1 => errors.push(FieldError::required(
            child(path, "values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        "In" | "NotIn" => {}
        operator => errors.push(FieldError::invalid(
            child(path, "operator"),
            operator,
            "not a valid selector operator",
        )),
    }
    if text(one, "key") != "metadata.name" {
        errors.push(FieldError::invalid(
            child(path, "key"),
            text(one, "key"),
            "not a valid field selector key",
        ));
    }
    errors
}

fn pod_affinity(affinity: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let required = child(path, REQUIRED);
    for (position, term) in list(affinity, REQUIRED).iter().enumerate() {
        errors.extend(pod_term(term, &index(&required, position)));
    }
    let preferred = child(path, PREFERRED);
    for (position, one) in list(affinity, PREFERRED).iter().enumerate() {
        let path = index(&preferred, position);
        errors.extend(weight(one, &path));
        errors.extend(pod_term(
            &one["podAffinityTerm"],
            &child(&path, "podAffinityTerm"),
        ));
    }
    errors
}

fn pod_term(term: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = selector::check(&term["labelSelector"], &child(path, "labelSelector"));
    errors.extend(selector::check(
        &term["namespaceSelector"],
        &child(path, "namespaceSelector"),
    ));
    for name in list(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.extend(invalid(&child(path, "namespace"), name, label(name)));
    }
    let key = text(term, "topologyKey");
    let path = child(path, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path.clone(), "can not be empty"));
    }
    errors.extend(label_key(key, &path));
    errors
}

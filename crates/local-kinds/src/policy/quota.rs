//! ResourceQuotas.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::names::{invalid, qualified};
use crate::check::resources::{amount, canonicalize, is_quota_resource, quantity};
use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules};
use crate::tree::{child_mut, entries, index, list, same, text};

/// The rules of ResourceQuotas.
pub struct QuotaRules;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const CONFLICTS: [(&str, &str); 2] = [
    ("BestEffort", "NotBestEffort"),
    ("Terminating", "NotTerminating"),
];

impl KindRules for QuotaRules {
    fn default(&self, _version: &str, object: &mut Value) {
        if let Some(spec) = child_mut(object, "spec") {
            canonicalize(spec, "hard");
        }
        if let Some(status) = child_mut(object, "status") {
            canonicalize(status, "hard");
            canonicalize(status, "used");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = amounts(spec, "hard", "spec.hard");
        errors.extend(scopes(spec));
        errors.extend(scope_selector(spec));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if !same(&new["spec"]["scopes"], &old["spec"]["scopes"]) {
            let shown = new["spec"]["scopes"].clone();
            errors.push(FieldError::invalid(
                "spec.scopes",
                shown,
                "field is immutable",
            ));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = amounts(&new["status"], "hard", "status.hard");
        errors.extend(amounts(&new["status"], "used", "status.used"));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Request"), column("Limit"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let shown = |limits: bool| {
            let all: Vec<String> = entries(status, "hard")
                .filter(|(name, _)| name.starts_with("limits") == limits)
                .map(|(name, hard)| {
                    let used = quantity(&status["used"][name.as_str()]);
                    format!("{name}: {used}/{}", quantity(hard))
                })
                .collect();
            Value::from(all.join(", "))
        };
        vec![name(object), shown(false), shown(true), age(object, now)]
    }
}

fn amounts(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    entries(parent, key)
        .flat_map(|(name, value)| {
            let path = index(path, name);
            let mut errors = invalid(&path, name, qualified(name));
            if !name.contains('/') && !is_quota_resource(name) {
                let words = "must be a standard resource for quota";
                errors.push(FieldError::invalid(&path, name.as_str(), words));
            }
            errors.extend(amount(name, value, &path));
            errors
        })
        .collect()
}

fn scopes(spec: &Value) -> Vec<FieldError> {
    let names: Vec<&str> = list(spec, "scopes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut errors = Vec::new();
    let mut refuse = |words: &str| {
        errors.push(FieldError::invalid(
            "spec.scopes",
            spec["scopes"].clone(),
            words,
        ));
    };
    for _ in names.iter().filter(|name| !SCOPES.contains(name)) {
        refuse("unsupported scope");
    }
    for (one, other) in CONFLICTS {
        if names.contains(&one) && names.contains(&other) {
            refuse("conflicting scopes");
        }
    }
    errors
}

fn scope_selector(spec: &Value) -> Vec<FieldError> {
    let path = "spec.scopeSelector.matchExpressions";
    let mut errors = Vec::new();
    for one in list(&spec["scopeSelector"], "matchExpressions") {
        let scope = text(one, "scopeName");
        if !SCOPES.contains(&scope) {
            let path = format!("{path}.scopeName");
            errors.push(FieldError::invalid(path, scope, "unsupported scope"));
        }
        let values = list(one, "values");
        let values_path = format!("{path}.values");
        match text(one, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                values_path,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::invalid(
                values_path,
                one["values"].clone(),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                operator,
                "not a valid selector operator",
            )),
        }
    }
    errors
}

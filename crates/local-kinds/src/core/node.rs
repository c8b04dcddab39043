//! Nodes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::labels::label_key;
use crate::check::names::label_value;
use crate::check::resources::{amounts, canonicalize};
use crate::check::show;
use crate::core::pod::TAINT_EFFECTS;
use crate::print::{NAME, NONE, UNKNOWN, age, column, name, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{child, child_mut, entries, index, is_empty, list, restore, same, text, truth};

/// The rules of Nodes.
pub struct NodeRules;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const OLD_ROLE: &str = "kubernetes.io/role";

const COLUMNS: &[Column] = &[
    NAME,
    column("Status"),
    column("Roles"),
    column("Age"),
    column("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

impl KindRules for NodeRules {
    fn default(&self, _version: &str, object: &mut Value) {
        if let Some(spec) = child_mut(object, "spec") {
            agree(spec);
        }
        let Some(status) = child_mut(object, "status") else {
            return;
        };
        canonicalize(status, "capacity");
        canonicalize(status, "allocatable");
        if is_empty(&status["allocatable"]) && !is_empty(&status["capacity"]) {
            status["allocatable"] = status["capacity"].clone();
        }
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        restore(new, old, "spec");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = check(new);
        let (after, before) = (&new["spec"], &old["spec"]);
        if !is_empty(&before["podCIDRs"]) && !same(&before["podCIDRs"], &after["podCIDRs"]) {
            errors.push(FieldError::forbidden(
                "spec.podCIDRs",
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        if !is_empty(&before["providerID"]) && before["providerID"] != after["providerID"] {
            errors.push(FieldError::forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        status(&new["status"])
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let information = &object["status"]["nodeInfo"];
        let known = |key: &str| match text(information, key) {
            "" => Value::from(UNKNOWN),
            value => value.into(),
        };
        vec![
            name(object),
            state(object).into(),
            roles(object).into(),
            age(object, now),
            text(information, "kubeletVersion").into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            known("osImage"),
            known("kernelVersion"),
            known("containerRuntimeVersion"),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_field(&self, object: &Value, _field: &str) -> String {
        truth(&object["spec"], "unschedulable").to_string()
    }
}

/// `podCIDR` is the first of `podCIDRs`; the single field wins.
fn agree(spec: &mut Value) {
    let single = text(spec, "podCIDR").to_string();
    let first = list(spec, "podCIDRs").first().cloned();
    match first {
        Some(first) if single.is_empty() => spec["podCIDR"] = first,
        Some(first) if first == single.as_str() => {}
        _ if single.is_empty() => {}
        _ => spec["podCIDRs"] = Value::from(vec![single]),
    }
}

fn check(node: &Value) -> Vec<FieldError> {
    let mut errors = taints(&node["spec"], "metadata.taints");
    errors.extend(status(&node["status"]));
    for (position, one) in list(&node["spec"], "podCIDRs").iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        if crate::check::names::network(one).is_none() {
            let path = index("spec.podCIDRs", position);
            errors.push(FieldError::invalid(
                path,
                one,
                crate::check::names::CIDR_WORDS,
            ));
        }
    }
    errors
}

fn status(status: &Value) -> Vec<FieldError> {
    let mut errors = amounts(status, "capacity", "status");
    errors.extend(amounts(status, "allocatable", "status"));
    let mut taken = BTreeSet::new();
    for (position, one) in list(status, "addresses").iter().enumerate() {
        if !taken.insert((text(one, "type"), text(one, "address"))) {
            let shown = show::structure(&[
                ("Type", show::text(one, "type")),
                ("Address", show::text(one, "address")),
            ]);
            let path = index("status.addresses", position);
            errors.push(FieldError::duplicate(path, one.clone()).showing(shown));
        }
    }
    errors
}

fn taints(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut by_effect: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut errors = Vec::new();
    for (position, one) in list(spec, "taints").iter().enumerate() {
        let path = index(path, position);
        let (key, value, effect) = (text(one, "key"), text(one, "value"), text(one, "effect"));
        errors.extend(label_key(key, &child(&path, "key")));
        let wrong = label_value(value);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(
                child(&path, "value"),
                value,
                wrong.join(";"),
            ));
        }
        if !TAINT_EFFECTS.contains(&effect) {
            let path = child(&path, "effect");
            errors.push(FieldError::not_supported(path, effect, TAINT_EFFECTS));
        }
        if !by_effect.entry(effect).or_default().insert(key) {
            let shown = show::structure(&[
                ("Key", show::text(one, "key")),
                ("Value", show::text(one, "value")),
                ("Effect", show::text(one, "effect")),
                ("TimeAdded", show::pointer(one, "timeAdded")),
            ]);
            let mut error = FieldError::duplicate(path, one.clone()).showing(shown);
            error.detail = "taints must be unique by key and effect pair".to_string();
            errors.push(error);
        }
    }
    errors
}

fn state(node: &Value) -> String {
    let ready = list(&node["status"], "conditions")
        .iter()
        .find(|one| text(one, "type") == "Ready");
    let mut parts = vec![match ready {
        Some(one) if text(one, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if truth(&node["spec"], "unschedulable") {
        parts.push("SchedulingDisabled");
    }
    parts.join(",")
}

fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = entries(&node["metadata"], "labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == OLD_ROLE => value.as_str().filter(|role| !role.is_empty()),
            _ => None,
        })
        .collect();
    if roles.is_empty() {
        return NONE.to_string();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Value, kind: &str) -> Value {
    list(&node["status"], "addresses")
        .iter()
        .find(|one| text(one, "type") == kind)
        .map_or(NONE.into(), |one| text(one, "address").into())
}

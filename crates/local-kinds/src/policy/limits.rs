//! LimitRanges.

use std::collections::BTreeSet;

use local_schema::{FieldError, Quantity};
use serde_json::{Value, json};

use crate::check::names::{invalid, qualified};
use crate::check::resources::{canonicalize, quantity};
use crate::rules::KindRules;
use crate::tree::{
    child, child_mut, entries, fill, index, is_empty, list, list_mut, object_mut, present, text,
};

/// The rules of LimitRanges.
pub struct LimitRangeRules;

const STANDARD_TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const MAPS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

impl KindRules for LimitRangeRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let Some(spec) = child_mut(object, "spec") else {
            return;
        };
        for item in list_mut(spec, "limits") {
            for key in MAPS {
                canonicalize(item, key);
            }
            if text(item, "type") == "Container" {
                default_container(item);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut types = BTreeSet::new();
        let mut errors = Vec::new();
        for (position, item) in list(&object["spec"], "limits").iter().enumerate() {
            let path = index("spec.limits", position);
            let kind = text(item, "type");
            errors.extend(limit_type(kind, &child(&path, "type")));
            if !types.insert(kind) {
                errors.push(FieldError::duplicate(child(&path, "type"), kind));
            }
            errors.extend(check_item(item, kind, &path));
        }
        errors
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }
}

/// A maximum is a default limit, a default limit or a minimum is a default request.
fn default_container(item: &mut Value) {
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let source: Vec<(String, Value)> = entries(item, from)
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect();
        if is_empty(&item[to]) {
            item[to] = json!({});
        }
        let target = object_mut(item, to);
        for (name, amount) in source {
            fill(target, &name, amount);
        }
    }
    for key in ["default", "defaultRequest"] {
        if is_empty(&item[key]) {
            crate::tree::remove(item, key);
        }
    }
}

fn limit_type(kind: &str, path: &str) -> Vec<FieldError> {
    let errors = invalid(path, kind, qualified(kind));
    if errors.is_empty() && !kind.contains('/') && !STANDARD_TYPES.contains(&kind) {
        let words = "must be a standard limit type or fully qualified";
        return vec![FieldError::invalid(path, kind, words)];
    }
    errors
}

fn check_item(item: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if kind == "Pod" {
        for key in ["default", "defaultRequest"] {
            if !is_empty(&item[key]) {
                let words = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(child(path, key), words));
            }
        }
    }
    if kind == "PersistentVolumeClaim"
        && !present(&item["min"], "storage")
        && !present(&item["max"], "storage")
    {
        let words = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(child(path, "limits"), words));
    }
    let names: BTreeSet<&String> = MAPS
        .iter()
        .flat_map(|key| entries(item, key).map(|(name, _)| name))
        .collect();
    for name in names {
        errors.extend(check_resource(item, name, path));
    }
    errors
}

fn check_resource(item: &Value, name: &str, path: &str) -> Vec<FieldError> {
    let of = |key: &str| -> Option<Quantity> {
        present(&item[key], name).then(|| quantity(&item[key][name]))
    };
    let (min, max) = (of("min"), of("max"));
    let (request, limit, ratio) = (
        of("defaultRequest"),
        of("default"),
        of("maxLimitRequestRatio"),
    );
    let mut errors = Vec::new();
    let mut bounded = |low: Option<Quantity>,
                       low_name: &str,
                       high: Option<Quantity>,
                       high_name: &str,
                       key: &str,
                       shown: Option<Quantity>| {
        let (Some(low), Some(high), Some(shown)) = (low, high, shown) else {
            return;
        };
        if low > high {
            let words = format!("{low_name} value {low} is greater than {high_name} value {high}");
            errors.push(FieldError::invalid(
                index(&child(path, key), name),
                shown.to_string(),
                words,
            ));
        }
    };
    bounded(min, "min", max, "max", "min", min);
    bounded(
        min,
        "min",
        request,
        "default request",
        "defaultRequest",
        request,
    );
    bounded(
        request,
        "default request",
        max,
        "max",
        "defaultRequest",
        request,
    );
    bounded(
        request,
        "default request",
        limit,
        "default limit",
        "defaultRequest",
        request,
    );
    // Upstream shows the other side of the comparison in the next two.
    bounded(min, "min", limit, "default", "default", min);
    bounded(limit, "default", max, "max", "default", max);
    if let Some(ratio) = ratio
        && ratio < Quantity::from_integer(1)
    {
        let words = format!("ratio {ratio} is less than 1");
        let path = index(&child(path, "maxLimitRequestRatio"), name);
        errors.push(FieldError::invalid(path, ratio.to_string(), words));
    }
    errors
}

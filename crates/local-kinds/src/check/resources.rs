//! Resource names and amounts: requests, limits, capacities.

use local_schema::{FieldError, Quantity};
use serde_json::Value;

use super::names::{invalid, qualified};
use super::numbers::NOT_NEGATIVE;
use crate::tree::{child, entries, index};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const OTHER_STANDARD: [&str; 10] = [
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "hugepages",
];

/// A quantity in a tree; values that are none count as zero, decoding has refused them.
pub fn quantity(value: &Value) -> Quantity {
    Quantity::from_value(value).unwrap_or(Quantity::ZERO)
}

/// Writes the amounts of a resource list in canonical form, rounded up to thousandths.
pub fn canonicalize(parent: &mut Value, key: &str) {
    let Some(map) = parent.get_mut(key).and_then(Value::as_object_mut) else {
        return;
    };
    for amount in map.values_mut() {
        if let Ok(parsed) = Quantity::from_value(amount) {
            *amount = parsed.rounded_to_milli().to_string().into();
        }
    }
}

/// Names without a domain that are huge pages.
pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Names that nodes and quotas know without a domain.
pub fn is_standard(name: &str) -> bool {
    CONTAINER.contains(&name)
        || COUNTED.contains(&name)
        || OTHER_STANDARD.contains(&name)
        || is_huge_pages(name)
        || name.starts_with("requests.hugepages-")
}

/// Names that a quota may limit.
pub fn is_quota_resource(name: &str) -> bool {
    is_standard(name) && name != "storage" || name.starts_with("count/")
}

fn is_native(name: &str) -> bool {
    match name.split_once('/') {
        None => true,
        Some((domain, _)) => domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"),
    }
}

/// Resources of which a node may promise more than it has.
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Resources that only come whole.
pub fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || name.starts_with("count/") || is_extended(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.")
}

/// A resource's name anywhere.
pub fn resource_name(name: &str, path: &str) -> Vec<FieldError> {
    let errors = invalid(path, name, qualified(name));
    if !errors.is_empty() {
        return errors;
    }
    if !name.contains('/') && !is_standard(name) {
        let words = "must be a standard resource type or fully qualified";
        return vec![FieldError::invalid(path, name, words)];
    }
    errors
}

fn container_resource_name(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = resource_name(name, path);
    if !name.contains('/') && !CONTAINER.contains(&name) && !is_huge_pages(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource for containers",
        ));
    }
    errors
}

/// An amount of one resource: not negative, whole where the resource only comes whole.
pub fn amount(name: &str, value: &Value, path: &str) -> Vec<FieldError> {
    let quantity = quantity(value);
    let mut errors = Vec::new();
    if quantity.nanos() < 0 {
        errors.push(FieldError::invalid(
            path,
            quantity.to_string(),
            NOT_NEGATIVE,
        ));
    }
    if is_counted(name) && quantity.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(
            path,
            quantity.to_string(),
            "must be an integer",
        ));
    }
    errors
}

/// A map of resource names to amounts, as nodes report it.
pub fn amounts(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    let path = child(path, key);
    entries(parent, key)
        .flat_map(|(name, value)| {
            let path = index(&path, name);
            let mut errors = resource_name(name, &path);
            errors.extend(amount(name, value, &path));
            errors
        })
        .collect()
}

/// A container's requests and limits.
pub fn requirements(resources: &Value, path: &str) -> Vec<FieldError> {
    let limits_path = child(path, "limits");
    let requests_path = child(path, "requests");
    let mut errors = Vec::new();
    for (name, value) in entries(resources, "limits") {
        let path = index(&limits_path, name);
        errors.extend(container_resource_name(name, &path));
        errors.extend(amount(name, value, &path));
    }
    for (name, value) in entries(resources, "requests") {
        let path = index(&requests_path, name);
        errors.extend(container_resource_name(name, &path));
        errors.extend(amount(name, value, &path));
        let limit = &resources["limits"][name.as_str()];
        errors.extend(against_limit(
            name,
            value,
            limit,
            &requests_path,
            &limits_path,
        ));
    }
    errors
}

fn against_limit(
    name: &str,
    value: &Value,
    limit: &Value,
    requests_path: &str,
    limits_path: &str,
) -> Vec<FieldError> {
    let overcommit = is_overcommit_allowed(name);
    if limit.is_null() {
        if overcommit {
            return Vec::new();
        }
        let words = "Limit must be set for non overcommitable resources";
        return vec![FieldError::required(limits_path, words)];
    }
    let (asked, limit) = (quantity(value), quantity(limit));
    let words = if asked != limit && !overcommit {
        format!("must be equal to {name} limit of {limit}")
    } else if asked > limit {
        format!("must be less than or equal to {name} limit of {limit}")
    } else {
        return Vec::new();
    };
    vec![FieldError::invalid(requests_path, asked.to_string(), words)]
}

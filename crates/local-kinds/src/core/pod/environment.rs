//! Environment variables and where their values come from.

use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{config_key, environment_name, invalid, qualified};
use crate::tree::{child, index, list, present, text, truth};

/// Fields of the pod that a variable can show.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a downward volume can show.
pub const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields that the downward interface knows at all.
const KNOWN: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The variables of one container.
pub fn check(container: &Value, path: &str) -> Vec<FieldError> {
    let own = child(path, "env");
    let mut errors = Vec::new();
    for (position, variable) in list(container, "env").iter().enumerate() {
        let path = index(&own, position);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(child(&path, "name"), ""));
        } else {
            errors.extend(invalid(&child(&path, "name"), name, environment_name(name)));
        }
        errors.extend(source(variable, &child(&path, "valueFrom")));
    }
    errors.extend(whole_sources(container, &child(path, "envFrom")));
    errors
}

fn source(variable: &Value, path: &str) -> Vec<FieldError> {
    let source = &variable["valueFrom"];
    if source.is_null() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let mut count = 0;
    if present(source, "fieldRef") {
        count += 1;
        errors.extend(field_reference(
            &source["fieldRef"],
            FIELDS,
            &child(path, "fieldRef"),
        ));
    }
    if present(source, "resourceFieldRef") {
        count += 1;
        let path = child(path, "resourceFieldRef");
        errors.extend(resource_reference(
            &source["resourceFieldRef"],
            false,
            &path,
        ));
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if present(source, key) {
            count += 1;
            errors.extend(key_reference(&source[key], &child(path, key)));
        }
    }
    let words = if count == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
    } else if !text(variable, "value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if count > 1 {
        "may not have more than one field specified at a time"
    } else {
        return errors;
    };
    errors.push(FieldError::invalid(path, "", words));
    errors
}

/// A reference to a field of the pod.
pub fn field_reference(reference: &Value, allowed: &[&str], path: &str) -> Vec<FieldError> {
    let version = text(reference, "apiVersion");
    let field = text(reference, "fieldPath");
    if version.is_empty() {
        return vec![FieldError::required(child(path, "apiVersion"), "")];
    }
    let path_of_field = child(path, "fieldPath");
    if field.is_empty() {
        return vec![FieldError::required(path_of_field, "")];
    }
    if let Some((map, key)) = subscript(field) {
        let wrong = match map {
            "metadata.annotations" => qualified(&key.to_lowercase()),
            "metadata.labels" => qualified(key),
            _ => {
                let words = format!(
                    "error converting fieldPath: field label does not support subscript: {field}"
                );
                return vec![FieldError::invalid(path_of_field, field, words)];
            }
        };
        return invalid(path, key, wrong);
    }
    if !KNOWN.contains(&field) {
        let words = format!("error converting fieldPath: field label not supported: {field}");
        return vec![FieldError::invalid(path_of_field, field, words)];
    }
    if !allowed.contains(&field) {
        return vec![FieldError::not_supported(path_of_field, field, allowed)];
    }
    Vec::new()
}

/// `metadata.labels['app']` in its two parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let inner = field.strip_suffix("']")?;
    inner.split_once("['")
}

/// A reference to a container's request or limit.
pub fn resource_reference(reference: &Value, volume: bool, path: &str) -> Vec<FieldError> {
    let resource = text(reference, "resource");
    if volume && text(reference, "containerName").is_empty() {
        return vec![FieldError::required(child(path, "containerName"), "")];
    }
    if resource.is_empty() {
        return vec![FieldError::required(child(path, "resource"), "")];
    }
    let huge =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if RESOURCES.contains(&resource) || huge {
        return Vec::new();
    }
    vec![FieldError::not_supported(
        child(path, "resource"),
        resource,
        RESOURCES,
    )]
}

fn key_reference(reference: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(reference, "name").is_empty() && !truth(reference, "optional") {
        errors.push(FieldError::required(child(path, "name"), ""));
    }
    match text(reference, "key") {
        "" => errors.push(FieldError::required(child(path, "key"), "")),
        key => errors.extend(invalid(&child(path, "key"), key, config_key(key))),
    }
    errors
}

fn whole_sources(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (position, source) in list(container, "envFrom").iter().enumerate() {
        let path = index(path, position);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.extend(invalid(
                &child(&path, "prefix"),
                prefix,
                environment_name(prefix),
            ));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|key| present(source, key))
            .collect();
        for key in &given {
            let reference = &source[*key];
            if text(reference, "name").is_empty() && !truth(reference, "optional") {
                errors.push(FieldError::required(child(&child(&path, key), "name"), ""));
            }
        }
        match given.len() {
            0 => {
                let words = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(path, "", words));
            }
            1 => {}
            _ => {
                let words = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(path, "", words));
            }
        }
    }
    errors
}

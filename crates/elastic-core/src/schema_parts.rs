//! Parts of schemas that several of our kinds share.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::{KRUISE_GROUP, MANAGED_BY, MANAGED_BY_LABEL, SCHEDULING_GROUP};

/// What one kind's definition says that no other's does.
pub(crate) struct Kind<'a> {
    /// Its API group.
    pub(crate) group: &'a str,
    /// The one version that is served and stored.
    pub(crate) version: &'a str,
    /// Its name in manifests; the plural is made of it.
    pub(crate) kind: &'a str,
    /// What people type.
    pub(crate) short_name: &'a str,
    /// Beside `status`, such as `scale`.
    pub(crate) subresources: Value,
    /// Printed columns.
    pub(crate) columns: Value,
    /// Its structural schema.
    pub(crate) schema: Value,
}

/// The definition of a namespaced kind. In the group of another product it carries the label that says it is ours.
pub(crate) fn definition(kind: Kind<'_>) -> CustomResourceDefinition {
    let singular = kind.kind.to_lowercase();
    let plural = if singular.ends_with('y') {
        format!("{}ies", singular.trim_end_matches('y'))
    } else {
        format!("{singular}s")
    };
    let mut subresources = json!({"status": {}});
    for (name, value) in kind.subresources.as_object().into_iter().flatten() {
        subresources[name] = value.clone();
    }
    let mut metadata = json!({"name": format!("{plural}.{}", kind.group)});
    if [KRUISE_GROUP, SCHEDULING_GROUP].contains(&kind.group) {
        metadata["labels"] = json!({MANAGED_BY_LABEL: MANAGED_BY});
    }
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "plural": plural, "singular": singular, "kind": kind.kind,
                "listKind": format!("{}List", kind.kind), "shortNames": [kind.short_name]
            },
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "subresources": subresources,
                "additionalPrinterColumns": kind.columns,
                "schema": {"openAPIV3Schema": kind.schema}
            }]
        }
    }))
    .expect("the literal above has the shape of a CustomResourceDefinition, which a test of all definitions holds")
}

/// The schema of an object with these two parts.
pub(crate) fn object(description: &str, spec: Value, status: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": spec, "status": status
        }
    })
}

/// An object that is kept as written.
pub(crate) fn anything(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

/// Conditions of a status.
pub(crate) fn conditions() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"},
                "message": {"type": "string"}, "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64"}
            }
        }
    })
}

/// A label selector.
pub(crate) fn label_selector() -> Value {
    json!({
        "type": "object",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": requirements()
        }
    })
}

/// Requirements of a selector.
fn requirements() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": {"type": "string"}, "operator": {"type": "string"},
                "values": {"type": "array", "items": {"type": "string"}}
            }
        }
    })
}

/// One term of a node selector.
pub(crate) fn node_selector_term() -> Value {
    let requirements = requirements();
    json!({"type": "object", "properties": {"matchExpressions": requirements, "matchFields": requirements}})
}

/// Tolerations of a pod.
pub(crate) fn tolerations() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "key": {"type": "string"}, "operator": {"type": "string"}, "value": {"type": "string"},
                "effect": {"type": "string"}, "tolerationSeconds": {"type": "integer", "format": "int64"}
            }
        }
    })
}

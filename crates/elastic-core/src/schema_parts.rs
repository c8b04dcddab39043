//! Parts of schemas that several of our kinds share.

use serde_json::{Value, json};

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

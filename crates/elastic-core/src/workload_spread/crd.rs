//! The CustomResourceDefinition, written by hand: small, with every field documented.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::KRUISE_GROUP;
use crate::schema_parts::{
    Kind, anything, conditions, definition, label_selector, node_selector_term, object, tolerations,
};

/// The definition to apply before the controller runs.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    definition(Kind {
        group: KRUISE_GROUP,
        version: "v1alpha1",
        kind: "WorkloadSpread",
        short_name: "ws",
        subresources: json!({}),
        columns: json!([
            {"name": "WorkloadName", "type": "string", "jsonPath": ".spec.targetRef.name"},
            {"name": "WorkloadKind", "type": "string", "jsonPath": ".spec.targetRef.kind"},
            {"name": "Strategy", "type": "string", "jsonPath": ".spec.scheduleStrategy.type", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
        ]),
        schema: object(
            "Gives the pods of one workload to subsets of the nodes, in order.",
            spec(),
            status(),
        ),
    })
}

fn spec() -> Value {
    let text = json!({"type": "string"});
    let amount = json!({"x-kubernetes-int-or-string": true});
    let preferred = json!({
        "type": "object", "required": ["weight", "preference"],
        "properties": {"weight": {"type": "integer", "format": "int32"}, "preference": node_selector_term()}
    });
    json!({
        "type": "object",
        "required": ["targetRef", "subsets"],
        "properties": {
            "targetRef": {
                "type": "object",
                "required": ["apiVersion", "kind", "name"],
                "properties": {"apiVersion": text, "kind": text, "name": text},
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "targetRef cannot be changed; make another WorkloadSpread"}]
            },
            "targetFilter": {
                "type": "object",
                "properties": {"selector": label_selector(), "replicasPathList": {"type": "array", "items": text}}
            },
            "subsets": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": text,
                        "requiredNodeSelectorTerm": node_selector_term(),
                        "preferredNodeSelectorTerms": {"type": "array", "items": preferred},
                        "tolerations": tolerations(),
                        "minReplicas": amount, "maxReplicas": amount,
                        "patch": anything("Strategic merge patch on the pod.")
                    }
                }
            },
            "scheduleStrategy": {
                "type": "object",
                "properties": {
                    "type": text,
                    "adaptive": {"type": "object", "properties": {
                        "disableSimulationSchedule": {"type": "boolean"},
                        "rescheduleCriticalSeconds": {"type": "integer", "format": "int32"}
                    }}
                }
            }
        }
    })
}

fn status() -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let times = json!({"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}});
    let subsets = json!({"type": "array", "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"}, "replicas": number, "missingReplicas": number,
            "creatingPods": times, "deletingPods": times, "conditions": conditions()
        }
    }});
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "observedWorkloadReplicas": number,
            "subsetStatuses": subsets,
            "versionedSubsetStatuses": {"type": "object", "additionalProperties": subsets},
            "conditions": conditions()
        }
    })
}

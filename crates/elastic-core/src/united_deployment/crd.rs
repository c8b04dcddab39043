//! The CustomResourceDefinition, written by hand: small, with every field documented. Templates are kept as written.

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
        kind: "UnitedDeployment",
        short_name: "ud",
        subresources: json!({"scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector"
        }}),
        columns: json!([
            {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas", "description": "Replicas asked for"},
            {"name": "Current", "type": "integer", "jsonPath": ".status.replicas", "description": "Pods of all subsets"},
            {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas", "description": "Ready pods of all subsets"},
            {"name": "Updated", "type": "integer", "jsonPath": ".status.updatedReplicas", "description": "Pods of the newest template"},
            {"name": "Reserved", "type": "integer", "jsonPath": ".status.reservedPods", "priority": 1, "description": "Pods that wait for a place"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
        ]),
        schema: object(
            "One workload of several child workloads, one for each subset of the nodes.",
            spec(),
            status(),
        ),
    })
}

fn spec() -> Value {
    let template = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"metadata": anything("Labels and annotations of the children."), "spec": anything("Spec of the children.")}
    });
    json!({
        "type": "object",
        "required": ["selector", "template", "topology"],
        "properties": {
            "replicas": {"type": "integer", "format": "int32", "default": 1, "description": "Replicas of all subsets together."},
            "selector": label_selector(),
            "template": {
                "type": "object",
                "properties": {
                    "deploymentTemplate": template, "statefulSetTemplate": template,
                    "cloneSetTemplate": anything("Not supported."), "advancedStatefulSetTemplate": anything("Not supported.")
                }
            },
            "topology": topology(),
            "updateStrategy": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "manualUpdate": {"type": "object", "properties": {
                        "partitions": {"type": "object", "additionalProperties": {"type": "integer", "format": "int32"}}
                    }}
                }
            },
            "revisionHistoryLimit": {"type": "integer", "format": "int32", "description": "Old revisions each child keeps."}
        }
    })
}

fn topology() -> Value {
    let amount = json!({"x-kubernetes-int-or-string": true});
    let seconds = json!({"type": "integer", "format": "int32"});
    json!({
        "type": "object",
        "properties": {
            "subsets": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "nodeSelectorTerm": node_selector_term(),
                        "tolerations": tolerations(),
                        "replicas": amount, "minReplicas": amount, "maxReplicas": amount,
                        "patch": anything("Strategic merge patch on the pod template.")
                    }
                }
            },
            "scheduleStrategy": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "adaptive": {"type": "object", "properties": {
                        "rescheduleCriticalSeconds": seconds, "unschedulableDuration": seconds,
                        "unschedulableLastSeconds": seconds, "reserveUnschedulablePods": {"type": "boolean"}
                    }}
                }
            }
        }
    })
}

fn status() -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "replicas": number, "readyReplicas": number, "updatedReplicas": number, "reservedPods": number,
            "subsetReplicas": {"type": "object", "additionalProperties": number},
            "subsetStatuses": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"}, "replicas": number, "readyReplicas": number, "partition": number,
                    "reservedPods": number, "conditions": conditions()
                }
            }},
            "labelSelector": {"type": "string"},
            "conditions": conditions()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_scales_and_says_who_made_it() {
        let definition = custom_resource_definition();
        let version = &definition.spec.versions[0];
        let scale = version
            .subresources
            .as_ref()
            .unwrap()
            .scale
            .as_ref()
            .unwrap();
        assert_eq!(
            scale.label_selector_path.as_deref(),
            Some(".status.labelSelector")
        );
        assert_eq!(
            definition.metadata.labels.unwrap()["app.kubernetes.io/managed-by"],
            "springtide"
        );
    }
}

//! The CustomResourceDefinition. Fields that are not known are kept, so that they can be refused by name in the status
//! instead of vanishing.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::SCHEDULING_GROUP;
use crate::schema_parts::{Kind, conditions, definition, object};

/// The definition to apply before the controller runs.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    definition(Kind {
        group: SCHEDULING_GROUP,
        version: "v1alpha1",
        kind: "ResourcePolicy",
        short_name: "rp",
        subresources: json!({}),
        columns: json!([
            {"name": "Units", "type": "string", "jsonPath": ".status.summary", "description": "Pods of each unit and how many it takes"},
            {"name": "Waiting", "type": "integer", "jsonPath": ".status.waitingPods", "description": "Pods that no unit takes now"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
        ]),
        schema: object(
            "Gives pods to units of the cluster's resources, in order.",
            spec(),
            status(),
        ),
    })
}

fn texts(description: &str) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}})
}

fn spec() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let flag = |description: &str| json!({"type": "boolean", "description": description});
    json!({
        "type": "object",
        "required": ["units"],
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "selector": texts("Labels of the pods; all pods of the namespace when empty."),
            "strategy": text("prefer"),
            "units": {
                "type": "array",
                "description": "In the order in which they fill; they are emptied in the opposite one.",
                "maxItems": 50,
                "items": {
                    "type": "object",
                    "required": ["resource"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "resource": text("ecs, elastic or eci"),
                        "nodeSelector": texts("Labels of the unit's nodes."),
                        "max": {"type": "integer", "format": "int32", "description": "Most pods; no limit when absent."},
                        "maxResources": {"type": "object", "description": "Most that the pods request together.",
                            "additionalProperties": {"x-kubernetes-int-or-string": true}},
                        "podLabels": texts("Written on the unit's pods."),
                        "podAnnotations": texts("Written on the unit's pods.")
                    }
                }
            },
            "preemptPolicy": text("AfterAllUnits or BeforeNextUnit"),
            "ignorePreviousPod": flag("Pods older than the policy do not count."),
            "ignoreTerminatingPod": flag("Pods that are ending do not count; true when absent."),
            "matchLabelKeys": {"type": "array", "items": {"type": "string"}, "description": "max holds for each group of pods that agree in these labels."},
            "whenTryNextUnits": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "policy": text("LackResourceOrExceedMax, ExceedMax, TimeoutOrExceedMax or LackResourceAndNoTerminating"),
                    "timeout": text("With TimeoutOrExceedMax, such as 1m; 15m when absent.")
                }
            }
        }
    })
}

fn status() -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let times = json!({"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}});
    let units = json!({"type": "array", "items": {
        "type": "object",
        "properties": {
            "unit": {"type": "string"}, "pods": number, "boundPods": number, "terminatingPods": number, "max": number,
            "creatingPods": times, "conditions": conditions()
        }
    }});
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "summary": {"type": "string"},
            "waitingPods": number,
            "units": units,
            "groups": {"type": "object", "additionalProperties": units},
            "conditions": conditions()
        }
    })
}

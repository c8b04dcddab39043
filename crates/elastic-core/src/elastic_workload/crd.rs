//! The CustomResourceDefinition, written out: the schema a user meets, its printed columns and subresources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::AUTOSCALING_GROUP;

/// The definition to apply before the controller runs.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("elasticworkloads.{AUTOSCALING_GROUP}")},
        "spec": {
            "group": AUTOSCALING_GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "elasticworkloads",
                "singular": "elasticworkload",
                "kind": "ElasticWorkload",
                "listKind": "ElasticWorkloadList",
                "shortNames": ["ew"]
            },
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector"
                    }
                },
                "additionalPrinterColumns": printed_columns(),
                "schema": {"openAPIV3Schema": schema()}
            }]
        }
    }))
    .expect("the literal above has the shape of a CustomResourceDefinition, which a test holds")
}

fn printed_columns() -> Value {
    json!([
        {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas", "description": "Replicas asked for"},
        {"name": "Current", "type": "integer", "jsonPath": ".status.replicas", "description": "Pods of the source and all units"},
        {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas", "description": "Ready pods of the source and all units"},
        {"name": "Source", "type": "string", "jsonPath": ".spec.sourceTarget.name", "description": "Workload on owned nodes"},
        {"name": "Owned", "type": "integer", "jsonPath": ".status.sourceTarget.desiredReplicas", "description": "Share of the source"},
        {"name": "Units", "type": "string", "jsonPath": ".status.unitSummary", "description": "Shares of the units"},
        {"name": "State", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "description": "Why it is, or is not, as wanted"},
        {"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1, "description": "The same in words"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Keeps the first replicas of a workload on owned nodes and puts the others on serverless units. \
            Deleting it removes the units and gives the source all replicas back.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["sourceTarget"],
                "properties": {
                    "replicas": count("Replicas of the source and all units together; absent: what the source has when it is first seen."),
                    "sourceTarget": source_schema(),
                    "elasticUnit": {
                        "type": "array",
                        "maxItems": 20,
                        "description": "Where replicas beyond the source's max go, in order.",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": unit_schema()
                    },
                    "rescheduleAfterSeconds": count("A pod that waits longer than this for capacity passes its share on to the next place; absent: never."),
                    "recoverAfterSeconds": {
                        "type": "integer", "format": "int32", "minimum": 1,
                        "description": "A place that was short is tried again after this; absent: 300."
                    },
                    "rebalance": {
                        "type": "boolean",
                        "description": "Whether running replicas return to an earlier place that has room again; absent: true."
                    }
                }
            },
            "status": status_schema()
        }
    })
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 0, "description": description})
}

fn source_schema() -> Value {
    json!({
        "type": "object",
        "required": ["apiVersion", "kind", "name"],
        "properties": {
            "apiVersion": {"type": "string", "enum": ["apps/v1", "batch/v1"]},
            "kind": {"type": "string", "enum": ["Deployment", "StatefulSet", "Job"]},
            "name": {"type": "string", "minLength": 1, "maxLength": 63},
            "min": count("Replicas the source keeps."),
            "max": count("Most replicas on owned nodes. Neither min nor max: the source is a template only and runs nothing.")
        },
        "x-kubernetes-validations": [bounds_rule()]
    })
}

fn bounds_rule() -> Value {
    json!({
        "rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
        "message": "min must not be above max"
    })
}

fn unit_schema() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let quantities =
        json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}});
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "min": count("Replicas kept here always."),
            "max": count("Most replicas here; absent: no limit."),
            "labels": texts,
            "annotations": texts,
            "nodeSelector": texts,
            "tolerations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": "string"},
                        "operator": {"type": "string"},
                        "value": {"type": "string"},
                        "effect": {"type": "string"},
                        "tolerationSeconds": {"type": "integer", "format": "int64"}
                    }
                }
            },
            "affinity": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "container": {"type": "string", "minLength": 1, "description": "The container that image, env and resources are for; absent: the first."},
            "image": {"type": "string", "minLength": 1},
            "env": {
                "type": "array",
                "description": "Variables, added or replaced by name.",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "minLength": 1},
                        "value": {"type": "string"},
                        "valueFrom": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
                    }
                }
            },
            "resources": {
                "type": "object",
                "description": "Requests and limits, replaced one by one.",
                "properties": {"requests": quantities, "limits": quantities}
            },
            "patch": {
                "type": "object",
                "description": "A strategic merge patch of the pod template, applied last.",
                "x-kubernetes-preserve-unknown-fields": true
            }
        },
        "x-kubernetes-validations": [bounds_rule()]
    })
}

fn status_schema() -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "properties": {
            "replicas": number,
            "readyReplicas": number,
            "selector": text,
            "observedGeneration": {"type": "integer", "format": "int64"},
            "sourceTarget": place_status(&["apiVersion", "kind", "name"]),
            "elasticUnitsStatus": {"type": "array", "items": place_status(&["name"])},
            "unitSummary": text,
            "lastScale": {
                "type": "object",
                "properties": {"from": number, "to": number, "seenAt": time, "writtenAt": time, "sampledAt": time, "reportedAt": time}
            },
            "lastBurst": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "conditions": conditions()
        }
    })
}

/// What the status says of the source or of one unit; `names` are the members that tell which one.
fn place_status(names: &[&str]) -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let mut schema = json!({
        "type": "object",
        "properties": {
            "wantedReplicas": number, "desiredReplicas": number, "replicas": number, "readyReplicas": number,
            "updateTimestamp": time,
            "shortage": {
                "type": "object",
                "properties": {"since": time, "capacity": number, "reason": text, "recovered": time}
            },
            "conditions": conditions()
        }
    });
    for name in names {
        schema["properties"][*name] = text.clone();
    }
    schema
}

fn conditions() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": text, "status": text, "reason": text, "message": text,
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64"}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_has_the_names_and_paths_users_know() {
        let definition = custom_resource_definition();
        assert_eq!(
            definition.metadata.name.as_deref(),
            Some("elasticworkloads.autoscaling.alibabacloud.com")
        );
        assert_eq!(
            definition.spec.names.short_names,
            Some(vec!["ew".to_owned()])
        );
        let version = &definition.spec.versions[0];
        let scale = version
            .subresources
            .as_ref()
            .unwrap()
            .scale
            .as_ref()
            .unwrap();
        assert_eq!(scale.spec_replicas_path, ".spec.replicas");
        assert_eq!(scale.status_replicas_path, ".status.replicas");
        assert_eq!(
            scale.label_selector_path.as_deref(),
            Some(".status.selector")
        );
        let schema = version
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        assert!(schema.properties.as_ref().unwrap().contains_key("status"));
    }
}

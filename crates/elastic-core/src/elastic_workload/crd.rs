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
        {"name": "Units", "type": "string", "jsonPath": ".status.elasticUnitsStatus[*].desiredReplicas", "priority": 1, "description": "Shares of the units"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Keeps the first replicas of a Deployment on owned nodes and puts the others on serverless units. \
            Deleting it removes the units; the source keeps the replicas it has.",
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
            "apiVersion": {"type": "string", "enum": ["apps/v1"]},
            "kind": {"type": "string", "enum": ["Deployment"]},
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
            "affinity": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
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
            "sourceTarget": {
                "type": "object",
                "properties": {
                    "apiVersion": text, "kind": text, "name": text,
                    "desiredReplicas": number, "updateTimestamp": time
                }
            },
            "elasticUnitsStatus": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": text, "desiredReplicas": number, "updateTimestamp": time}
                }
            },
            "lastScale": {
                "type": "object",
                "properties": {"from": number, "to": number, "seenAt": time, "writtenAt": time, "sampledAt": time, "reportedAt": time}
            },
            "lastBurst": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "conditions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": text, "status": text, "reason": text, "message": text,
                        "lastTransitionTime": time,
                        "observedGeneration": {"type": "integer", "format": "int64"}
                    }
                }
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

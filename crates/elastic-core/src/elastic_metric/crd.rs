//! The CustomResourceDefinition, written out: the schema a user meets, its printed columns and subresources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::AUTOSCALING_GROUP;

/// The definition to apply before metrics are served.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("elasticmetrics.{AUTOSCALING_GROUP}")},
        "spec": {
            "group": AUTOSCALING_GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "elasticmetrics",
                "singular": "elasticmetric",
                "kind": "ElasticMetric",
                "listKind": "ElasticMetricList",
                "shortNames": ["em"]
            },
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": printed_columns(),
                "schema": {"openAPIV3Schema": schema()}
            }]
        }
    }))
    .expect("the literal above has the shape of a CustomResourceDefinition, which a test holds")
}

fn printed_columns() -> Value {
    json!([
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Value", "type": "string", "jsonPath": ".status.value", "description": "Newest value, or the sum of all series"},
        {"name": "Target", "type": "string", "jsonPath": ".spec.target.kind", "description": "Kind of the described object; empty for an external metric"},
        {"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"},
        {"name": "Path", "type": "string", "jsonPath": ".status.path", "priority": 1, "description": "Where the API serves it"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "One metric for an autoscaler, from a query or from the pods of a Service. With a target it is served as a \
            custom metric of that object, without one as an external metric of the namespace.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {
                    "metric": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[^/%*?#\\s]+$",
                        "description": "Name of the metric; absent: the object's name."},
                    "target": target_schema(),
                    "query": {"type": "string", "minLength": 1, "maxLength": 16384,
                        "description": "PromQL that gives an instant vector or a scalar."},
                    "scrape": scrape_schema(),
                    "intervalSeconds": seconds(300, "Between two looks at the source; 5 unless said otherwise."),
                    "maxAgeSeconds": seconds(3600, "Older values are as good as none; 120 unless said otherwise."),
                    "windowSeconds": seconds(3600, "The time over which the value is an average, as autoscalers are told.")
                },
                "x-kubernetes-validations": [
                    {"rule": "has(self.query) != has(self.scrape)", "message": "exactly one of query and scrape is needed"}
                ]
            },
            "status": status_schema()
        }
    })
}

fn seconds(most: u32, description: &str) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": most, "description": description})
}

fn target_schema() -> Value {
    json!({
        "type": "object",
        "required": ["apiVersion", "kind"],
        "description": "The described object, in the same namespace or the namespace itself; absent: an external metric.",
        "properties": {
            "apiVersion": {"type": "string", "minLength": 1},
            "kind": {"type": "string", "minLength": 1},
            "name": {"type": "string", "minLength": 1, "maxLength": 253,
                "description": "The one object; absent: every series names its own."},
            "nameLabel": {"type": "string", "minLength": 1,
                "description": "Label of the series that holds the object's name; absent: the kind in lower case."}
        }
    })
}

fn scrape_schema() -> Value {
    json!({
        "type": "object",
        "required": ["service", "metric"],
        "description": "Reads the endpoints of a Service directly, for clusters without Prometheus.",
        "properties": {
            "service": {"type": "string", "minLength": 1, "maxLength": 63},
            "port": {"x-kubernetes-int-or-string": true, "description": "Name or number of a port of the Service; absent: its only one."},
            "path": {"type": "string", "pattern": "^/", "maxLength": 1024, "description": "/metrics unless said otherwise."},
            "metric": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the series."},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Labels the series must have."},
            "aggregation": {"type": "string", "enum": ["Sum", "Average", "Max", "Min"],
                "description": "How the values of all endpoints become one; Sum unless said otherwise."}
        }
    })
}

fn status_schema() -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "value": text,
            "series": {"type": "integer", "format": "int32"},
            "lastReadTime": time,
            "path": text,
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
    fn the_definition_has_status_and_short_name() {
        let definition = custom_resource_definition();
        assert_eq!(
            definition.spec.names.short_names,
            Some(vec!["em".to_owned()])
        );
        let subresources = definition.spec.versions[0].subresources.as_ref().unwrap();
        assert!(subresources.status.is_some() && subresources.scale.is_none());
    }
}

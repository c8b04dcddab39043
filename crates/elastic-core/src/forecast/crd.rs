//! The CustomResourceDefinition of ElasticForecast, written out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::AUTOSCALING_GROUP;

/// The definition to apply before the controller runs.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("elasticforecasts.{AUTOSCALING_GROUP}")},
        "spec": {
            "group": AUTOSCALING_GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "elasticforecasts",
                "singular": "elasticforecast",
                "kind": "ElasticForecast",
                "listKind": "ElasticForecastList",
                "shortNames": ["ef"]
            },
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "description": "Observe reports, Serve is a metric too"},
                    {"name": "Period", "type": "string", "jsonPath": ".status.period", "description": "Day, Week or None"},
                    {"name": "Forecast", "type": "integer", "jsonPath": ".status.forecastReplicas", "description": "Replicas the forecast asks for"},
                    {"name": "Current", "type": "integer", "jsonPath": ".status.currentReplicas", "description": "Replicas the target has"},
                    {"name": "Error", "type": "string", "jsonPath": ".status.error.wape", "description": "Weighted error of last week's forecasts"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
                ],
                "schema": {"openAPIV3Schema": schema()}
            }]
        }
    }))
    .expect("the literal above has the shape of a CustomResourceDefinition, which a test holds")
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Learns the daily or weekly shape of a metric and says how many replicas will be needed by the time \
            a new one serves. Observe only reports; Serve offers the forecast to autoscalers as an external metric.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["source", "capacityPerReplica"],
                "properties": spec_properties()
            },
            "status": status_schema()
        }
    })
}

fn spec_properties() -> Value {
    json!({
        "mode": {"type": "string", "enum": ["Observe", "Serve"], "default": "Observe",
            "description": "Observe: the status says what would have been done. Serve: the metrics forecast and forecast_replicas as well."},
        "source": source_schema(),
        "stepSeconds": number("The length of a slot of the history; it must divide a day.", 10, 86400, Some(300)),
        "historyDays": number("How far the history goes back.", 2, 365, Some(28)),
        "period": {"type": "string", "enum": ["Auto", "Day", "Week"], "default": "Auto",
            "description": "Auto uses a period only when it stands out clearly."},
        "quantile": number("The replicas suffice in this percentage of cases.", 50, 99, Some(95)),
        "startupSeconds": number("How long a new replica takes until it serves; measured by the target's pods when absent.", 0, 86400, None),
        "timeZone": {"type": "string", "minLength": 1,
            "description": "Whose days and weeks the load follows, such as Asia/Shanghai; UTC when absent."},
        "capacityPerReplica": {"x-kubernetes-int-or-string": true,
            "description": "What one replica carries, in the unit of the metric."},
        "refreshSeconds": number("How often the forecast is made anew.", 5, 3600, Some(60)),
        "target": {
            "type": "object",
            "description": "The workload whose replicas are compared with the forecast; it is never changed.",
            "required": ["apiVersion", "kind", "name"],
            "properties": {
                "apiVersion": {"type": "string", "minLength": 1},
                "kind": {"type": "string", "minLength": 1},
                "name": {"type": "string", "minLength": 1}
            }
        },
        "minReplicas": number("The forecast asks for at least these.", 0, i64::from(i32::MAX), None),
        "maxReplicas": number("The forecast asks for at most these.", 0, i64::from(i32::MAX), None),
        "bounds": {
            "type": "array",
            "maxItems": 100,
            "description": "Times that are known to be different; the first that holds counts instead of minReplicas and maxReplicas.",
            "items": {
                "type": "object",
                "properties": {
                    "startTime": {"type": "string", "format": "date-time"},
                    "endTime": {"type": "string", "format": "date-time"},
                    "schedule": {"type": "string", "description": "A cron expression in timeZone: it comes again at each activation, between startTime and endTime where they are given."},
                    "until": {"type": "string", "description": "With schedule: it lasts until the next activation of this expression; @every 2h is a length."},
                    "minReplicas": number("At least these, even when nothing is forecast.", 0, i64::from(i32::MAX), None),
                    "maxReplicas": number("At most these.", 0, i64::from(i32::MAX), None)
                }
            }
        }
    })
}

fn number(description: &str, minimum: i64, maximum: i64, default: Option<i64>) -> Value {
    let mut schema = json!({
        "type": "integer", "format": "int32", "minimum": minimum, "maximum": maximum, "description": description,
    });
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}

fn source_schema() -> Value {
    json!({
        "type": "object",
        "description": "Where the history comes from; exactly one.",
        "properties": {
            "prometheus": {
                "type": "object",
                "required": ["address", "query"],
                "properties": {
                    "address": {"type": "string", "pattern": "^https?://", "description": "http://host:port or https://host:port of the server."},
                    "query": {"type": "string", "minLength": 1, "description": "A query that gives one series."},
                    "authorizationSecret": key_reference("A Secret's key with what the header Authorization says; a bare word is a bearer token."),
                    "authorityConfigMap": key_reference("A ConfigMap's key with who vouches for the server, as PEM.")
                }
            },
            "configMap": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "key": {"type": "string", "minLength": 1, "default": "history.csv",
                        "description": "Holds lines timestamp,value. An old history is moved forward by whole weeks."}
                }
            }
        },
        "x-kubernetes-validations": [{
            "rule": "has(self.prometheus) != has(self.configMap)",
            "message": "exactly one of prometheus and configMap must be set"
        }]
    })
}

fn key_reference(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["name", "key"],
        "properties": {"name": {"type": "string", "minLength": 1}, "key": {"type": "string", "minLength": 1}}
    })
}

fn status_schema() -> Value {
    let (text, time) = (
        json!({"type": "string"}),
        json!({"type": "string", "format": "date-time"}),
    );
    let count = json!({"type": "integer", "format": "int32"});
    let long = json!({"type": "integer", "format": "int64"});
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": long,
            "period": text,
            "periodStrength": text,
            "history": {"type": "object", "properties": {"from": time, "to": time, "slots": long, "missing": long}},
            "forecastTime": time,
            "forecast": {"type": "array", "items": {"type": "object", "properties": {"quantile": text, "value": text}}},
            "startupSeconds": long,
            "startupSource": text,
            "forecastReplicas": count,
            "currentReplicas": count,
            "wouldBeReplicas": count,
            "error": {"type": "object", "properties": {"wape": text, "seasonalNaiveWape": text, "slots": long}},
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": text, "status": text, "reason": text, "message": text,
                        "lastTransitionTime": time, "observedGeneration": long
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
    fn the_definition_parses_and_names_its_columns() {
        let definition = custom_resource_definition();
        let columns = definition.spec.versions[0]
            .additional_printer_columns
            .as_ref()
            .unwrap();
        assert_eq!(columns.len(), 7);
    }
}

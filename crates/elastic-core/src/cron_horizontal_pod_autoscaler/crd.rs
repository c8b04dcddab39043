//! The CustomResourceDefinition. Names and fields are the original's; new fields are optional.
//!
//! The original has no status subresource; ours has one, so that a status write never touches a user's spec and the
//! generation counts changes of the spec only. Clients read `.status` as before.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::AUTOSCALING_GROUP;

/// The definition to apply before the controller runs.
pub fn custom_resource_definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("cronhorizontalpodautoscalers.{AUTOSCALING_GROUP}")},
        "spec": {
            "group": AUTOSCALING_GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": "cronhorizontalpodautoscalers",
                "singular": "cronhorizontalpodautoscaler",
                "kind": "CronHorizontalPodAutoscaler",
                "listKind": "CronHorizontalPodAutoscalerList",
                "shortNames": ["cronhpa"]
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
        {"name": "Target", "type": "string", "jsonPath": ".spec.scaleTargetRef.name", "description": "What is scaled"},
        {"name": "Next", "type": "string", "jsonPath": ".status.nextRuns[0].localTime", "description": "The next run"},
        {"name": "Job", "type": "string", "jsonPath": ".status.nextRuns[0].job", "description": "The next run's job"},
        {"name": "Size", "type": "integer", "jsonPath": ".status.nextRuns[0].targetSize", "description": "Its replicas"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Sets a number of replicas at given times.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["scaleTargetRef", "jobs"],
                "properties": {
                    "scaleTargetRef": target_schema("What is scaled: anything with /scale, or a HorizontalPodAutoscaler."),
                    "jobs": {"type": "array", "description": "When, and to what.", "items": job_schema()},
                    "excludeDates": {
                        "type": "array",
                        "description": "Days on which no job runs: cron expressions whose day and month count, or YYYY-MM-DD.",
                        "items": {"type": "string"}
                    },
                    "timeZone": text("IANA zone of jobs that name none; absent: the controller's setting."),
                    "suspend": {"type": "boolean", "description": "Nothing runs while this is true."},
                    "startingDeadlineSeconds": {
                        "type": "integer", "format": "int64", "minimum": 0,
                        "description": "How late a run may still be made up for; 0: never; absent: an hour."
                    }
                }
            },
            "status": status_schema()
        }
    })
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn target_schema(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["apiVersion", "kind", "name"],
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "name": {"type": "string"}}
    })
}

fn job_schema() -> Value {
    json!({
        "type": "object",
        "required": ["name", "schedule", "targetSize"],
        "properties": {
            "name": text("Unique in the object."),
            "schedule": text("second minute hour day-of-month month day-of-week, a descriptor, @every or @date."),
            "targetSize": {"type": "integer", "format": "int32", "description": "Replicas to set."},
            "runOnce": {"type": "boolean", "description": "Run a single time."},
            "timeZone": text("IANA zone of this job, such as Asia/Shanghai."),
            "suspend": {"type": "boolean", "description": "This job does not run while this is true."},
            "startAfter": text("Activations before this date or time do not count."),
            "endBefore": text("Activations from this date or time on do not count."),
            "until": text("End of a window, a second schedule: targetSize is the least until then, and afterwards the numbers from before are restored.")
        }
    })
}

fn status_schema() -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let word = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let numbers = json!({
        "type": "object",
        "properties": {"replicas": number, "minReplicas": number, "maxReplicas": number}
    });
    json!({
        "type": "object",
        "properties": {
            "scaleTargetRef": target_schema("The target that the conditions are about."),
            "excludeDates": {"type": "array", "items": word},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": {"type": "array", "items": condition_schema()},
            "nextRuns": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"job": word, "time": time, "localTime": word, "targetSize": number}
                }
            },
            "floor": {
                "type": "object",
                "properties": {
                    "scaleTargetRef": target_schema("The target of the open windows."),
                    "targetSize": number,
                    "jobs": {"type": "array", "items": word},
                    "saved": numbers,
                    "applied": numbers
                }
            }
        }
    })
}

fn condition_schema() -> Value {
    let word = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let maybe_time = json!({"type": "string", "format": "date-time", "nullable": true});
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": word, "jobId": word, "schedule": word,
            "targetSize": {"type": "integer", "format": "int32"},
            "runOnce": {"type": "boolean"},
            "state": word, "lastProbeTime": maybe_time, "message": word,
            "timeZone": word, "until": word, "startAfter": word, "endBefore": word,
            "suspended": {"type": "boolean"},
            "submittedTime": time, "lastScheduleTime": time, "handledUntil": time,
            "pending": {
                "type": "object",
                "properties": {"scheduleTime": time, "holder": word, "since": time}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_has_the_names_that_manifests_and_clients_use() {
        let definition = custom_resource_definition();
        let names = &definition.spec.names;
        assert_eq!(names.kind, "CronHorizontalPodAutoscaler");
        assert_eq!(names.short_names, Some(vec!["cronhpa".to_owned()]));
        assert_eq!(
            names.list_kind.as_deref(),
            Some("CronHorizontalPodAutoscalerList")
        );
        assert_eq!(definition.spec.versions[0].name, "v1beta1");
    }
}

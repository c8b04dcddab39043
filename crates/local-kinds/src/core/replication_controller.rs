//! ReplicationControllers: ReplicaSets with a plain map as selector.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::apps::replica_set;
use crate::check::labels::labels;
use crate::check::numbers::not_negative;
use crate::check::selector::{display_labels, matches};
use crate::core::pod::{check_template, default_template};
use crate::rules::{Column, KindRules, ScalePaths};
use crate::tree::{fill, integer, is_empty, number, object_mut, present, text};

/// The rules of ReplicationControllers.
pub struct ReplicationControllerRules;

impl KindRules for ReplicationControllerRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if !is_empty(&labels) {
            let spec = object_mut(object, "spec");
            if is_empty(&spec["selector"]) {
                spec["selector"] = labels.clone();
            }
            let metadata = object_mut(object, "metadata");
            if is_empty(&metadata["labels"]) {
                metadata["labels"] = labels;
            }
        }
        let spec = object_mut(object, "spec");
        fill(spec, "replicas", 1);
        if present(spec, "template") {
            default_template(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check_spec(&object["spec"])
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        replica_set::check_counts(&new["status"])
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        replica_set::COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = display_labels(&object["spec"]["selector"]);
        replica_set::row(object, now, shown)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_field(&self, object: &Value, _field: &str) -> String {
        number(&object["status"], "replicas").to_string()
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(ScalePaths {
            spec_replicas: "/spec/replicas",
            status_replicas: "/status/replicas",
            selector: "/spec/selector",
        })
    }
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = not_negative(spec, "minReadySeconds", path);
    if is_empty(&spec["selector"]) {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        errors.extend(labels(spec, "selector", path));
    }
    if integer(spec, "replicas").is_none() {
        errors.push(FieldError::required("spec.replicas", ""));
    }
    errors.extend(not_negative(spec, "replicas", path));
    let template = &spec["template"];
    if template.is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return errors;
    }
    let own = &template["metadata"]["labels"];
    if !matches(&json!({"matchLabels": spec["selector"]}), own) {
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            own.clone(),
            "`selector` does not match template `labels`",
        ));
    }
    errors.extend(check_template(template, "spec.template"));
    let policy = text(&template["spec"], "restartPolicy");
    if policy != "Always" {
        let path = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(path, policy, &["Always"]));
    }
    errors
}

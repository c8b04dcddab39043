//! ReplicaSets.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{SCALE, check_selected_template, check_selector};
use crate::check::numbers::not_negative;
use crate::check::selector;
use crate::core::pod::default_template;
use crate::print::{self, NAME, age, column, name, typed, wide};
use crate::rules::{Column, KindRules, ScalePaths};
use crate::tree::{child, fill, number, object_mut};

/// The rules of ReplicaSets.
pub struct ReplicaSetRules;

/// Columns that ReplicationControllers share.
pub const COLUMNS: &[Column] = &[
    NAME,
    typed("Desired", "integer"),
    typed("Current", "integer"),
    typed("Ready", "integer"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl KindRules for ReplicaSetRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill(spec, "replicas", 1);
        default_template(spec);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check_spec(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = check_spec(&new["spec"]);
        errors.extend(selector::immutable(
            &new["spec"]["selector"],
            &old["spec"]["selector"],
            "spec.selector",
        ));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check_counts(&new["status"])
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = selector::display(&object["spec"]["selector"]);
        row(object, now, shown)
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(SCALE)
    }
}

/// A row with a given selector text.
pub fn row(object: &Value, now: Timestamp, shown: String) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let (names, images) = print::containers(&spec["template"]["spec"]);
    vec![
        name(object),
        number(spec, "replicas").into(),
        number(status, "replicas").into(),
        number(status, "readyReplicas").into(),
        age(object, now),
        names,
        images,
        shown.into(),
    ]
}

/// Counts of a status, none above the number of replicas.
pub fn check_counts(status: &Value) -> Vec<FieldError> {
    let path = "status";
    let mut errors = Vec::new();
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ];
    for key in counts {
        errors.extend(not_negative(status, key, path));
    }
    let bounds = [
        (
            "fullyLabeledReplicas",
            "replicas",
            "cannot be greater than status.replicas",
        ),
        (
            "readyReplicas",
            "replicas",
            "cannot be greater than status.replicas",
        ),
        (
            "availableReplicas",
            "replicas",
            "cannot be greater than status.replicas",
        ),
        (
            "availableReplicas",
            "readyReplicas",
            "cannot be greater than readyReplicas",
        ),
    ];
    for (key, bound, words) in bounds {
        if number(status, key) > number(status, bound) {
            errors.push(FieldError::invalid(
                child(path, key),
                number(status, key),
                words,
            ));
        }
    }
    errors
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = not_negative(spec, "replicas", path);
    errors.extend(not_negative(spec, "minReadySeconds", path));
    errors.extend(check_selector(spec, path, "deployment"));
    errors.extend(check_selected_template(spec, path, "ReplicaSet"));
    errors
}

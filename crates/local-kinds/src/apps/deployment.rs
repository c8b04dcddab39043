//! Deployments.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{SCALE, check_selected_template, check_selector, clear_status};
use crate::check::numbers::{at_most_all, count_or_percent, not_negative, plain_number};
use crate::check::{selector, show};
use crate::core::pod::default_template;
use crate::print::{self, NAME, age, column, name, wide};
use crate::rules::{Column, KindRules, ScalePaths};
use crate::tree::{
    child, child_mut, fill, fill_zero, integer, number, object_mut, present, restore, text,
};

/// The rules of Deployments.
pub struct DeploymentRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready"),
    column("Up-to-date"),
    column("Available"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl KindRules for DeploymentRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill(spec, "replicas", 1);
        let strategy = object_mut(spec, "strategy");
        fill_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        default_template(spec);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        clear_status(object);
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        if let Some(metadata) = child_mut(new, "metadata") {
            restore(metadata, &old["metadata"], "labels");
        }
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

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        check_status(&new["status"], &old["status"])
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = print::containers(&spec["template"]["spec"]);
        vec![
            name(object),
            format!(
                "{}/{}",
                number(status, "readyReplicas"),
                number(spec, "replicas")
            )
            .into(),
            number(status, "updatedReplicas").into(),
            number(status, "availableReplicas").into(),
            age(object, now),
            names,
            images,
            selector::display(&spec["selector"]).into(),
        ]
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(SCALE)
    }
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = not_negative(spec, "replicas", path);
    errors.extend(check_selector(spec, path, "deployment"));
    errors.extend(check_selected_template(spec, path, "ReplicaSet"));
    errors.extend(check_strategy(&spec["strategy"], &child(path, "strategy")));
    errors.extend(not_negative(spec, "minReadySeconds", path));
    errors.extend(not_negative(spec, "revisionHistoryLimit", path));
    errors.extend(not_negative(spec, "progressDeadlineSeconds", path));
    if let Some(seconds) = integer(spec, "progressDeadlineSeconds")
        && seconds <= number(spec, "minReadySeconds")
    {
        errors.push(FieldError::invalid(
            child(path, "progressDeadlineSeconds"),
            seconds,
            "must be greater than minReadySeconds",
        ));
    }
    errors
}

fn check_strategy(strategy: &Value, path: &str) -> Vec<FieldError> {
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = child(path, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if present(strategy, "rollingUpdate") => vec![FieldError::forbidden(
            rolling_path,
            "may not be specified when strategy `type` is 'Recreate'",
        )],
        "Recreate" => Vec::new(),
        "RollingUpdate" => check_rolling(rolling, &rolling_path),
        kind => {
            let shown = show::structure(&[
                ("Type", json!(kind).to_string()),
                (
                    "RollingUpdate",
                    show::nested(strategy, "rollingUpdate", Value::to_string),
                ),
            ]);
            let supported = &["Recreate", "RollingUpdate"];
            vec![FieldError::not_supported(path, strategy.clone(), supported).showing(shown)]
        }
    }
}

fn check_rolling(rolling: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = count_or_percent(rolling, "maxUnavailable", path);
    errors.extend(count_or_percent(rolling, "maxSurge", path));
    if plain_number(rolling, "maxUnavailable") == 0 && plain_number(rolling, "maxSurge") == 0 {
        errors.push(FieldError::invalid(
            child(path, "maxUnavailable"),
            rolling["maxUnavailable"].clone(),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    errors.extend(at_most_all(rolling, "maxUnavailable", path));
    errors
}

fn check_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    for key in counts {
        errors.extend(not_negative(new, key, "status"));
    }
    let mut bounded = |key: &str, bound: &str| {
        if number(new, key) > number(new, bound) {
            let limit = if bound == "replicas" {
                "status.replicas"
            } else {
                bound
            };
            errors.push(FieldError::invalid(
                child("status", key),
                number(new, key),
                format!("cannot be greater than {limit}"),
            ));
        }
    };
    bounded("updatedReplicas", "replicas");
    bounded("readyReplicas", "replicas");
    bounded("availableReplicas", "replicas");
    bounded("availableReplicas", "readyReplicas");
    if let (Some(before), after) = (
        integer(old, "collisionCount"),
        integer(new, "collisionCount"),
    ) && after.is_none_or(|after| after < before)
    {
        let value = after.map_or(Value::Null, Value::from);
        let words = "cannot be decremented";
        errors.push(FieldError::invalid("status.collisionCount", value, words));
    }
    errors
}

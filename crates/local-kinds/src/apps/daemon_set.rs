//! DaemonSets.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{check_selected_template, check_selector};
use crate::check::numbers::{at_most_all, count_or_percent, not_negative, plain_number};
use crate::check::{selector, show};
use crate::core::pod::default_template;
use crate::print::{self, NAME, age, column, name, typed, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{child, fill, fill_zero, number, object_mut, text};

/// The rules of DaemonSets.
pub struct DaemonSetRules;

const COLUMNS: &[Column] = &[
    NAME,
    typed("Desired", "integer"),
    typed("Current", "integer"),
    typed("Ready", "integer"),
    typed("Up-to-date", "integer"),
    typed("Available", "integer"),
    column("Node Selector"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl KindRules for DaemonSetRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        let strategy = object_mut(spec, "updateStrategy");
        fill_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
        fill(spec, "revisionHistoryLimit", 10);
        default_template(spec);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        });
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

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let pod = &spec["template"]["spec"];
        let (names, images) = print::containers(pod);
        vec![
            name(object),
            number(status, "desiredNumberScheduled").into(),
            number(status, "currentNumberScheduled").into(),
            number(status, "numberReady").into(),
            number(status, "updatedNumberScheduled").into(),
            number(status, "numberAvailable").into(),
            selector::display_labels(&pod["nodeSelector"]).into(),
            age(object, now),
            names,
            images,
            selector::display(&spec["selector"]).into(),
        ]
    }
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = check_selector(spec, path, "daemonset");
    errors.extend(check_selected_template(spec, path, "DaemonSet"));
    errors.extend(not_negative(spec, "minReadySeconds", path));
    errors.extend(check_strategy(
        &spec["updateStrategy"],
        &child(path, "updateStrategy"),
    ));
    errors.extend(not_negative(spec, "revisionHistoryLimit", path));
    errors
}

fn check_strategy(strategy: &Value, path: &str) -> Vec<FieldError> {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let path = child(path, "rollingUpdate");
            let mut errors = Vec::new();
            for key in ["maxUnavailable", "maxSurge"] {
                errors.extend(count_or_percent(rolling, key, &path));
                errors.extend(at_most_all(rolling, key, &path));
            }
            let unavailable = plain_number(rolling, "maxUnavailable") != 0;
            let surge = plain_number(rolling, "maxSurge") != 0;
            if unavailable == surge {
                let words = if surge {
                    "may not be set when maxUnavailable is non-zero"
                } else {
                    "cannot be 0 when maxUnavailable is 0"
                };
                let key = child(&path, "maxSurge");
                errors.push(FieldError::invalid(key, rolling["maxSurge"].clone(), words));
            }
            errors
        }
        kind => {
            let shown = show::structure(&[
                ("Type", json!(kind).to_string()),
                ("RollingUpdate", "null".to_string()),
            ]);
            let supported = &["OnDelete", "RollingUpdate"];
            vec![FieldError::not_supported(path, strategy.clone(), supported).showing(shown)]
        }
    }
}

//! Jobs.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::job_check;
use crate::check::selector;
use crate::core::pod::default_template;
use crate::print::{self, NAME, age, column, duration, name, parse_time, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{
    fill, fill_zero, integer, is_empty, list, list_mut, number, object_mut, present, text, truth,
};

/// The rules of Jobs.
pub struct JobRules;

/// Ties pods to the Job that made them.
pub const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";

const COLUMNS: &[Column] = &[
    NAME,
    column("Status"),
    column("Completions"),
    column("Duration"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl KindRules for JobRules {
    fn default(&self, _version: &str, object: &mut Value) {
        labels_from_template(object);
        let spec = object_mut(object, "spec");
        if !present(spec, "completions") && !present(spec, "parallelism") {
            spec["completions"] = 1.into();
        }
        fill(spec, "parallelism", 1);
        let limit = match present(spec, "backoffLimitPerIndex") {
            true => i64::from(i32::MAX),
            false => 6,
        };
        fill(spec, "backoffLimit", limit);
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        fill(spec, "manualSelector", false);
        let replacement = match present(spec, "podFailurePolicy") {
            true => "Failed",
            false => "TerminatingOrFailed",
        };
        fill(spec, "podReplacementPolicy", replacement);
        default_conditions(spec);
        default_template(spec);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
        if !truth(&object["spec"], "manualSelector") {
            generate_selector(object);
            // Upstream defaults again when it reads the object back.
            labels_from_template(object);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> =
            job_check::generated_selector(object).into_iter().collect();
        errors.extend(job_check::spec(&object["spec"], "spec"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        // Upstream checks the spec a second time here.
        errors.extend(job_check::spec(&new["spec"], "spec"));
        errors.extend(job_check::update(new, old));
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let (names, images) = print::containers(&spec["template"]["spec"]);
        vec![
            name(object),
            state(object).into(),
            completions(object).into(),
            took(&object["status"], now).into(),
            age(object, now),
            names,
            images,
            selector::display(&spec["selector"]).into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_field(&self, object: &Value, _field: &str) -> String {
        number(&object["status"], "succeeded").to_string()
    }
}

/// A Job without labels has those of its pods.
fn labels_from_template(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if is_empty(&labels) {
        return;
    }
    let metadata = object_mut(object, "metadata");
    if is_empty(&metadata["labels"]) {
        metadata["labels"] = labels;
    }
}

/// A failure policy's conditions are about what is true.
pub fn default_conditions(spec: &mut Value) {
    let Some(policy) = crate::tree::child_mut(spec, "podFailurePolicy") else {
        return;
    };
    for rule in list_mut(policy, "rules") {
        for condition in list_mut(rule, "onPodConditions") {
            fill_zero(condition, "status", "True");
        }
    }
}

/// Pods carry the Job's uid and are selected by it.
fn generate_selector(job: &mut Value) {
    let uid = text(&job["metadata"], "uid").to_string();
    let name = text(&job["metadata"], "name").to_string();
    let spec = object_mut(job, "spec");
    let template = object_mut(object_mut(spec, "template"), "metadata");
    let labels = object_mut(template, "labels");
    for (key, value) in [
        (UID_LABEL, &uid),
        (OLD_UID_LABEL, &uid),
        (NAME_LABEL, &name),
        (OLD_NAME_LABEL, &name),
    ] {
        labels[key] = value.as_str().into();
    }
    object_mut(object_mut(spec, "selector"), "matchLabels")[UID_LABEL] = uid.into();
}

fn state(job: &Value) -> &'static str {
    let has = |kind: &str| {
        list(&job["status"], "conditions")
            .iter()
            .any(|one| text(one, "type") == kind && text(one, "status") == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = number(&job["status"], "succeeded");
    let parallelism = number(&job["spec"], "parallelism");
    match integer(&job["spec"], "completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn took(status: &Value, now: Timestamp) -> String {
    let Some(start) = parse_time(&status["startTime"]) else {
        return String::new();
    };
    let end = parse_time(&status["completionTime"]).unwrap_or(now);
    duration::human(end.duration_since(start))
}

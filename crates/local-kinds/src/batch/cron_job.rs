//! CronJobs.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::job::default_conditions;
use super::job_check;
use crate::check::numbers::not_negative;
use crate::check::selector;
use crate::core::pod::default_template;
use crate::print::{self, NAME, NONE, age, column, name, or_none, since, typed, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{fill, fill_zero, integer, list, object_mut, text};

/// The rules of CronJobs.
pub struct CronJobRules;

/// Names of Jobs append eleven characters.
const LONGEST_NAME: usize = 52;
const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
const FIELDS: usize = 5;

const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule"),
    column("Timezone"),
    typed("Suspend", "boolean"),
    typed("Active", "integer"),
    column("Last Schedule"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

impl KindRules for CronJobRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill_zero(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        let template = object_mut(spec, "jobTemplate");
        object_mut(template, "metadata");
        let job = object_mut(template, "spec");
        default_conditions(job);
        default_template(job);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = check_spec(&object["spec"]);
        let own = text(&object["metadata"], "name");
        if own.len() > LONGEST_NAME {
            let words = format!("must be no more than {LONGEST_NAME} characters");
            errors.push(FieldError::invalid("metadata.name", own, words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check_spec(&new["spec"])
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let job = &spec["jobTemplate"]["spec"];
        let (names, images) = print::containers(&job["template"]["spec"]);
        let suspended = match &spec["suspend"] {
            Value::Bool(true) => "True",
            Value::Bool(false) => "False",
            _ => "<unset>",
        };
        let last = match &status["lastScheduleTime"] {
            Value::Null => NONE.to_string(),
            time => since(time, now),
        };
        vec![
            name(object),
            text(spec, "schedule").into(),
            or_none(text(spec, "timeZone")),
            suspended.into(),
            list(status, "active").len().into(),
            last.into(),
            age(object, now),
            names,
            images,
            selector::display(&job["selector"]).into(),
        ]
    }
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = Vec::new();
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') {
        let count = schedule.split_whitespace().count();
        if count != FIELDS {
            let shown: Vec<&str> = schedule.split_whitespace().collect();
            let words = format!("expected exactly {FIELDS} fields, found {count}: {shown:?}");
            let words = words.replace("\", \"", " ").replace(['"'], "");
            errors.push(FieldError::invalid("spec.schedule", schedule, words));
        }
    }
    errors.extend(not_negative(spec, "startingDeadlineSeconds", path));
    let policy = text(spec, "concurrencyPolicy");
    if !POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(
            "spec.concurrencyPolicy",
            policy,
            POLICIES,
        ));
    }
    errors.extend(job_check::template_spec(
        &spec["jobTemplate"]["spec"],
        "spec.jobTemplate.spec",
    ));
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        if integer(spec, key).is_some() {
            errors.extend(not_negative(spec, key, path));
        }
    }
    errors
}

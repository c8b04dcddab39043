//! ControllerRevisions: snapshots of a workload's template.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::metadata::immutable;
use crate::check::numbers::not_negative;
use crate::print::{NAME, NONE, age, column, name};
use crate::rules::{Column, KindRules};
use crate::tree::{list, number, text, truth};

/// The rules of ControllerRevisions.
pub struct ControllerRevisionRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Controller"),
    column("Revision"),
    column("Age"),
];

impl KindRules for ControllerRevisionRules {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if object["data"].is_null() {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        errors.extend(not_negative(object, "revision", ""));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        errors.extend(immutable(&new["data"], &old["data"], "data"));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner = list(&object["metadata"], "ownerReferences")
            .iter()
            .find(|owner| truth(owner, "controller"));
        vec![
            name(object),
            owner.map_or(NONE.to_string(), controller).into(),
            number(object, "revision").into(),
            age(object, now),
        ]
    }
}

/// `statefulset.apps/web`.
fn controller(owner: &Value) -> String {
    let kind = text(owner, "kind").to_lowercase();
    match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")),
        None => format!("{kind}/{}", text(owner, "name")),
    }
}

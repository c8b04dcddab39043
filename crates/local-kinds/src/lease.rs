//! Leases.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::numbers::not_negative;
use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules};
use crate::tree::{integer, text};

/// The rules of Leases.
pub struct LeaseRules;

impl KindRules for LeaseRules {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        if let Some(seconds) = integer(spec, "leaseDurationSeconds")
            && seconds <= 0
        {
            let path = "spec.leaseDurationSeconds";
            errors.push(FieldError::invalid(path, seconds, "must be greater than 0"));
        }
        errors.extend(not_negative(spec, "leaseTransitions", "spec"));
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Holder"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = text(&object["spec"], "holderIdentity");
        vec![name(object), holder.into(), age(object, now)]
    }
}

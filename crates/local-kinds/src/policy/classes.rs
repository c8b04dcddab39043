//! PriorityClasses and StorageClasses.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::metadata::{annotation, immutable};
use crate::print::{NAME, age, column, name, typed};
use crate::rules::{Column, KindRules};
use crate::tree::{fill, number, present, same, text, truth};

/// The rules of PriorityClasses.
pub struct PriorityClassRules;

/// The rules of StorageClasses.
pub struct StorageClassRules;

const HIGHEST_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
const SYSTEM_CLASSES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

impl KindRules for PriorityClassRules {
    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let own = text(&object["metadata"], "name");
        let mut errors = Vec::new();
        if own.starts_with(SYSTEM_PREFIX) {
            if !SYSTEM_CLASSES.contains(&own) {
                let words = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {own} is not a known system priority class"
                );
                errors.push(FieldError::forbidden("metadata.name", words));
            }
        } else if number(object, "value") > HIGHEST_PRIORITY {
            let words =
                format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
            errors.push(FieldError::forbidden("value", words));
        }
        let policies = &["PreemptLowerPriority", "Never"];
        let policy = text(object, "preemptionPolicy");
        if present(object, "preemptionPolicy") && !policies.contains(&policy) {
            errors.push(FieldError::not_supported(
                "preemptionPolicy",
                policy,
                policies,
            ));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if number(new, "value") != number(old, "value") {
            errors.push(FieldError::forbidden(
                "value",
                "may not be changed in an update.",
            ));
        }
        errors.extend(immutable(
            &new["preemptionPolicy"],
            &old["preemptionPolicy"],
            "preemptionPolicy",
        ));
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            typed("Value", "integer"),
            typed("Global-Default", "boolean"),
            column("Age"),
            column("PreemptionPolicy"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            number(object, "value").into(),
            truth(object, "globalDefault").into(),
            age(object, now),
            text(object, "preemptionPolicy").into(),
        ]
    }
}

impl KindRules for StorageClassRules {
    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, "reclaimPolicy", "Delete");
        fill(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if text(object, "provisioner").is_empty() {
            errors.push(FieldError::required("provisioner", ""));
        }
        for (key, allowed) in [
            ("reclaimPolicy", &["Delete", "Retain"]),
            ("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
        ] {
            let value = text(object, key);
            if !allowed.contains(&value) {
                errors.push(FieldError::not_supported(key, value, allowed));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for key in ["parameters", "provisioner", "reclaimPolicy"] {
            if !same(&new[key], &old[key]) {
                let words = format!("updates to {key} are forbidden.");
                errors.push(FieldError::forbidden(key, words));
            }
        }
        errors.extend(immutable(
            &new["volumeBindingMode"],
            &old["volumeBindingMode"],
            "volumeBindingMode",
        ));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Provisioner"),
            column("ReclaimPolicy"),
            column("VolumeBindingMode"),
            column("AllowVolumeExpansion"),
            column("Age"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let own = text(&object["metadata"], "name");
        let default = annotation(object, DEFAULT_CLASS) == "true";
        let shown = if default {
            format!("{own} (default)")
        } else {
            own.to_string()
        };
        vec![
            shown.into(),
            text(object, "provisioner").into(),
            text(object, "reclaimPolicy").into(),
            text(object, "volumeBindingMode").into(),
            truth(object, "allowVolumeExpansion").into(),
            age(object, now),
        ]
    }
}

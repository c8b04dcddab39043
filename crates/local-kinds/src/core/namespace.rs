//! Namespaces.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::metadata::standard_finalizer;
use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{list, object_mut, restore, text};

/// The rules of Namespaces.
pub struct NamespaceRules;

/// Holds a namespace until its content is gone.
const FINALIZER: &str = "kubernetes";
/// Every namespace can be selected by its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

const COLUMNS: &[Column] = &[NAME, column("Status"), column("Age")];

fn label_with_name(object: &mut Value) {
    let name = text(&object["metadata"], "name").to_string();
    if !name.is_empty() {
        object_mut(object_mut(object, "metadata"), "labels")[NAME_LABEL] = name.into();
    }
}

impl KindRules for NamespaceRules {
    fn default(&self, _version: &str, object: &mut Value) {
        label_with_name(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        // A generated name is known only now.
        label_with_name(object);
        let spec = object_mut(object, "spec");
        let mut finalizers = list(spec, "finalizers").to_vec();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        spec["finalizers"] = finalizers.into();
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        restore(object_mut(new, "spec"), &old["spec"], "finalizers");
        restore(new, old, "status");
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        restore(new, old, "spec");
    }

    fn prepare_for_subresource_update(&self, _subresource: &str, new: &mut Value, old: &Value) {
        restore(new, old, "status");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        list(&object["spec"], "finalizers")
            .iter()
            .flat_map(|one| standard_finalizer(one.as_str().unwrap_or_default(), "spec.finalizers"))
            .collect()
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let phase = text(&new["status"], "phase");
        let deleting = new["metadata"]["deletionTimestamp"].is_string();
        let words = match (deleting, phase) {
            (false, "Active") | (true, "Terminating") => return Vec::new(),
            (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
            (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        };
        vec![FieldError::invalid("status.Phase", phase, words)]
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        new: &Value,
        _old: &Value,
    ) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            text(&object["status"], "phase").into(),
            age(object, now),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selectable_field(&self, object: &Value, _field: &str) -> String {
        text(&object["status"], "phase").to_string()
    }
}

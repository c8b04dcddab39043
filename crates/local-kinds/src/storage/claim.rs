//! PersistentVolumeClaims.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{ACCESS_MODES, class, or_unset, short_modes};
use crate::check::resources::{amount, canonicalize, quantity};
use crate::check::selector;
use crate::core::pod::default_claim_spec;
use crate::print::{NAME, age, column, name, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{
    child_mut, fill_zero, index, is_empty, list, object_mut, present, remove, restore, same, text,
};

/// The rules of PersistentVolumeClaims.
pub struct ClaimRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status"),
    column("Volume"),
    column("Capacity"),
    column("Access Modes"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Age"),
    wide("VolumeMode"),
];

const FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

impl KindRules for ClaimRules {
    fn default(&self, _version: &str, object: &mut Value) {
        default_claim_spec(object_mut(object, "spec"));
        let status = object_mut(object, "status");
        fill_zero(status, "phase", "Pending");
        canonicalize(status, "capacity");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
        if let Some(spec) = child_mut(object, "spec") {
            both_sources(spec);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        if list(spec, "accessModes").is_empty() {
            let words = "at least 1 access mode is required";
            errors.push(FieldError::required("spec.accessModes", words));
        }
        if present(spec, "selector") {
            errors.extend(selector::check(&spec["selector"], "spec.selector"));
        }
        for mode in list(spec, "accessModes").iter().filter_map(Value::as_str) {
            if !ACCESS_MODES.contains(&mode) {
                let path = "spec.accessModes";
                errors.push(FieldError::not_supported(path, mode, ACCESS_MODES));
            }
        }
        let storage = &spec["resources"]["requests"]["storage"];
        let path = index("spec.resources", "storage");
        if storage.is_null() {
            errors.push(FieldError::required(path, ""));
        } else {
            if quantity(storage).nanos() <= 0 {
                let words = "must be greater than zero";
                errors.push(FieldError::invalid(
                    path.clone(),
                    quantity(storage).to_string(),
                    words,
                ));
            }
            errors.extend(amount("storage", storage, &path));
        }
        let mode = text(spec, "volumeMode");
        if !["Block", "Filesystem"].contains(&mode) {
            let supported = &["Block", "Filesystem"];
            errors.push(FieldError::not_supported(
                "spec.volumeMode",
                mode,
                supported,
            ));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        let mut munged = new["spec"].clone();
        restore(&mut munged, &old["spec"], "volumeAttributesClassName");
        if is_empty(&old["spec"]["volumeName"]) {
            restore(&mut munged, &old["spec"], "volumeName");
        }
        if text(&old["status"], "phase") == "Bound" {
            let before = &old["spec"]["resources"];
            restore(object_mut(&mut munged, "resources"), before, "requests");
        }
        if !same(&munged, &old["spec"]) {
            errors.push(FieldError::forbidden("spec", FIXED));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let phase = if object["metadata"]["deletionTimestamp"].is_string() {
            "Terminating"
        } else {
            text(status, "phase")
        };
        let bound = !text(spec, "volumeName").is_empty();
        let capacity = match (bound, &status["capacity"]["storage"]) {
            (true, Value::Null) => "0".to_string(),
            (true, amount) => quantity(amount).to_string(),
            (false, _) => String::new(),
        };
        vec![
            name(object),
            phase.into(),
            text(spec, "volumeName").into(),
            capacity.into(),
            if bound {
                short_modes(status)
            } else {
                String::new()
            }
            .into(),
            class(object).into(),
            or_unset(object, "volumeAttributesClassName"),
            age(object, now),
            or_unset(object, "volumeMode"),
        ]
    }
}

/// Both names of what a claim is filled from say the same.
fn both_sources(spec: &mut Value) {
    let (old, new) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if !old.is_null() && new.is_null() {
        spec["dataSourceRef"] = old;
    } else if old.is_null() && !new.is_null() && is_empty(&new["namespace"]) {
        let group = text(&new, "apiGroup").to_string();
        let kind = text(&new, "kind").to_string();
        // Only snapshots and claims fit the old field.
        if (group == "snapshot.storage.k8s.io" && kind == "VolumeSnapshot")
            || (group.is_empty() && kind == "PersistentVolumeClaim")
        {
            spec["dataSource"] = new;
        }
    }
    for key in ["dataSource", "dataSourceRef"] {
        if spec[key].is_null() {
            remove(spec, key);
        }
    }
}

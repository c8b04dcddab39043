//! PersistentVolumes.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{ACCESS_MODES, class, or_unset, short_modes};
use crate::check::resources::{amount, canonicalize, quantity};
use crate::core::pod::{check_host_path, check_nfs};
use crate::print::{NAME, age, column, name, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{
    child, child_mut, entries, fill, fill_zero, index, is_empty, list, object_mut, present, text,
};

/// The rules of PersistentVolumes.
pub struct VolumeRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity"),
    column("Access Modes"),
    column("Reclaim Policy"),
    column("Status"),
    column("Claim"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Reason"),
    column("Age"),
    wide("VolumeMode"),
];

const SOURCES: [&str; 23] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
    "image",
];

const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

impl KindRules for VolumeRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        canonicalize(spec, "capacity");
        if let Some(source) = child_mut(spec, "hostPath") {
            fill(source, "type", "");
        }
        fill_zero(object_mut(object, "status"), "phase", "Pending");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let created = object["metadata"]["creationTimestamp"].clone();
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": created});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check(&object["spec"])
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if text(&new["spec"], "persistentVolumeReclaimPolicy") == "Recycle" {
            return vec![
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                    .to_string(),
            ];
        }
        Vec::new()
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
        let reference = &spec["claimRef"];
        let claim = match reference.is_null() {
            true => String::new(),
            false => format!(
                "{}/{}",
                text(reference, "namespace"),
                text(reference, "name")
            ),
        };
        vec![
            name(object),
            quantity(&spec["capacity"]["storage"]).to_string().into(),
            short_modes(spec).into(),
            text(spec, "persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            class(object).into(),
            or_unset(object, "volumeAttributesClassName"),
            text(status, "reason").into(),
            age(object, now),
            or_unset(object, "volumeMode"),
        ]
    }
}

fn check(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    for mode in list(spec, "accessModes").iter().filter_map(Value::as_str) {
        if !ACCESS_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(
                "spec.accessModes",
                mode,
                ACCESS_MODES,
            ));
        }
    }
    if is_empty(&spec["capacity"]) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if !present(&spec["capacity"], "storage") || entries(spec, "capacity").count() > 1 {
        let shown = spec["capacity"].clone();
        errors.push(FieldError::not_supported(
            "spec.capacity",
            shown,
            &["storage"],
        ));
    }
    for (resource, value) in entries(spec, "capacity") {
        errors.extend(amount(resource, value, &index("spec.capacity", resource)));
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !POLICIES.contains(&policy) {
        let path = "spec.persistentVolumeReclaimPolicy";
        errors.push(FieldError::not_supported(path, policy, POLICIES));
    }
    let mut count = 0;
    for key in SOURCES.into_iter().filter(|key| present(spec, key)) {
        count += 1;
        let path = child("spec", key);
        if count > 1 {
            let words = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(path, words));
            continue;
        }
        match key {
            "hostPath" => errors.extend(check_host_path(&spec[key], &path)),
            "nfs" => errors.extend(check_nfs(&spec[key], &path)),
            _ => {}
        }
    }
    if count == 0 {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
    errors
}

//! Volumes and claims on them.

pub mod claim;
pub mod volume;

use serde_json::Value;

use crate::check::metadata::annotation;
use crate::tree::{list, text};

/// Access modes as upstream names them.
const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const UNSET: &str = "<unset>";

/// `RWO,RWX`, in a fixed order.
fn short_modes(owner: &Value) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = list(owner, "accessModes");
    let all: Vec<&str> = short
        .iter()
        .filter(|(long, _)| given.iter().any(|one| one == long))
        .map(|(_, short)| *short)
        .collect();
    all.join(",")
}

fn class(object: &Value) -> &str {
    match annotation(object, CLASS_ANNOTATION) {
        "" => text(&object["spec"], "storageClassName"),
        class => class,
    }
}

fn or_unset(object: &Value, key: &str) -> Value {
    match text(&object["spec"], key) {
        "" => UNSET.into(),
        value => value.into(),
    }
}

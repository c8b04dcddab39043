//! Labels, annotations and the maps that are built like them.

use local_schema::FieldError;
use serde_json::Value;

use super::names::{invalid, label_value, qualified};
use crate::tree::{child, entries};

/// Keys and values together may take this much.
const ANNOTATIONS_LIMIT_BYTES: usize = 256 * 1024;

/// A label's key.
pub fn label_key(key: &str, path: &str) -> Vec<FieldError> {
    invalid(path, key, qualified(key))
}

/// The labels in field `key`, reported at `path.key` as a whole.
pub fn labels(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    let path = child(path, key);
    entries(parent, key)
        .flat_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let mut errors = label_key(key, &path);
            errors.extend(invalid(&path, value, label_value(value)));
            errors
        })
        .collect()
}

/// The annotations in field `annotations`.
pub fn annotations(parent: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "annotations");
    let mut errors: Vec<FieldError> = entries(parent, "annotations")
        .flat_map(|(key, _)| invalid(&path, key, qualified(&key.to_lowercase())))
        .collect();
    let total: usize = entries(parent, "annotations")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if total > ANNOTATIONS_LIMIT_BYTES {
        errors.push(FieldError::new(
            local_schema::FieldErrorKind::TooLong,
            path,
            Value::Null,
            format!("may not be more than {ANNOTATIONS_LIMIT_BYTES} bytes"),
        ));
    }
    errors
}

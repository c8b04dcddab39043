//! The parts of metadata checks that kinds need themselves. The registry checks metadata as a whole.

use local_schema::FieldError;
use serde_json::Value;

use crate::tree::same;

const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// A finalizer without a domain must be one that upstream knows.
pub fn standard_finalizer(name: &str, path: &str) -> Vec<FieldError> {
    let errors = super::names::invalid(path, name, super::names::qualified(name));
    if !errors.is_empty() || name.contains('/') || STANDARD_FINALIZERS.contains(&name) {
        return errors;
    }
    vec![FieldError::invalid(
        path,
        name,
        "name is neither a standard finalizer name nor is it fully qualified",
    )]
}

/// A field that must not change.
pub fn immutable(new: &Value, old: &Value, path: &str) -> Vec<FieldError> {
    if same(new, old) {
        return Vec::new();
    }
    vec![FieldError::invalid(path, new.clone(), "field is immutable")]
}

/// The value of an annotation, empty when absent.
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["annotations"][key]
        .as_str()
        .unwrap_or_default()
}

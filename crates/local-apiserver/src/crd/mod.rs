//! CustomResourceDefinitions: what they add to the catalog and how their objects are treated.

pub mod build;
pub mod columns;
pub mod controller;
pub mod jsonpath;
pub mod versions;

use local_schema::FieldError;
use local_schema::structural::Structural;
use serde_json::Value;

/// What a served version of a custom resource has of its own.
pub struct CustomVersion {
    /// The schema as the definition has it.
    pub schema: Value,
    /// The same, compiled.
    pub structural: Structural,
    /// Fields that selectors may use (`spec.color`).
    pub selectable_fields: Vec<String>,
    /// Text of the deprecation warning, when the version is deprecated.
    pub deprecation_warning: Option<String>,
    /// Printer columns as the definition has them.
    pub columns: Vec<Value>,
    /// The scale subresource.
    pub scale: Option<ScaleSettings>,
    /// Whether there is a status subresource.
    pub status: bool,
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
    /// From the parts of a definition's version.
    pub fn new(
        schema: &Value,
        selectable_fields: Vec<String>,
        deprecation_warning: Option<String>,
        columns: Vec<Value>,
        scale: Option<ScaleSettings>,
        status: bool,
    ) -> Self {
        Self {
            schema: schema.clone(),
            structural: Structural::new(schema),
            selectable_fields,
            deprecation_warning,
            columns,
            scale,
            status,
        }
    }

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
    pub fn default(&self, object: &mut Value) {
        self.structural.default(object);
    }

    /// Checks against the schema.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.structural.validate(new, old)
    }
}

//! Structural schemas of custom resources: decoding, pruning, defaulting and validation in upstream's words.
//!
//! A schema is compiled once per CRD version. It refuses conversion between versions and storage.

mod crd;
mod default;
mod format;
mod lists;
mod prune;
mod rules;
mod schema;
mod validate;

use serde_json::Value;

use crate::decode::{self, DecodeError, Decoded};
use crate::field_error::{FieldError, FieldErrorKind};
use crate::types::{TypeRef, custom_type};
use schema::Schema;

pub use crd::{default_crd, validate_crd, validate_crd_update};

/// One compiled version of a custom resource.
#[derive(Debug)]
pub struct Structural {
    root: Schema,
    object_type: TypeRef,
}

impl Structural {
    /// Compiles an `openAPIV3Schema`. Keywords that cannot be read are as if absent: CRDs are validated when they are written.
    pub fn new(schema: &Value) -> Self {
        Self {
            root: Schema::compile(schema),
            object_type: custom_type(schema),
        }
    }

    /// The type for ownership and apply.
    pub fn object_type(&self) -> &TypeRef {
        &self.object_type
    }

    /// Decodes JSON text: duplicates and unknown fields are reported and left out, metadata is coerced, defaults are not yet in.
    pub fn decode(&self, text: &[u8]) -> Result<Decoded, DecodeError> {
        let parsed = decode::parse(text)?;
        self.conform(parsed.object, parsed.problems)
    }

    /// As [`Structural::decode`], from a tree.
    pub fn decode_value(&self, object: Value) -> Result<Decoded, DecodeError> {
        self.conform(object, Vec::new())
    }

    fn conform(
        &self,
        mut object: Value,
        mut problems: Vec<String>,
    ) -> Result<Decoded, DecodeError> {
        prune::canonical_numbers(&mut object);
        let mut unknown = self.prune(&mut object);
        unknown.sort();
        problems.extend(
            unknown
                .into_iter()
                .map(|path| format!("unknown field \"{path}\"")),
        );
        prune::coerce_metadata(&self.root, &mut object, "", true, &mut problems)?;
        default::drop_nulls(&self.root, &mut object);
        Ok(Decoded { object, problems })
    }

    /// Removes unknown fields; their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune::prune(&self.root, object, "", true, &mut unknown);
        unknown
    }

    /// Sets defaults, on the way in and on the way out of the store.
    pub fn default(&self, object: &mut Value) {
        default::drop_nulls(&self.root, object);
        default::default(&self.root, object);
    }

    /// As [`Structural::prune`], for a value that is no resource.
    fn prune_value(&self, value: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune::prune(&self.root, value, "", self.root.is_embedded, &mut unknown);
        unknown
    }

    /// As [`Structural::validate`], for a value that is no resource.
    fn validate_value(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::validate(&self.root, value, None, "", false, &mut errors);
        lists::validate(&self.root, value, None, "", &mut errors);
        errors
    }

    /// Everything that is wrong with an object; what did not change since `old` is tolerated.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::validate(&self.root, new, old, "", true, &mut errors);
        lists::validate(&self.root, new, old, "", &mut errors);
        if self.root.has_rules {
            if errors.iter().any(blocks_rules) {
                errors.push(FieldError::invalid(
                    "<nil>",
                    Value::Null,
                    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
                ));
            } else {
                rules::validate(&self.root, new, old, "", &mut errors);
            }
        }
        errors
    }
}

/// Rules are not evaluated over objects of a wrong shape.
fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.kind,
        FieldErrorKind::NotSupported
            | FieldErrorKind::Required
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid
    )
}

#[cfg(test)]
mod tests;

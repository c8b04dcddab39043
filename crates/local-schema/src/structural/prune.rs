//! Removing what a schema does not name, and bringing metadata into its own type.

use serde_json::{Number, Value};

use super::schema::Schema;
use crate::decode::{self, DecodeError};
use crate::types::TypeRef;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Removes unknown fields below a value and collects their paths.
pub(super) fn prune(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    is_resource: bool,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(object) => {
            object.retain(|name, inner| {
                if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let inner_path = join(path, name);
                match schema.field(name) {
                    Some(field) => {
                        prune(field, inner, &inner_path, field.is_embedded, unknown);
                        true
                    }
                    None if schema.preserves_unknown => true,
                    None => {
                        unknown.push(inner_path);
                        false
                    }
                }
            });
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter_mut().enumerate() {
                    prune(
                        items,
                        inner,
                        &format!("{path}[{index}]"),
                        items.is_embedded,
                        unknown,
                    );
                }
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

/// Decodes the metadata of the object and of embedded resources as `ObjectMeta`.
pub(super) fn coerce_metadata(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    is_resource: bool,
    problems: &mut Vec<String>,
) -> Result<(), DecodeError> {
    match value {
        Value::Object(object) => {
            if is_resource && let Some(metadata) = object.get_mut("metadata") {
                let taken = metadata.take();
                *metadata = coerce(taken, &join(path, "metadata"), problems)?;
            }
            for (name, inner) in object.iter_mut() {
                if let Some(field) = schema
                    .field(name)
                    .filter(|_| !(is_resource && name == "metadata"))
                {
                    coerce_metadata(field, inner, &join(path, name), field.is_embedded, problems)?;
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter_mut().enumerate() {
                    coerce_metadata(
                        items,
                        inner,
                        &format!("{path}[{index}]"),
                        items.is_embedded,
                        problems,
                    )?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn coerce(metadata: Value, path: &str, problems: &mut Vec<String>) -> Result<Value, DecodeError> {
    let Some(kind) = TypeRef::definition(OBJECT_META) else {
        return Ok(metadata);
    };
    let shown = metadata.to_string();
    match decode::decode_value(metadata, &kind) {
        Ok(decoded) => {
            problems.extend(
                decoded
                    .problems
                    .into_iter()
                    .map(|problem| problem.replacen("field \"", &format!("field \"{path}."), 1)),
            );
            Ok(decoded.object)
        }
        Err(error) if path == "metadata" => Err(error),
        Err(error) => Err(DecodeError::Type(format!(
            "{path}: Invalid value: {shown}: {error}"
        ))),
    }
}

/// Go prints whole floating point numbers without a fraction.
pub(super) fn canonical_numbers(value: &mut Value) {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() <= LARGEST_EXACT)
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(canonical_numbers),
        Value::Object(object) => object.values_mut().for_each(canonical_numbers),
        _ => {}
    }
}

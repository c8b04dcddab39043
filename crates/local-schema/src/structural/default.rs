//! Defaults of structural schemas, and nulls that mean "absent".

use serde_json::Value;

use super::schema::Schema;

/// Removes nulls that a schema allows neither as a value nor as a request for its default.
pub(super) fn drop_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, inner| match schema.field(name) {
                Some(field) if inner.is_null() => {
                    field.nullable || field.default.is_some() || field.is_untyped()
                }
                _ => true,
            });
            for (name, inner) in object.iter_mut() {
                if let Some(field) = schema.field(name) {
                    drop_nulls(field, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|inner| drop_nulls(items, inner));
            }
        }
        _ => {}
    }
}

/// Fills in defaults, also inside of defaults.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, property) in &schema.properties {
                let Some(wanted) = &property.default else {
                    continue;
                };
                let missing = object
                    .get(name)
                    .is_none_or(|inner| inner.is_null() && !property.nullable);
                if missing {
                    object.insert(name.clone(), wanted.clone());
                }
            }
            for (name, inner) in object.iter_mut() {
                if let Some(field) = schema.field(name) {
                    replace_null(field, inner);
                    default(field, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for inner in list {
                    replace_null(items, inner);
                    default(items, inner);
                }
            }
        }
        _ => {}
    }
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(wanted) = &schema.default
    {
        *value = wanted.clone();
    }
}

impl Schema {
    /// Nothing is said about the value: any JSON, null included.
    fn is_untyped(&self) -> bool {
        self.kind == super::schema::Kind::Any && self.preserves_unknown
    }
}

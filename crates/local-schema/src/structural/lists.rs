//! Items of sets and list maps are unique.

use serde_json::{Map, Value};

use super::schema::{ListType, Schema};
use crate::field_error::FieldError;

/// Collects duplicates below a value; lists that did not change are tolerated.
pub(super) fn validate(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                if let Some(field) = schema.field(name) {
                    let inner_path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    validate(
                        field,
                        inner,
                        old.and_then(|old| old.get(name)),
                        &inner_path,
                        errors,
                    );
                }
            }
        }
        Value::Array(list) => {
            duplicates(schema, list, path, errors);
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter().enumerate() {
                    validate(items, inner, None, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn duplicates(schema: &Schema, list: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let key = |item: &Value| -> Option<Value> {
        match &schema.list_type {
            ListType::Atomic => None,
            ListType::Set => Some(item.clone()),
            ListType::Map(keys) => {
                let object = item.as_object()?;
                let found: Map<String, Value> = keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), object.get(key)?.clone())))
                    .collect();
                Some(Value::Object(found))
            }
        }
    };
    let keys: Vec<Option<Value>> = list.iter().map(key).collect();
    for (index, key) in keys.iter().enumerate() {
        if let Some(key) = key
            && keys[..index].contains(&Some(key.clone()))
        {
            errors.push(FieldError::duplicate(
                format!("{path}[{index}]"),
                key.clone(),
            ));
        }
    }
}

//! One schema of version 3 in the narrower language of version 2.
//!
//! What version 2 cannot say (choices, nullable values, open objects) becomes less strict, never stricter: a client that
//! validates with it must not refuse what the server takes.

use serde_json::{Map, Value};

const V3_REFERENCE: &str = "#/components/schemas/";
/// Keywords version 2 lacks, or that only the server uses.
const DROPPED: &[&str] = &[
    "allOf",
    "anyOf",
    "deprecated",
    "example",
    "externalDocs",
    "not",
    "nullable",
    "oneOf",
    "writeOnly",
    "x-kubernetes-validations",
];
/// Keywords that describe what is inside a value.
const INNER: &[&str] = &["items", "properties", "additionalProperties", "required"];

/// The schema, with everything inside, in version 2.
pub(super) fn convert(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        return Map::new().into();
    };
    if let Some(reference) = reference_of(&schema) {
        schema.retain(|key, _| key.starts_with("x-") || key == "description");
        schema.insert("$ref".into(), reference.into());
        return schema.into();
    }
    loosen(&mut schema);
    schema.retain(|key, _| !DROPPED.contains(&key.as_str()));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let nullable = nullable_names(properties);
        for property in properties.values_mut() {
            *property = convert(property.take());
        }
        leave_optional(&mut schema, &nullable);
    }
    match schema.get_mut("additionalProperties") {
        Some(values) if values.is_object() => *values = convert(values.take()),
        // A mere yes or no says nothing that clients look at.
        _ => drop(schema.remove("additionalProperties")),
    }
    if let Some(items) = schema.get_mut("items") {
        *items = convert(items.take());
    } else if schema.get("type").is_some_and(|kind| kind == "array") {
        // Readers of version 2 refuse a whole document with a list of nothing in it.
        schema.insert("items".into(), Map::new().into());
    }
    schema.into()
}

/// A plain reference, also one wrapped so that version 3 can put a default beside it.
fn reference_of(schema: &Map<String, Value>) -> Option<String> {
    let reference = match schema.get("allOf").and_then(Value::as_array) {
        Some(only) if only.len() == 1 => only[0].get("$ref"),
        _ => schema.get("$ref"),
    };
    let name = reference?.as_str()?;
    let name = name.strip_prefix(V3_REFERENCE).unwrap_or(name);
    Some(format!("#/definitions/{name}"))
}

fn is_true(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

/// Takes away what version 2 would read as stricter than it is meant.
fn loosen(schema: &mut Map<String, Value>) {
    let open = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    let nullable = is_true(schema, "nullable");
    if open || nullable {
        INNER.iter().for_each(|key| drop(schema.remove(*key)));
    }
    let is_object = schema.get("type").is_some_and(|kind| kind == "object");
    if nullable || (open && !is_object) || is_true(schema, "x-kubernetes-int-or-string") {
        schema.remove("type");
    } else if !schema.contains_key("type") && offers_string(schema) {
        // Clients let every scalar pass where a string is wanted: quantities and ports are strings to them.
        schema.insert("type".into(), "string".into());
    }
}

fn offers_string(schema: &Map<String, Value>) -> bool {
    let choices = schema.get("oneOf").and_then(Value::as_array);
    choices
        .into_iter()
        .flatten()
        .any(|choice| choice["type"] == "string")
}

fn nullable_names(properties: &Map<String, Value>) -> Vec<String> {
    properties
        .iter()
        .filter(|(_, one)| one["nullable"] == true)
        .map(|(name, _)| name.clone())
        .collect()
}

/// A null counts as missing in clients, so fields that may be null are not required of them.
fn leave_optional(schema: &mut Map<String, Value>, names: &[String]) {
    let Some(Value::Array(required)) = schema.get_mut("required") else {
        return;
    };
    required.retain(|one| {
        one.as_str()
            .is_some_and(|one| !names.iter().any(|name| name == one))
    });
    if required.is_empty() {
        schema.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrapped_reference_becomes_a_plain_one_and_keeps_its_extensions() {
        let wrapped = json!({
            "allOf": [{"$ref": "#/components/schemas/a.B"}], "default": {}, "x-kubernetes-map-type": "atomic",
        });
        assert_eq!(
            convert(wrapped),
            json!({"$ref": "#/definitions/a.B", "x-kubernetes-map-type": "atomic"})
        );
    }

    #[test]
    fn choices_with_a_string_become_strings() {
        let quantity = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
        assert_eq!(convert(quantity), json!({"type": "string"}));
        let either = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert_eq!(convert(either), json!({"x-kubernetes-int-or-string": true}));
    }

    #[test]
    fn nullable_and_open_values_are_not_looked_into() {
        let schema = json!({
            "type": "object", "required": ["a", "b"],
            "properties": {
                "a": {"type": "object", "nullable": true, "properties": {"c": {"type": "string"}}},
                "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"c": {}}},
                "d": {"type": "object", "additionalProperties": true},
            },
        });
        assert_eq!(
            convert(schema),
            json!({
                "type": "object", "required": ["b"],
                "properties": {
                    "a": {},
                    "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "d": {"type": "object"},
                },
            })
        );
    }

    #[test]
    fn a_list_always_says_what_its_items_are() {
        assert_eq!(
            convert(json!({"type": "array"})),
            json!({"type": "array", "items": {}})
        );
    }
}

//! Reading and completing JSON trees the way Go's structs behave: an absent field, `null` and the zero value are one thing.
//!
//! It refuses to know any kind.

use serde_json::{Map, Value};

static NO_ITEMS: [Value; 0] = [];

/// The text of a field, empty when absent.
pub fn text<'a>(tree: &'a Value, key: &str) -> &'a str {
    tree[key].as_str().unwrap_or_default()
}

/// The items of a field, none when absent.
pub fn list<'a>(tree: &'a Value, key: &str) -> &'a [Value] {
    tree[key].as_array().map_or(&NO_ITEMS, Vec::as_slice)
}

/// The entries of a field that is a map, none when absent.
pub fn entries<'a>(tree: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    tree[key].as_object().into_iter().flat_map(Map::iter)
}

/// A whole number, if there is one.
pub fn integer(tree: &Value, key: &str) -> Option<i64> {
    tree[key].as_i64()
}

/// A whole number, 0 when absent.
pub fn number(tree: &Value, key: &str) -> i64 {
    tree[key].as_i64().unwrap_or_default()
}

/// A truth, false when absent.
pub fn truth(tree: &Value, key: &str) -> bool {
    tree[key].as_bool().unwrap_or_default()
}

/// True when the field is there and not `null`.
pub fn present(tree: &Value, key: &str) -> bool {
    !tree[key].is_null()
}

/// True for what Go leaves out of JSON: `null`, empty text, empty lists and maps.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The subtree at a JSON pointer, `null` when absent.
pub fn at<'a>(tree: &'a Value, pointer: &str) -> &'a Value {
    tree.pointer(pointer).unwrap_or(&Value::Null)
}

/// The field as a map that can be changed; it is made when absent.
pub fn object_mut<'a>(tree: &'a mut Value, key: &str) -> &'a mut Value {
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    let field = &mut tree[key];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field
}

/// Sets a field that is absent or `null` (a Go pointer's default).
pub fn fill(tree: &mut Value, key: &str, value: impl Into<Value>) {
    if tree.is_object() && tree[key].is_null() {
        tree[key] = value.into();
    }
}

/// Sets a field that is absent, `null`, empty text or 0 (the default of a Go value).
pub fn fill_zero(tree: &mut Value, key: &str, value: impl Into<Value>) {
    if !tree.is_object() {
        return;
    }
    let zero = match &tree[key] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    };
    if zero {
        tree[key] = value.into();
    }
}

/// The items of a field for change, none when absent.
pub fn list_mut<'a>(tree: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    tree.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// A subtree for change, if it is a map.
pub fn child_mut<'a>(tree: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    tree.get_mut(key).filter(|value| value.is_object())
}

/// Removes a field.
pub fn remove(tree: &mut Value, key: &str) {
    if let Some(map) = tree.as_object_mut() {
        map.remove(key);
    }
}

/// Copies a field of `old` into `new`, or removes it where `old` has none.
pub fn restore(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) if new.is_object() => new[key] = value.clone(),
        _ => remove(new, key),
    }
}

/// Equal where absent, `null` and empty mean the same, at every depth.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(one), Value::Object(two)) => one
            .keys()
            .chain(two.keys())
            .all(|key| same(&left[key.as_str()], &right[key.as_str()])),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        _ => left == right || (is_empty(left) && is_empty(right)),
    }
}

/// `path.key`.
pub fn child(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

/// `path[3]` or `path[key]`.
pub fn index(path: &str, key: impl std::fmt::Display) -> String {
    format!("{path}[{key}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_empty_are_the_same() {
        assert!(same(&json!({"a": {"b": null, "c": []}}), &json!({"a": {}})));
        assert!(same(&json!({"a": {}}), &json!({})));
        assert!(!same(&json!({"a": 0}), &json!({"a": 1})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [1, 2]})));
    }

    #[test]
    fn filling_keeps_what_is_there() {
        let mut tree = json!({"a": 5, "b": "", "c": 0});
        fill(&mut tree, "a", 1);
        fill_zero(&mut tree, "b", "x");
        fill_zero(&mut tree, "c", 3);
        fill(&mut tree, "d", true);
        assert_eq!(tree, json!({"a": 5, "b": "x", "c": 3, "d": true}));
    }
}

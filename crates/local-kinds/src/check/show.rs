//! Structs as upstream shows them inside a sentence: JSON with Go's field names in Go's order.

use serde_json::Value;

/// A Go field name and where its value comes from in the tree.
pub type Field<'a> = (&'a str, String);

/// `{"Kind":"Role","Name":"y"}`; each value is JSON already.
pub fn structure(fields: &[Field<'_>]) -> String {
    let inner: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", inner.join(","))
}

/// A value as JSON, `null` when absent (a Go pointer).
pub fn pointer(tree: &Value, key: &str) -> String {
    tree[key].to_string()
}

/// A text as JSON, `""` when absent (a Go string).
pub fn text(tree: &Value, key: &str) -> String {
    Value::from(crate::tree::text(tree, key)).to_string()
}

/// A number as JSON, `0` when absent (a Go integer).
pub fn number(tree: &Value, key: &str) -> String {
    crate::tree::number(tree, key).to_string()
}

/// A nested struct behind a pointer: `null`, or the fields of the subtree.
pub fn nested(tree: &Value, key: &str, fields: impl Fn(&Value) -> String) -> String {
    if tree[key].is_null() {
        "null".to_string()
    } else {
        fields(&tree[key])
    }
}

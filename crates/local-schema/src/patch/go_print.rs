//! How Go's `%v` prints a JSON tree, for messages that show a patch.

use std::fmt::Write;

use serde_json::Value;

/// `map[a:1 b:[x y]]`
pub(super) fn print(value: &Value) -> String {
    let mut text = String::new();
    push(&mut text, value);
    text
}

fn push(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(inner) => text.push_str(inner),
        Value::Array(list) => {
            text.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                push(text, item);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push_str("map[");
            for (index, (key, item)) in fields.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(key);
                text.push(':');
                push(text, item);
            }
            text.push(']');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_are_printed_as_go_prints_maps() {
        let tree = json!({"b": [1, "x", null], "a": {"c": true}});
        assert_eq!(print(&tree), "map[a:map[c:true] b:[1 x <nil>]]");
    }
}

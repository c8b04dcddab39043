//! From a typed request to the flat text parameters that travel: `Container.1.EnvironmentVar.2.Key=…`.
//!
//! Members that are unset are left out; there are no markers for empty lists.

use serde::Serialize;
use serde_json::Value;

/// Flattens a request. Object members are joined by a dot, list items are numbered from 1.
pub fn flatten<T: Serialize>(request: &T) -> Result<Vec<(String, String)>, serde_json::Error> {
    let mut pairs = Vec::new();
    collect(
        &mut String::new(),
        serde_json::to_value(request)?,
        &mut pairs,
    );
    Ok(pairs)
}

fn collect(path: &mut String, value: Value, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => pairs.push((path.clone(), flag.to_string())),
        Value::Number(number) => pairs.push((path.clone(), number.to_string())),
        Value::String(text) => pairs.push((path.clone(), text)),
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                nested(path, &(index + 1).to_string(), item, pairs);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                nested(path, &name, member, pairs);
            }
        }
    }
}

fn nested(path: &mut String, name: &str, value: Value, pairs: &mut Vec<(String, String)>) {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(name);
    collect(path, value, pairs);
    path.truncate(length);
}

/// Removes members that are null, in a whole tree: the service leaves them out, and readers take that for null.
pub fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

//! RFC 6902 as upstream's library understands it: `replace` of a missing member works, a path's first segment is ignored,
//! a missing value is null, negative indexes count from the end.

use serde_json::{Map, Value};

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};
use crate::decode::go_kind;

/// One operation.
pub(super) struct Operation {
    name: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

/// Reads the list of operations.
pub(super) fn operations(body: Value) -> Result<Vec<Operation>, PatchError> {
    let refuse = |found: &str, wanted: &str| {
        PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go {wanted}"
        ))
    };
    let list = match body {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => {
            return Err(refuse(
                go_kind(&other),
                "value of type []handlers.jsonPatchOp",
            ));
        }
    };
    if list.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            list.len()
        )));
    }
    list.into_iter()
        .map(|item| match item {
            Value::Object(fields) => operation(fields),
            other => Err(refuse(
                go_kind(&other),
                "value of type handlers.jsonPatchOp",
            )),
        })
        .collect()
}

fn operation(mut fields: Map<String, Value>) -> Result<Operation, PatchError> {
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Ok(Some(text)),
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(PatchError::Unprocessable),
    };
    Ok(Operation {
        name: text("op")?.unwrap_or_default(),
        path: text("path")?,
        from: text("from")?,
        value: fields.remove("value").unwrap_or(Value::Null),
    })
}

/// Applies all operations, or none.
pub(super) fn apply(mut document: Value, operations: Vec<Operation>) -> Result<Value, PatchError> {
    for operation in operations {
        step(&mut document, operation)?;
    }
    Ok(document)
}

fn step(document: &mut Value, operation: Operation) -> Result<(), PatchError> {
    let path = operation.path.as_deref().ok_or(PatchError::Unprocessable);
    let from = operation.from.as_deref().ok_or(PatchError::Unprocessable);
    match operation.name.as_str() {
        "add" => add(document, path?, operation.value),
        "remove" => remove(document, path?).map(|_| ()),
        "replace" => replace(document, path?, operation.value),
        "move" => {
            let value = remove(document, from?)?;
            add(document, path?, value)
        }
        "copy" => {
            let value = find(document, from?)
                .cloned()
                .ok_or(PatchError::Unprocessable)?;
            add(document, path?, value)
        }
        "test" => {
            let found = find(document, path?).unwrap_or(&Value::Null);
            if *found == operation.value {
                Ok(())
            } else {
                Err(PatchError::Unprocessable)
            }
        }
        _ => Err(PatchError::Unprocessable),
    }
}

/// Segments after the first (which a well-formed path leaves empty), unescaped.
fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect()
}

fn parent<'v>(document: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), PatchError> {
    let mut segments = segments(path);
    let last = segments.pop().ok_or(PatchError::Unprocessable)?;
    let mut place = document;
    for segment in segments {
        place = match place {
            Value::Object(fields) => fields.get_mut(&segment),
            Value::Array(list) => index(&segment, list.len()).and_then(|at| list.get_mut(at)),
            _ => None,
        }
        .ok_or(PatchError::Unprocessable)?;
    }
    Ok((place, last))
}

fn find<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    let mut place = document;
    for segment in segments(path) {
        place = match place {
            Value::Object(fields) => fields.get(&segment)?,
            Value::Array(list) => list.get(index(&segment, list.len())?)?,
            _ => return None,
        };
    }
    Some(place)
}

fn index(segment: &str, length: usize) -> Option<usize> {
    let index: i64 = segment.parse().ok()?;
    if index < 0 {
        length.checked_sub(usize::try_from(-index).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (place, key) = parent(document, path)?;
    match place {
        Value::Object(fields) => {
            fields.insert(key, value);
            Ok(())
        }
        Value::Array(list) if key == "-" => {
            list.push(value);
            Ok(())
        }
        Value::Array(list) => {
            // An insertion counts the new item, so that -1 appends.
            let at = index(&key, list.len() + 1)
                .filter(|at| *at <= list.len())
                .ok_or(PatchError::Unprocessable)?;
            list.insert(at, value);
            Ok(())
        }
        _ => Err(PatchError::Unprocessable),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (place, key) = parent(document, path)?;
    match place {
        Value::Object(fields) => fields.remove(&key).ok_or(PatchError::Unprocessable),
        Value::Array(list) => match index(&key, list.len()) {
            Some(at) if at < list.len() => Ok(list.remove(at)),
            _ => Err(PatchError::Unprocessable),
        },
        _ => Err(PatchError::Unprocessable),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (place, key) = parent(document, path)?;
    match place {
        Value::Object(fields) => {
            fields.insert(key, value);
            Ok(())
        }
        Value::Array(list) => {
            let at = index(&key, list.len()).ok_or(PatchError::Unprocessable)?;
            *list.get_mut(at).ok_or(PatchError::Unprocessable)? = value;
            Ok(())
        }
        _ => Err(PatchError::Unprocessable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(document: Value, body: Value) -> Result<Value, PatchError> {
        apply(document, operations(body)?)
    }

    #[test]
    fn every_operation_does_its_work() {
        let body = json!([
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "add", "path": "/list/0", "value": 0},
            {"op": "copy", "from": "/list/0", "path": "/first"},
            {"op": "move", "from": "/a~1b", "path": "/moved"},
            {"op": "replace", "path": "/list/-1", "value": 9},
            {"op": "remove", "path": "/list/1"},
            {"op": "test", "path": "/missing", "value": null},
        ]);
        let result = run(json!({"list": [1, 2], "a/b": "x"}), body).unwrap();
        assert_eq!(result, json!({"list": [0, 2, 9], "first": 0, "moved": "x"}));
    }

    #[test]
    fn what_is_not_there_cannot_be_removed_moved_or_tested() {
        for operation in [
            json!({"op": "remove", "path": "/x"}),
            json!({"op": "move", "from": "/x", "path": "/y"}),
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "add", "path": "/x/y", "value": 1}),
            json!({"op": "frob", "path": "/a"}),
            json!({"op": "remove"}),
        ] {
            assert_eq!(
                run(json!({"a": 1}), json!([operation])),
                Err(PatchError::Unprocessable)
            );
        }
        assert_eq!(
            run(
                json!({}),
                json!([{"op": "replace", "path": "/x", "value": 1}])
            ),
            Ok(json!({"x": 1}))
        );
    }
}

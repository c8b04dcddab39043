//! The special members of strategic merge patches.

use serde_json::{Map, Value};

use super::PatchError;
use super::go_print::print;

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
pub(super) const ELEMENT_ORDER: &str = "$setElementOrder";

/// `$patch` inside an object: the whole result, or `None` when there is no such directive.
pub(super) fn whole(
    patch: &mut Map<String, Value>,
) -> Result<Option<Map<String, Value>>, PatchError> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(directive)) if directive == "replace" => {
            let mut replaced = std::mem::take(patch);
            replaced.remove(PATCH);
            Ok(Some(replaced))
        }
        Some(Value::String(directive)) if directive == "delete" => Ok(Some(Map::new())),
        Some(other) => Err(unknown(other, &Value::Object(patch.clone()))),
    }
}

pub(super) fn unknown(directive: &Value, map: &Value) -> PatchError {
    PatchError::Internal(format!(
        "unknown patch type: {} in map: {}",
        print(directive),
        print(map)
    ))
}

pub(super) fn no_merge_key(map: &Value, key: &str) -> PatchError {
    PatchError::Internal(format!(
        "map: {} does not contain declared merge key: {key}",
        print(map)
    ))
}

/// `$retainKeys`: members of the original that the list does not name go.
pub(super) fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let refuse = || PatchError::BadRequest("invalid patch format of retainKeys".to_string());
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(refuse());
    };
    let retained = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    for (name, value) in &*patch {
        let directive = name.starts_with(DELETE_FROM_LIST) || name.starts_with(ELEMENT_ORDER);
        if !value.is_null() && !directive && !retained(name) {
            return Err(refuse());
        }
    }
    original.retain(|name, _| retained(name));
    Ok(())
}

/// A patch value that meets nothing: nulls and directives mean nothing there.
pub(super) fn strip(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if fields
                .get(PATCH)
                .is_some_and(|directive| directive == "delete")
            {
                return Value::Object(Map::new());
            }
            Value::Object(
                fields
                    .into_iter()
                    .filter(|(name, value)| !value.is_null() && !is_directive(name))
                    .map(|(name, value)| (name, strip(value)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(
            list.into_iter()
                .filter(|item| item.get(PATCH).is_none())
                .map(strip)
                .collect(),
        ),
        other => other,
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_FROM_LIST)
        || name.starts_with("$setElementOrder/")
}

/// Refuses a patch whose items stand in another order than its `$setElementOrder` says.
pub(super) fn check_order(
    patch: &[Value],
    order: &[Value],
    key: Option<&str>,
) -> Result<(), PatchError> {
    let mut next = 0;
    for item in patch {
        if key.is_some() && item.get(PATCH).is_some() {
            continue;
        }
        let same = |other: &Value| match key {
            Some(key) => item.get(key) == other.get(key),
            None => item == other,
        };
        match order.iter().skip(next).position(same) {
            Some(offset) => next += offset + 1,
            None => {
                return Err(PatchError::Internal(format!(
                    "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                    print(&Value::Array(patch.to_vec())),
                    print(&Value::Array(order.to_vec()))
                )));
            }
        }
    }
    Ok(())
}

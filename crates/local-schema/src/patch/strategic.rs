//! Strategic merge: objects merge, lists merge by key where the type says so, directives steer.

use serde_json::{Map, Value};

use super::PatchError;
use super::directives::{self, DELETE_FROM_LIST, ELEMENT_ORDER, PATCH};
use super::go_print::print;
use crate::types::{PatchRule, Shape, Type};

/// Merges a patch into an object of a type.
pub(super) fn merge(original: Value, patch: Value, kind: Type<'_>) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Internal(
            "expected an object and a patch that is one".to_string(),
        ));
    };
    merge_map(original, patch, Some(kind)).map(Value::Object)
}

/// What the type says about one member.
struct Member<'t> {
    kind: Option<Type<'t>>,
    rule: Option<&'t PatchRule>,
}

impl<'t> Member<'t> {
    fn of(kind: Option<Type<'t>>, name: &str) -> Self {
        let Some(kind) = kind else {
            return Self {
                kind: None,
                rule: None,
            };
        };
        match &kind.node().shape {
            Shape::Struct(fields) => match fields.field(name) {
                Some(field) => Self {
                    kind: Some(kind.at(field.node)),
                    rule: field.patch.as_deref(),
                },
                None => Self {
                    kind: None,
                    rule: None,
                },
            },
            Shape::Map { value } => Self {
                kind: Some(kind.at(*value)),
                rule: None,
            },
            _ => Self {
                kind: None,
                rule: None,
            },
        }
    }

    fn merges(&self) -> bool {
        self.rule.is_some_and(|rule| rule.merge)
    }

    fn key(&self) -> Option<&'t str> {
        self.rule.and_then(|rule| rule.key.as_deref())
    }

    fn item(&self) -> Option<Type<'t>> {
        let kind = self.kind?;
        match &kind.node().shape {
            Shape::List { item, .. } => Some(kind.at(*item)),
            _ => None,
        }
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    kind: Option<Type<'_>>,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(whole) = directives::whole(&mut patch)? {
        return Ok(whole);
    }
    directives::retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, kind)?;
    for (name, value) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM_LIST) {
            Some(rest) => (rest.to_string(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let Some(before) = original.get_mut(&name) else {
            if !deletes {
                original.insert(name, directives::strip(value));
            }
            continue;
        };
        let before = std::mem::take(before);
        let member = Member::of(kind, &name);
        let merged = match (before, value) {
            (Value::Object(before), Value::Object(value)) => {
                merge_map(before, value, member.kind).map(Value::Object)
            }
            (Value::Array(before), Value::Array(value)) if member.merges() || deletes => {
                merge_list(before, value, &member, deletes).map(Value::Array)
            }
            (before, _) if deletes => Ok(before),
            (Value::Object(_) | Value::Array(_), value) | (_, value) => Ok(match value {
                Value::Array(list) => Value::Array(list),
                other => directives::strip(other),
            }),
        }?;
        original.insert(name, merged);
    }
    Ok(original)
}

/// `$setElementOrder/<list>` together with the list it orders.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    kind: Option<Type<'_>>,
) -> Result<(), PatchError> {
    let orders: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in orders {
        let order = patch.remove(&directive);
        let Some(name) = directive
            .strip_prefix(ELEMENT_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Err(PatchError::BadRequest(
                "invalid patch format of setElementOrder list".to_string(),
            ));
        };
        let Some(Value::Array(order)) = order else {
            return Err(PatchError::BadRequest(
                "invalid patch format of setElementOrder list".to_string(),
            ));
        };
        let member = Member::of(kind, name);
        let patch_list = match patch.remove(name) {
            Some(Value::Array(list)) => Some(list),
            Some(other) => {
                patch.insert(name.to_string(), other);
                continue;
            }
            None => None,
        };
        directives::check_order(
            patch_list.as_deref().unwrap_or_default(),
            &order,
            member.key(),
        )?;
        let server_order = match original.get(name) {
            Some(Value::Array(list)) => Some(list.clone()),
            _ => None,
        };
        let merged = match (server_order.clone(), patch_list) {
            (Some(before), Some(list)) if member.merges() => {
                merge_list(before, list, &member, false)?
            }
            (_, Some(list)) => match directives::strip(Value::Array(list)) {
                Value::Array(list) => list,
                _ => Vec::new(),
            },
            (Some(before), None) => before,
            (None, None) => continue,
        };
        let ordered = order_items(
            merged,
            &order,
            &server_order.unwrap_or_default(),
            member.key(),
        )?;
        original.insert(name.to_string(), Value::Array(ordered));
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    member: &Member<'_>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let of_maps = original
        .iter()
        .chain(&patch)
        .next()
        .is_some_and(Value::is_object);
    if original
        .iter()
        .chain(&patch)
        .any(|item| item.is_object() != of_maps || item.is_null())
    {
        return Err(PatchError::Internal(format!(
            "list element types are not identical: [{} {}]",
            print(&Value::Array(original)),
            print(&Value::Array(patch))
        )));
    }
    if !of_maps {
        if deletes {
            return Ok(original
                .into_iter()
                .filter(|item| !patch.contains(item))
                .collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return order_items(merged, &patch, &original, None);
    }
    let Some(key) = member.key() else {
        return Err(PatchError::Internal(
            "cannot merge lists without merge key".to_string(),
        ));
    };
    let (original, patch) = list_directives(original, patch, key)?;
    let mut merged = original.clone();
    for item in &patch {
        let Some(wanted) = item.get(key) else {
            return Err(directives::no_merge_key(item, key));
        };
        match merged.iter_mut().find(|one| one.get(key) == Some(wanted)) {
            Some(place) => {
                if let (Value::Object(before), Value::Object(item)) =
                    (std::mem::take(place), item.clone())
                {
                    *place = Value::Object(merge_map(before, item, member.item())?);
                }
            }
            None => merged.push(item.clone()),
        }
    }
    let ordered = order_items(merged, &patch, &original, Some(key))?;
    Ok(ordered.into_iter().map(drop_new_directives).collect())
}

/// Items that were added as they stood in the patch may still carry directives and nulls.
fn drop_new_directives(item: Value) -> Value {
    directives::strip(item)
}

/// Carries out `$patch` items of a list of objects; what remains is merged.
fn list_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(PATCH) {
            None => rest.push(item),
            Some(directive) if directive == "delete" => match item.get(key) {
                Some(wanted) => original.retain(|one| one.get(key) != Some(wanted)),
                None => return Err(directives::no_merge_key(&item, key)),
            },
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "merge" => {
                return Err(PatchError::Internal(
                    "merging lists cannot yet be specified in the patch".to_string(),
                ));
            }
            Some(directive) => return Err(directives::unknown(directive, &item)),
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    Ok((original, rest))
}

/// Items named by `order` stand in its order; the others keep theirs among them as on the server; new ones come first.
fn order_items(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key
        && let Some(item) = items
            .iter()
            .chain(order)
            .find(|item| item.get(key).is_none())
    {
        return Err(directives::no_merge_key(item, key));
    }
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|one| match key {
            Some(key) => one.get(key) == item.get(key),
            None => one == item,
        })
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(server_order, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(result),
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(other), Some(item)) => {
                match (place(server_order, other), place(server_order, item)) {
                    (Some(left), Some(right)) => left < right,
                    _ => false,
                }
            }
        };
        let next = if other_first {
            others.next()
        } else {
            named.next()
        };
        result.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::type_of;
    use serde_json::json;

    fn pod(original: Value, patch: Value) -> Result<Value, PatchError> {
        let kind = type_of("", "v1", "Pod").unwrap();
        merge(
            json!({"spec": original}),
            json!({"spec": patch}),
            kind.walk(),
        )
        .map(|mut pod| pod["spec"].take())
    }

    #[test]
    fn containers_merge_by_name_and_new_ones_come_first() {
        let result = pod(
            json!({"containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "2"}]}),
        );
        assert_eq!(
            result.unwrap(),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "2"}]})
        );
    }

    #[test]
    fn directives_delete_replace_and_retain() {
        let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]});
        let deleted = pod(
            volumes.clone(),
            json!({"volumes": [{"name": "w", "$patch": "delete"}]}),
        );
        assert_eq!(
            deleted.unwrap(),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]})
        );
        let replaced = pod(
            volumes.clone(),
            json!({"volumes": [{"name": "x"}, {"$patch": "replace"}]}),
        );
        assert_eq!(replaced.unwrap(), json!({"volumes": [{"name": "x"}]}));
        let retained = pod(
            volumes,
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {}}]}),
        );
        assert_eq!(
            retained.unwrap()["volumes"][0],
            json!({"name": "v", "secret": {}})
        );
    }

    #[test]
    fn an_item_without_its_merge_key_is_refused() {
        let error = pod(
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"image": "z"}]}),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "map: map[image:z] does not contain declared merge key: name"
        );
    }
}

//! Values along their types: the set of paths a value names, merging one into another, taking paths out, checking.

use serde_json::{Map, Value};

use super::atom::{Atom, Fields, Items, atom};
use super::set::{Node, attach, is_member, make_member, print_element};
use crate::types::{Scalar, Shape, Type};

/// The paths an applied value names.
pub(super) fn field_set(kind: Option<Type<'_>>, value: &Value) -> Option<Node> {
    match atom(kind, Some(value)) {
        Atom::Leaf => Some(Node::new()),
        Atom::Map(fields) => {
            let mut node = Node::new();
            for (name, inner) in value.as_object().into_iter().flatten() {
                let field = fields.field(name);
                let mut child = field_set(field.kind, inner);
                let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                if empty || !field.named {
                    make_member(child.get_or_insert_default());
                }
                attach(&mut node, format!("f:{name}"), child);
            }
            (!node.is_empty()).then_some(node)
        }
        Atom::List(items) => {
            let mut node = Node::new();
            for item in value.as_array().into_iter().flatten() {
                let Ok(element) = items.element(item) else {
                    continue;
                };
                let mut child = field_set(Some(items.item), item).unwrap_or_default();
                make_member(&mut child);
                attach(&mut node, element, Some(child));
            }
            (!node.is_empty()).then_some(node)
        }
    }
}

/// What results when an applied value is laid over a live one.
pub(super) fn merge(
    kind: Option<Type<'_>>,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Option<Value> {
    let (Some(lower), Some(upper)) = (live, config) else {
        return config.or(live).cloned();
    };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if empty(lower) && empty(upper) {
        return Some(upper.clone());
    }
    match (atom(kind, live), atom(kind, config)) {
        (Atom::Map(fields), Atom::Map(_)) => merge_maps(&fields, lower, upper),
        (Atom::List(items), Atom::List(_)) => merge_lists(&items, lower, upper),
        _ => Some(upper.clone()),
    }
}

fn merge_maps(fields: &Fields<'_>, live: &Value, config: &Value) -> Option<Value> {
    let mut merged = Map::new();
    let upper = config.as_object();
    for (name, value) in live.as_object().into_iter().flatten() {
        let peer = upper.and_then(|upper| upper.get(name));
        if let Some(value) = merge(fields.field(name).kind, Some(value), peer) {
            merged.insert(name.clone(), value);
        }
    }
    for (name, value) in upper.into_iter().flatten() {
        if !merged.contains_key(name) {
            merged.insert(name.clone(), value.clone());
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// Items of both, the applied ones in their order, the others where they stand between them.
fn merge_lists(items: &Items<'_>, live: &Value, config: &Value) -> Option<Value> {
    let elements = |list: &Value| -> Vec<String> {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|item| items.element(item).unwrap_or_default())
            .collect()
    };
    let empty = Vec::new();
    let (lower, upper) = (
        live.as_array().unwrap_or(&empty),
        config.as_array().unwrap_or(&empty),
    );
    let (left, right) = (elements(live), elements(config));
    let mut shared = right
        .iter()
        .filter(|element| left.contains(element))
        .peekable();
    let mut taken: Vec<&String> = Vec::with_capacity(right.len());
    let mut merged = Vec::with_capacity(lower.len().max(upper.len()));
    let both = |element: &String, peer: &Value| {
        let below = left
            .iter()
            .position(|other| other == element)
            .map(|at| &lower[at]);
        merge(Some(items.item), below, Some(peer))
    };
    let (mut at_left, mut at_right) = (0, 0);
    while at_left < lower.len() || at_right < upper.len() {
        if at_left < lower.len() && at_right < upper.len() {
            let element = &left[at_left];
            if *element == right[at_right] {
                merged.extend(both(element, &upper[at_right]));
                taken.push(element);
                shared.next();
                at_left += 1;
                at_right += 1;
                continue;
            }
            if right.contains(element) && shared.peek().is_some_and(|wanted| *wanted != element) {
                // It comes later, in the applied order.
                at_left += 1;
                continue;
            }
        }
        if at_left < lower.len() {
            let element = &left[at_left];
            if !right.contains(element) {
                merged.push(lower[at_left].clone());
                at_left += 1;
                continue;
            }
            if taken.contains(&element) {
                at_left += 1;
            }
        }
        if at_right < upper.len() {
            let element = &right[at_right];
            merged.extend(both(element, &upper[at_right]));
            taken.push(element);
            at_right += 1;
            if shared.peek().is_some_and(|wanted| *wanted == element) {
                shared.next();
            }
        }
    }
    (!merged.is_empty()).then_some(Value::Array(merged))
}

/// The value without the paths of a set; `None` when nothing is left of a container.
pub(super) fn remove(kind: Option<Type<'_>>, value: &Value, set: &Node) -> Option<Value> {
    match atom(kind, Some(value)) {
        Atom::Leaf => Some(value.clone()),
        Atom::Map(fields) => {
            let mut left = Map::new();
            for (name, inner) in value.as_object()? {
                match set.get(&format!("f:{name}")).and_then(Value::as_object) {
                    Some(child) if is_member(child) => {}
                    Some(child) => {
                        let inner = remove(fields.field(name).kind, inner, child);
                        left.insert(name.clone(), inner.unwrap_or(Value::Null));
                    }
                    None => {
                        left.insert(name.clone(), inner.clone());
                    }
                }
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        Atom::List(items) => {
            let mut left = Vec::new();
            for item in value.as_array()? {
                let child = items
                    .element(item)
                    .ok()
                    .and_then(|element| set.get(&element))
                    .and_then(Value::as_object);
                match child {
                    Some(child) if is_member(child) => {}
                    Some(child) => {
                        left.push(remove(Some(items.item), item, child).unwrap_or(Value::Null))
                    }
                    None => left.push(item.clone()),
                }
            }
            (!left.is_empty()).then_some(Value::Array(left))
        }
    }
}

/// The set with the named fields above its paths as members, so that removing them removes what becomes empty.
pub(super) fn with_named_fields(kind: Option<Type<'_>>, set: &Node) -> Node {
    let mut result = Node::new();
    // Only typed places have named fields; deduced ones look like maps.
    let place = atom(kind, Some(&Value::Object(Map::new())));
    for (element, child) in set {
        let Value::Object(child) = child else {
            continue;
        };
        if element == "." {
            result.insert(element.clone(), Value::Object(Node::new()));
            continue;
        }
        let (inner, named) = match (&place, element.strip_prefix("f:")) {
            (Atom::Map(fields), Some(name)) => {
                let field = fields.field(name);
                (field.kind, field.named)
            }
            (Atom::List(items), _) => (Some(items.item), false),
            _ => (None, false),
        };
        let mut node = with_named_fields(inner, child);
        if named {
            make_member(&mut node);
        }
        result.insert(element.clone(), Value::Object(node));
    }
    result
}

/// Checks an applied value; each complaint with its path.
pub(super) fn check(
    kind: Option<Type<'_>>,
    value: &Value,
    path: &str,
    complaints: &mut Vec<String>,
) {
    let Some(kind) = kind else { return };
    if value.is_null() {
        return;
    }
    let complain =
        |complaints: &mut Vec<String>, text: String| complaints.push(format!("{path}: {text}"));
    match &kind.node().shape {
        Shape::Any => {}
        Shape::Scalar(scalar) => {
            if let Some(text) = check_scalar(*scalar, value) {
                complain(complaints, text);
            }
        }
        Shape::List { item, .. } => match value {
            Value::Array(list) => check_items(kind, kind.at(*item), list, path, complaints),
            _ => complain(
                complaints,
                format!("expected list, got &{{{}}}", go_value(value)),
            ),
        },
        Shape::Map { .. } | Shape::Struct(_) => {
            let Value::Object(object) = value else {
                return complain(
                    complaints,
                    format!("expected map, got &{{{}}}", go_value(value)),
                );
            };
            for (name, inner) in object {
                let inner_path = format!("{path}.{name}");
                let inner_kind = match &kind.node().shape {
                    Shape::Map { value } => Some(*value),
                    Shape::Struct(fields) => {
                        fields.field(name).map(|field| field.node).or(fields.rest)
                    }
                    _ => None,
                };
                match inner_kind {
                    Some(id) => check(Some(kind.at(id)), inner, &inner_path, complaints),
                    None => complaints.push(format!("{inner_path}: field not declared in schema")),
                }
            }
        }
    }
}

fn check_items(
    kind: Type<'_>,
    item: Type<'_>,
    list: &[Value],
    path: &str,
    complaints: &mut Vec<String>,
) {
    let items = match atom(Some(kind), None) {
        Atom::List(items) => Some(items),
        _ => None,
    };
    let mut seen: Vec<String> = Vec::new();
    for (index, inner) in list.iter().enumerate() {
        let element = match &items {
            None => format!("i:{index}"),
            Some(items) => match items.element(inner) {
                Ok(element) => element,
                Err(text) => {
                    complaints.push(format!("{path}: element {index}: {text}"));
                    continue;
                }
            },
        };
        let shown = print_element(&element);
        if items.is_some() && seen.contains(&element) {
            complaints.push(format!("{path}: duplicate entries for key {shown}"));
        }
        seen.push(element);
        check(Some(item), inner, &format!("{path}{shown}"), complaints);
    }
}

fn check_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let go = || go_value(value);
    match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Duration
            if !value.is_string() =>
        {
            Some(format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go()
            ))
        }
        Scalar::Boolean if !value.is_boolean() => {
            Some(format!("expected boolean, got &{{{}}}", go()))
        }
        Scalar::Int32 | Scalar::Int64 | Scalar::Float if !value.is_number() => {
            let found = match value {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            Some(format!("expected numeric (int or float), got {found}"))
        }
        Scalar::Quantity | Scalar::IntOrString if value.is_object() || value.is_array() => {
            Some(format!("expected any scalar, got &{{{}}}", go()))
        }
        _ => None,
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

//! Sets of field paths in the form in which `fieldsV1` stores them: a trie of JSON objects.
//!
//! A node stands for a path; it is a member of the set when it is empty or holds `.`. Keeping the stored form means that a
//! write which touches nobody's fields copies nothing.

use serde_json::{Map, Value};

pub(super) type Node = Map<String, Value>;

const SELF: &str = ".";

pub(super) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// A node that is a member and has these children.
pub(super) fn make_member(node: &mut Node) {
    if !node.is_empty() {
        node.insert(SELF.to_string(), Value::Object(Node::new()));
    }
}

/// Adds a child node under a path element; children that hold nothing are not added.
pub(super) fn attach(parent: &mut Node, element: String, child: Option<Node>) {
    if let Some(child) = child {
        parent.insert(element, Value::Object(child));
    }
}

/// Adds all paths of `other`; both are roots.
pub(super) fn unite(target: &mut Node, other: &Node) {
    for (element, child) in other {
        let Value::Object(child) = child else {
            continue;
        };
        match target.get_mut(element) {
            Some(Value::Object(own)) => unite_nodes(own, child),
            _ => {
                target.insert(element.clone(), Value::Object(child.clone()));
            }
        }
    }
}

fn unite_nodes(target: &mut Node, other: &Node) {
    let member = is_member(target) || is_member(other);
    target.remove(SELF);
    for (element, child) in other {
        let Value::Object(child) = child else {
            continue;
        };
        if element == SELF {
            continue;
        }
        match target.get_mut(element) {
            Some(Value::Object(own)) => unite_nodes(own, child),
            _ => {
                target.insert(element.clone(), Value::Object(child.clone()));
            }
        }
    }
    if member {
        make_member(target);
    }
}

/// Takes all paths of `other` away; both are roots.
pub(super) fn subtract(target: &mut Node, other: &Node) {
    for (element, child) in other {
        let Value::Object(child) = child else {
            continue;
        };
        if let Some(Value::Object(own)) = target.get_mut(element)
            && !subtract_nodes(own, child)
        {
            target.remove(element);
        }
    }
}

/// Whether anything is left.
fn subtract_nodes(target: &mut Node, other: &Node) -> bool {
    let member = is_member(target) && !is_member(other);
    target.remove(SELF);
    for (element, child) in other {
        let Value::Object(child) = child else {
            continue;
        };
        if let Some(Value::Object(own)) = target.get_mut(element)
            && !subtract_nodes(own, child)
        {
            target.remove(element);
        }
    }
    let left = member || !target.is_empty();
    if member {
        make_member(target);
    }
    left
}

/// The paths in both; roots.
pub(super) fn intersect(one: &Node, other: &Node) -> Node {
    let mut both = Node::new();
    for (element, child) in one {
        if let (Value::Object(child), Some(Value::Object(peer))) = (child, other.get(element)) {
            attach(&mut both, element.clone(), intersect_nodes(child, peer));
        }
    }
    both
}

fn intersect_nodes(one: &Node, other: &Node) -> Option<Node> {
    let member = is_member(one) && is_member(other);
    let mut both = Node::new();
    for (element, child) in one {
        if element == SELF {
            continue;
        }
        if let (Value::Object(child), Some(Value::Object(peer))) = (child, other.get(element)) {
            attach(&mut both, element.clone(), intersect_nodes(child, peer));
        }
    }
    if member {
        make_member(&mut both);
        return Some(both);
    }
    (!both.is_empty()).then_some(both)
}

/// Takes a path with everything below it away.
pub(super) fn remove_below(target: &mut Node, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let element = format!("f:{first}");
    if rest.is_empty() {
        target.remove(&element);
        return;
    }
    if let Some(Value::Object(child)) = target.get_mut(&element) {
        // An empty child is a member without children: nothing below it to remove.
        if child.is_empty() {
            return;
        }
        remove_below(child, rest);
        if child.is_empty() {
            target.remove(&element);
        }
    }
}

/// Every member's path as upstream prints it, members before what is below.
pub(super) fn paths(root: &Node) -> Vec<String> {
    let mut found = Vec::new();
    collect(root, "", &mut found);
    found
}

fn collect(node: &Node, prefix: &str, found: &mut Vec<String>) {
    let children = || {
        node.iter()
            .filter(|(element, _)| element.as_str() != SELF)
            .filter_map(|(element, child)| child.as_object().map(|child| (element, child)))
    };
    for (element, child) in children() {
        if is_member(child) {
            found.push(format!("{prefix}{}", print_element(element)));
        }
    }
    for (element, child) in children() {
        collect(child, &format!("{prefix}{}", print_element(element)), found);
    }
}

/// `.name`, `[key="x"]`, `[="value"]`, `[0]`.
pub(super) fn print_element(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str::<Node>(keys) {
            Ok(keys) => {
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("[{}]", keys.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        _ => element.to_string(),
    }
}

/// Whether a stored set is well-formed: objects all the way down, known path elements, bounded depth.
pub(super) fn is_well_formed(root: &Node) -> bool {
    const MAX_DEPTH: usize = 100;
    fn check(node: &Node, depth: usize) -> bool {
        depth < MAX_DEPTH
            && node.iter().all(|(element, child)| {
                let known = element == SELF
                    || matches!(element.split_once(':'), Some(("f", _)))
                    || match element.split_once(':') {
                        Some(("k", keys)) => serde_json::from_str::<Node>(keys).is_ok(),
                        Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok(),
                        Some(("i", index)) => index.parse::<i64>().is_ok(),
                        _ => false,
                    };
                known
                    && child
                        .as_object()
                        .is_some_and(|child| check(child, depth + 1))
            })
    }
    check(root, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn node(value: Value) -> Node {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn union_and_difference_keep_members_apart_from_their_children() {
        let mut set = node(json!({"f:a": {}, "f:b": {"f:c": {}}}));
        unite(&mut set, &node(json!({"f:a": {"f:x": {}}, "f:b": {}})));
        assert_eq!(
            set,
            node(json!({"f:a": {".": {}, "f:x": {}}, "f:b": {".": {}, "f:c": {}}}))
        );
        subtract(&mut set, &node(json!({"f:a": {}, "f:b": {"f:c": {}}})));
        assert_eq!(set, node(json!({"f:a": {"f:x": {}}, "f:b": {}})));
    }

    #[test]
    fn paths_are_printed_as_upstream_prints_them() {
        let set = node(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"proto\":\"TCP\"}": {"f:env": {"f:z": {}}, "f:name": {}}, "v:\"a\"": {}}}}),
        );
        assert_eq!(
            paths(&set),
            [
                ".spec.ports[=\"a\"]",
                ".spec.ports[port=80,proto=\"TCP\"].name",
                ".spec.ports[port=80,proto=\"TCP\"].env.z",
            ]
        );
    }

    fn sets() -> impl Strategy<Value = Node> {
        let leaf = Just(Node::new());
        let inner = leaf.prop_recursive(3, 12, 3, |inner| {
            (
                any::<bool>(),
                prop::collection::btree_map("f:[a-c]", inner, 1..3),
            )
                .prop_map(|(member, children)| {
                    let mut node: Node = children
                        .into_iter()
                        .map(|(key, child)| (key, Value::Object(child)))
                        .collect();
                    if member {
                        make_member(&mut node);
                    }
                    node
                })
        });
        prop::collection::btree_map("f:[a-c]", inner, 0..3).prop_map(|children| {
            children
                .into_iter()
                .map(|(key, child)| (key, Value::Object(child)))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn set_arithmetic_agrees_with_sets_of_paths(one in sets(), other in sets()) {
            use std::collections::BTreeSet;
            let listed = |node: &Node| paths(node).into_iter().collect::<BTreeSet<_>>();
            let (left, right) = (listed(&one), listed(&other));
            let mut union = one.clone();
            unite(&mut union, &other);
            prop_assert_eq!(listed(&union), left.union(&right).cloned().collect());
            let mut difference = one.clone();
            subtract(&mut difference, &other);
            prop_assert_eq!(listed(&difference), left.difference(&right).cloned().collect());
            prop_assert_eq!(listed(&intersect(&one, &other)), left.intersection(&right).cloned().collect());
        }
    }
}

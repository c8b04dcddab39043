//! The difference between two objects as sets of added, changed and removed paths.

use serde_json::{Map, Value};

use super::atom::{Atom, Fields, Items, atom};
use super::set::{Node, attach, make_member, unite};
use crate::types::Type;

/// Sets of paths; `None` holds nothing.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) added: Option<Node>,
    pub(super) changed: Option<Node>,
    pub(super) removed: Option<Node>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_none() && self.changed.is_none() && self.removed.is_none()
    }

    /// What somebody wrote: added and changed.
    pub(super) fn written(&self) -> Node {
        let mut written = self.added.clone().unwrap_or_default();
        if let Some(changed) = &self.changed {
            unite(&mut written, changed);
        }
        written
    }
}

/// Compares two values of a type; `None` = absent.
pub(super) fn compare(
    kind: Option<Type<'_>>,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Difference {
    if before == after {
        return Difference::default();
    }
    match (before, after) {
        (Some(_), Some(_)) => match (atom(kind, before), atom(kind, after)) {
            (Atom::Map(fields), Atom::Map(_)) => maps(&fields, before, after),
            (Atom::List(items), Atom::List(_)) => lists(&items, before, after),
            // Two forms of a value nothing is known about: what was below goes, what is below comes.
            (Atom::Map(fields), Atom::Leaf) => with_change(maps(&fields, before, None)),
            (Atom::Leaf, Atom::Map(fields)) => with_change(maps(&fields, None, after)),
            _ => leaf(before, after),
        },
        _ => {
            let mut difference = match atom(kind, before.or(after)) {
                Atom::Leaf => return leaf(before, after),
                Atom::Map(fields) => maps(&fields, before, after),
                Atom::List(items) => lists(&items, before, after),
            };
            let side = if before.is_none() {
                &mut difference.added
            } else {
                &mut difference.removed
            };
            make_member(side.get_or_insert_default());
            difference
        }
    }
}

fn with_change(difference: Difference) -> Difference {
    Difference {
        changed: Some(Node::new()),
        ..difference
    }
}

/// Empty containers count as leaves when both sides are.
fn is_leafy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// A leaf that differs.
fn leaf(before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    let side = match (before, after) {
        (None, _) => &mut difference.added,
        (_, None) => &mut difference.removed,
        _ => &mut difference.changed,
    };
    *side = Some(Node::new());
    difference
}

fn maps(fields: &Fields<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    if is_leafy(before) && is_leafy(after) {
        return leaf(before, after);
    }
    let mut nodes = Builder::default();
    let old = before.and_then(Value::as_object);
    let new = after.and_then(Value::as_object);
    for (name, value) in old.into_iter().flatten() {
        let peer = new.and_then(|new| new.get(name));
        let difference = compare(fields.field(name).kind, Some(value), peer);
        nodes.attach(difference, || format!("f:{name}"));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|old: &Map<String, Value>| !old.contains_key(name)) {
            let difference = compare(fields.field(name).kind, None, Some(value));
            nodes.attach(difference, || format!("f:{name}"));
        }
    }
    nodes.finish()
}

fn lists(items: &Items<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    if is_leafy(before) && is_leafy(after) {
        return leaf(before, after);
    }
    let old = index(items, before);
    let new = index(items, after);
    let mut nodes = Builder::default();
    for (element, values) in &old {
        let peers = new
            .iter()
            .find(|(other, _)| other == element)
            .map(|(_, peers)| peers);
        let difference = match (values.as_slice(), peers.map(Vec::as_slice)) {
            ([value], Some([peer])) => compare(Some(items.item), Some(value), Some(peer)),
            ([value], None) => compare(Some(items.item), Some(value), None),
            (values, Some(peers)) if values == peers => Difference::default(),
            // Duplicates cannot be told apart: together they are one leaf.
            (_, Some(_)) => leaf(before, after),
            (_, None) => leaf(before, None),
        };
        nodes.attach(difference, || element.clone());
    }
    for (element, values) in &new {
        if old.iter().any(|(other, _)| other == element) {
            continue;
        }
        let difference = match values.as_slice() {
            [value] => compare(Some(items.item), None, Some(value)),
            _ => leaf(None, after),
        };
        nodes.attach(difference, || element.clone());
    }
    nodes.finish()
}

/// Items by path element, in order; duplicates together. Items without an element are left out.
fn index<'v>(items: &Items<'_>, list: Option<&'v Value>) -> Vec<(String, Vec<&'v Value>)> {
    let mut indexed: Vec<(String, Vec<&Value>)> = Vec::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        let Ok(element) = items.element(item) else {
            continue;
        };
        match indexed.iter_mut().find(|(other, _)| *other == element) {
            Some((_, same)) => same.push(item),
            None => indexed.push((element, vec![item])),
        }
    }
    indexed
}

#[derive(Default)]
struct Builder {
    added: Node,
    changed: Node,
    removed: Node,
}

impl Builder {
    fn attach(&mut self, difference: Difference, element: impl Fn() -> String) {
        if difference.is_empty() {
            return;
        }
        for (target, node) in [
            (&mut self.added, difference.added),
            (&mut self.changed, difference.changed),
            (&mut self.removed, difference.removed),
        ] {
            if node.is_some() {
                attach(target, element(), node);
            }
        }
    }

    fn finish(self) -> Difference {
        let some = |node: Node| (!node.is_empty()).then_some(node);
        Difference {
            added: some(self.added),
            changed: some(self.changed),
            removed: some(self.removed),
        }
    }
}

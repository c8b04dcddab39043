//! Who owns which field: `metadata.managedFields` of ordinary writes, and server-side apply.
//!
//! Ownership is arithmetic with sets of paths along the type of the object; an unknown type makes maps granular and lists
//! atomic. It refuses defaults, validation and storage: callers default and validate what comes out.

mod apply;
mod atom;
mod compare;
mod entries;
mod set;
mod typed;

use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::decode;
use crate::types::TypeRef;
use compare::{Difference, compare};
use entries::{Entry, Operation};
use set::Node;

pub use apply::{Applied, ApplyError, ApplyOptions, Conflict, apply, apply_scale};

/// Who writes, through which endpoint, when.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The `fieldManager` parameter, or the User-Agent up to the first `/`.
    pub manager: &'a str,
    /// `apps/v1`, the version of the request.
    pub api_version: &'a str,
    /// `status`, `scale` …; empty for the main resource.
    pub subresource: &'a str,
    /// The moment of the write.
    pub now: Timestamp,
}

impl Actor<'_> {
    fn entry(&self, operation: Operation) -> Entry {
        Entry {
            manager: self.manager.to_string(),
            operation,
            api_version: self.api_version.to_string(),
            subresource: self.subresource.to_string(),
            time: None,
            fields: Node::new(),
        }
    }

    /// The time of an entry; upstream keeps none for scale.
    fn time(&self) -> Option<String> {
        let is_timed = self.subresource != "scale";
        is_timed.then(|| self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

/// Tracks a create (`live` = `None`), a PUT or a patch: sets `metadata.managedFields` of `new`.
///
/// `new` is the object as it will be stored; `ignored` names paths that this endpoint cannot write, for callers that have not
/// yet restored them. Entries in `new` replace those of `live` on the main resource when they can be read; `[{}]` and `[]` forget all.
pub fn update(
    kind: &TypeRef,
    live: Option<&Value>,
    new: &mut Value,
    actor: &Actor<'_>,
    ignored: &[&[&str]],
) {
    let reset = actor.subresource.is_empty() && entries::is_reset(new);
    let requested = entries::take(new, live);
    let mut managers = match requested {
        Some(entries) if actor.subresource.is_empty() && !entries.is_empty() => entries,
        _ => live.and_then(entries::read).unwrap_or_default(),
    };
    if live.is_some() && managers.is_empty() {
        // Objects nobody ever applied to and whose history is empty stay untracked.
        return;
    }
    if reset {
        return;
    }
    let nothing;
    let base = match live {
        Some(live) => live,
        None => {
            nothing = zero_object(kind, new);
            &nothing
        }
    };
    let mut difference = compare(Some(kind.walk()), Some(base), Some(&*new));
    strip(&mut difference);
    for node in [
        &mut difference.added,
        &mut difference.changed,
        &mut difference.removed,
    ]
    .into_iter()
    .flatten()
    {
        for path in ignored {
            set::remove_below(node, path);
        }
    }
    if !difference.is_empty() {
        let written = difference.written();
        apply::take_over_entries(&mut managers, &written, difference.removed.as_ref());
        if !written.is_empty() {
            own(&mut managers, written, actor);
        }
        entries::cap(&mut managers);
    }
    entries::write(new, managers);
}

/// Adds written fields to the actor's entry.
fn own(managers: &mut Vec<Entry>, written: Node, actor: &Actor<'_>) {
    let mut entry = actor.entry(Operation::Update);
    entry.time = actor.time();
    match managers.iter_mut().find(|one| one.is_same_manager(&entry)) {
        Some(one) => {
            set::unite(&mut one.fields, &written);
            one.time = entry.time;
        }
        None => {
            entry.fields = written;
            managers.push(entry);
        }
    }
}

/// Restores the stored `managedFields` when nothing but their timestamps changed, so that the write changes nothing at all.
pub fn keep_timestamps(live: &Value, new: &mut Value) {
    let timeless = |object: &Value| -> Option<Vec<Entry>> {
        let mut entries = entries::read(object)?;
        entries.iter_mut().for_each(|entry| entry.time = None);
        entries.sort_by(|one, other| {
            one.manager
                .cmp(&other.manager)
                .then_with(|| one.api_version.cmp(&other.api_version))
        });
        Some(entries)
    };
    if live["metadata"]["managedFields"] == new["metadata"]["managedFields"]
        || timeless(live) != timeless(new)
    {
        return;
    }
    let stored = live["metadata"]["managedFields"].clone();
    let fresh = new["metadata"]["managedFields"].take();
    new["metadata"]["managedFields"] = stored;
    if live != new {
        new["metadata"]["managedFields"] = fresh;
    }
}

/// What an object of the kind is before anything was written: Go's empty struct for built-in kinds.
fn zero_object(kind: &TypeRef, like: &Value) -> Value {
    let mut object = json!({"apiVersion": like["apiVersion"], "kind": like["kind"]});
    decode::normalize(kind, &mut object);
    object
}

/// Metadata that is never owned.
fn stripped() -> &'static Node {
    static STRIPPED: OnceLock<Node> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let names = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let empty = || Value::Object(Map::new());
        let mut metadata: Node = names
            .iter()
            .map(|name| (format!("f:{name}"), empty()))
            .collect();
        metadata.insert(".".to_string(), empty());
        let mut root: Node = ["f:apiVersion", "f:kind"]
            .iter()
            .map(|name| ((*name).to_string(), empty()))
            .collect();
        root.insert("f:metadata".to_string(), Value::Object(metadata));
        root
    })
}

fn strip(difference: &mut Difference) {
    for side in [
        &mut difference.added,
        &mut difference.changed,
        &mut difference.removed,
    ] {
        if let Some(node) = side {
            set::subtract(node, stripped());
            if node.is_empty() {
                *side = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;

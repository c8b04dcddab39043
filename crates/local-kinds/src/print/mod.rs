//! What table cells are made of: ages, lists that are cut, the columns themselves.

pub mod duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::rules::Column;
use crate::tree::{at, list, text};

/// Nothing is known.
pub const UNKNOWN: &str = "<unknown>";
/// There is nothing.
pub const NONE: &str = "<none>";

/// The first column of every kind.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
};

/// A column of text.
pub const fn column(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        priority: 0,
    }
}

/// A column of text for `-o wide`.
pub const fn wide(name: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name)
    }
}

/// A column of another type.
pub const fn typed(name: &'static str, kind: &'static str) -> Column {
    Column {
        kind,
        ..column(name)
    }
}

/// The name, as the first cell.
pub fn name(object: &Value) -> Value {
    text(&object["metadata"], "name").into()
}

/// How long ago the object was made.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(at(object, "/metadata/creationTimestamp"), now).into()
}

/// How long ago a time was, `<unknown>` when there is none.
pub fn since(time: &Value, now: Timestamp) -> String {
    match parse_time(time) {
        Some(time) => duration::human(now.duration_since(time)),
        None => UNKNOWN.to_string(),
    }
}

/// A time in a tree.
pub fn parse_time(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

/// Empty text as `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE } else { text }.into()
}

/// Names and images of a pod template's containers, comma separated.
pub fn containers(pod_spec: &Value) -> (Value, Value) {
    let join = |key: &str| {
        let all: Vec<&str> = list(pod_spec, "containers")
            .iter()
            .map(|one| text(one, key))
            .collect();
        Value::from(all.join(","))
    };
    (join("name"), join("image"))
}

/// The first `limit` items, and how many more there are.
pub fn cut(items: &[String], limit: usize) -> String {
    let shown = items[..items.len().min(limit)].join(",");
    if items.len() > limit {
        format!("{shown} + {} more...", items.len() - limit)
    } else {
        shown
    }
}

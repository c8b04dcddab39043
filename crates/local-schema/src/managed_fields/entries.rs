//! The entries of `metadata.managedFields`: reading, sorting, writing.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::{self, Node};

/// Update managers kept on one object; older ones are folded into one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Name of the entry that stands for folded managers.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Whether fields were applied or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One manager of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: Node,
}

impl Entry {
    /// Whether both stand for the same manager: appliers whatever their version, writers by version.
    pub(super) fn is_same_manager(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn seconds(&self) -> i64 {
        self.time
            .as_deref()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .map_or(0, Timestamp::as_second)
    }

    /// `"name" with subresource "status" using apps/v1`
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    /// Reads one entry; sets that were stored before need no second check.
    fn read(mut value: Value, is_checked: bool) -> Option<Self> {
        let operation = match value["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = match value.get_mut("fieldsV1").map(Value::take) {
            None | Some(Value::Null) => Node::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => return None,
        };
        let known = value["fieldsType"].as_str() == Some("FieldsV1");
        if !known || !(is_checked || set::is_well_formed(&fields)) {
            return None;
        }
        let mut text = |name: &str| match value.get_mut(name).map(Value::take) {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text),
            Some(_) => None,
        };
        Some(Self {
            manager: text("manager")?,
            operation,
            api_version: text("apiVersion").filter(|version| !version.is_empty())?,
            subresource: text("subresource")?,
            time: text("time").filter(|time| !time.is_empty()),
            fields,
        })
    }

    fn write(self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| {
            object.insert(name.to_string(), value);
        };
        if !self.manager.is_empty() {
            put("manager", self.manager.into());
        }
        put(
            "operation",
            if self.operation == Operation::Apply {
                "Apply"
            } else {
                "Update"
            }
            .into(),
        );
        put("apiVersion", self.api_version.into());
        if let Some(time) = self.time {
            put("time", time.into());
        }
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", Value::Object(self.fields));
        if !self.subresource.is_empty() {
            put("subresource", self.subresource.into());
        }
        Value::Object(object)
    }
}

/// The entries of a stored object; `None` when they cannot be read.
pub(super) fn read(object: &Value) -> Option<Vec<Entry>> {
    parse(object["metadata"]["managedFields"].clone(), false)
}

/// Takes the entries out of a new object.
pub(super) fn take(object: &mut Value, live: Option<&Value>) -> Option<Vec<Entry>> {
    let Some(list) = object
        .pointer_mut("/metadata/managedFields")
        .map(Value::take)
    else {
        return Some(Vec::new());
    };
    let is_checked = live.is_some_and(|live| live["metadata"]["managedFields"] == list);
    clear(object);
    parse(list, is_checked)
}

fn parse(list: Value, is_checked: bool) -> Option<Vec<Entry>> {
    match list {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list
            .into_iter()
            .map(|entry| Entry::read(entry, is_checked))
            .collect(),
        _ => None,
    }
}

/// Whether a request asks to forget all managers: `[{}]` or an explicit empty list.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = &object["metadata"]["managedFields"];
    *entries == json!([{}]) || *entries == json!([])
}

/// Takes the entries out of an object.
pub(super) fn clear(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes the entries in upstream's order; none = no field at all.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    if entries.is_empty() {
        return clear(object);
    }
    entries.sort_by(|one, other| {
        one.operation
            .cmp(&other.operation)
            .then_with(|| one.seconds().cmp(&other.seconds()))
            .then_with(|| one.manager.cmp(&other.manager))
            .then_with(|| one.api_version.cmp(&other.api_version))
            .then_with(|| one.subresource.cmp(&other.subresource))
    });
    let entries: Vec<Value> = entries.into_iter().map(Entry::write).collect();
    if let Value::Object(object) = object {
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("managedFields".to_string(), Value::Array(entries));
        }
    }
}

/// Folds the oldest update managers into one entry per version when there are too many.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..entries.len())
        .filter(|index| {
            entries[*index].operation == Operation::Update && entries[*index].subresource.is_empty()
        })
        .collect();
    if updaters.len() <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort_by_key(|index| (entries[*index].seconds(), entries[*index].manager.clone()));
    let surplus = updaters.len() - MAX_UPDATE_MANAGERS + 1;
    let mut folded: Vec<usize> = updaters.into_iter().take(surplus).collect();
    folded.sort_unstable();
    let mut ancient: Vec<Entry> = Vec::new();
    for index in folded.into_iter().rev() {
        let entry = entries.remove(index);
        match ancient
            .iter_mut()
            .find(|one| one.api_version == entry.api_version)
        {
            Some(one) => {
                set::unite(&mut one.fields, &entry.fields);
                if entry.seconds() > one.seconds() {
                    one.time = entry.time;
                }
            }
            None => ancient.push(Entry {
                manager: ANCIENT_CHANGES.to_string(),
                ..entry
            }),
        }
    }
    entries.extend(ancient);
}

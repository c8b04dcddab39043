//! The table of messages, read once from `data/protobuf.txt.gz` (written by `data/generate.py`).

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

const DATA: &[u8] = include_bytes!("../../data/protobuf.txt.gz");

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Int32,
    Int64,
    Double,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON in a `raw` field.
    Raw,
    /// A message that only wraps a list of strings.
    Strings,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
    /// Index of another message.
    Message(usize),
    List(Box<Kind>),
    /// String keys.
    Map(Box<Kind>),
}

/// One message.
pub(super) struct Message {
    pub(super) name: Box<str>,
    fields: Vec<(u64, Field)>,
}

/// One field; without a name it is embedded.
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) kind: Kind,
}

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.fields
            .iter()
            .find(|(one, _)| *one == number)
            .map(|(_, field)| field)
    }
}

/// Group, version, kind.
type KindKey = (Box<str>, Box<str>, Box<str>);

struct Table {
    messages: Vec<Message>,
    kinds: HashMap<KindKey, usize>,
    schema: Option<usize>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut text = String::new();
        flate2::read::GzDecoder::new(DATA)
            .read_to_string(&mut text)
            .expect("the committed message table is well-formed gzip; a test reads it");
        read(&text)
    })
}

/// The message of a kind.
pub(super) fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    let table = table();
    let key = (group.into(), version.into(), kind.into());
    let index = match table.kinds.get(&key) {
        Some(index) => *index,
        // Options of requests are registered in every group version.
        None if kind == "DeleteOptions" => {
            *table.kinds.get(&("".into(), "v1".into(), kind.into()))?
        }
        None => return None,
    };
    Some(message(index))
}

pub(super) fn message(index: usize) -> &'static Message {
    &table().messages[index]
}

/// The message of JSON schemas, which refers to itself through unions.
pub(super) fn json_schema() -> Option<&'static Message> {
    table().schema.map(message)
}

fn read(text: &str) -> Table {
    let names: HashMap<&str, usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix("M "))
        .enumerate()
        .map(|(index, name)| (name, index))
        .collect();
    let mut messages: Vec<Message> = Vec::with_capacity(names.len());
    let mut kinds = HashMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("M ") {
            messages.push(Message {
                name: name.into(),
                fields: Vec::new(),
            });
        } else if let Some(line) = line.strip_prefix("K ") {
            let parts: Vec<&str> = line.split('|').collect();
            if let [group, version, kind, name] = parts[..]
                && let Some(index) = find(&names, name)
            {
                kinds.insert((group.into(), version.into(), kind.into()), index);
            }
        } else if let Some(last) = messages.last_mut() {
            let mut parts = line.splitn(3, '|');
            let (number, name, kind) = (parts.next(), parts.next(), parts.next());
            if let (Some(Ok(number)), Some(name), Some(kind)) = (number.map(str::parse), name, kind)
                && let Some(kind) = parse(kind, &names)
            {
                last.fields.push((
                    number,
                    Field {
                        name: name.into(),
                        kind,
                    },
                ));
            }
        }
    }
    let options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    if let Some(index) = names.get(options) {
        kinds.insert(("".into(), "v1".into(), "DeleteOptions".into()), *index);
    }
    let schema = names
        .iter()
        .find(|(name, _)| name.ends_with(".v1.JsonSchemaProps"))
        .map(|(_, index)| *index);
    Table {
        messages,
        kinds,
        schema,
    }
}

/// Message names differ from definition names only in the case of acronyms.
fn find(names: &HashMap<&str, usize>, name: &str) -> Option<usize> {
    names.get(name).copied().or_else(|| {
        names
            .iter()
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, index)| *index)
    })
}

fn parse(text: &str, names: &HashMap<&str, usize>) -> Option<Kind> {
    if let Some(item) = text.strip_prefix('[') {
        return Some(Kind::List(Box::new(parse(item, names)?)));
    }
    if let Some(value) = text.strip_prefix('{') {
        return Some(Kind::Map(Box::new(parse(value, names)?)));
    }
    if let Some(name) = text.strip_prefix('#') {
        return names.get(name).map(|index| Kind::Message(*index));
    }
    Some(match text {
        "s" => Kind::Text,
        "b" => Kind::Boolean,
        "i32" => Kind::Int32,
        "i64" => Kind::Int64,
        "d" => Kind::Double,
        "y" => Kind::Bytes,
        "time" => Kind::Time,
        "micro" => Kind::MicroTime,
        "dur" => Kind::Duration,
        "q" => Kind::Quantity,
        "ios" => Kind::IntOrString,
        "raw" => Kind::Raw,
        "w" => Kind::Strings,
        "orarray" => Kind::SchemaOrArray,
        "orbool" => Kind::SchemaOrBool,
        "orstrings" => Kind::SchemaOrStrings,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_table_has_a_kind_and_known_messages() {
        let mut text = String::new();
        flate2::read::GzDecoder::new(DATA)
            .read_to_string(&mut text)
            .unwrap();
        let fields = text
            .lines()
            .filter(|line| !line.starts_with("M ") && !line.starts_with("K "))
            .count();
        let read: usize = table()
            .messages
            .iter()
            .map(|message| message.fields.len())
            .sum();
        assert!(
            fields - read < 5,
            "{} of {fields} fields lost",
            fields - read
        );
        assert!(kind("apps", "v1", "Deployment").is_some());
        assert!(kind("batch", "v1", "DeleteOptions").is_some());
        assert!(json_schema().is_some());
    }
}

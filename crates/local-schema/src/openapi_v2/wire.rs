//! The document as protobuf, in the messages of gnostic's `openapi.v2` package.
//!
//! Maps are lists of named values there, and values of any shape travel as YAML text, which JSON text also is. It knows
//! only the fields a document of this server has.

use serde_json::{Map, Value};

/// How a field of `Schema` is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Count,
    Number,
    Any,
    Anys,
}

/// Keywords of a schema with a value of their own: name, field number, form.
const SCHEMA_FIELDS: &[(&str, u32, Form)] = &[
    ("$ref", 1, Form::Text),
    ("format", 2, Form::Text),
    ("title", 3, Form::Text),
    ("description", 4, Form::Text),
    ("default", 5, Form::Any),
    ("multipleOf", 6, Form::Number),
    ("maximum", 7, Form::Number),
    ("exclusiveMaximum", 8, Form::Flag),
    ("minimum", 9, Form::Number),
    ("exclusiveMinimum", 10, Form::Flag),
    ("maxLength", 11, Form::Count),
    ("minLength", 12, Form::Count),
    ("pattern", 13, Form::Text),
    ("maxItems", 14, Form::Count),
    ("minItems", 15, Form::Count),
    ("uniqueItems", 16, Form::Flag),
    ("maxProperties", 17, Form::Count),
    ("minProperties", 18, Form::Count),
    ("required", 19, Form::Texts),
    ("enum", 20, Form::Anys),
];
const SCHEMA_ADDITIONAL: u32 = 21;
const SCHEMA_TYPE: u32 = 22;
const SCHEMA_ITEMS: u32 = 23;
const SCHEMA_PROPERTIES: u32 = 25;
const SCHEMA_EXTENSION: u32 = 31;
const OPERATION_PARAMETERS: u32 = 8;
const OPERATION_EXTENSION: u32 = 13;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number << 3 | wire_type));
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u32, value: &Value) {
        self.bytes(number, value.as_str().unwrap_or_default().as_bytes());
    }

    fn message(&mut self, number: u32, message: &Message) {
        self.bytes(number, &message.0);
    }

    fn any(&mut self, number: u32, value: &Value) {
        let mut any = Message::default();
        any.bytes(2, value.to_string().as_bytes());
        self.message(number, &any);
    }

    fn named(&mut self, number: u32, name: &str, value: &Message) {
        let mut named = Message::default();
        named.bytes(1, name.as_bytes());
        named.message(2, value);
        self.message(number, &named);
    }

    fn extensions(&mut self, number: u32, map: &Map<String, Value>) {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut named = Message::default();
            named.bytes(1, name.as_bytes());
            named.any(2, value);
            self.message(number, &named);
        }
    }

    fn field(&mut self, number: u32, form: Form, value: &Value) {
        let items = || value.as_array().into_iter().flatten();
        match form {
            Form::Text => self.text(number, value),
            Form::Texts => items().for_each(|one| self.text(number, one)),
            Form::Flag => {
                self.tag(number, 0);
                self.varint(u64::from(value.as_bool().unwrap_or_default()));
            }
            Form::Count => {
                self.tag(number, 0);
                self.varint(value.as_u64().unwrap_or_default());
            }
            Form::Number => {
                self.tag(number, 1);
                let number = value.as_f64().unwrap_or_default();
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            Form::Any => self.any(number, value),
            Form::Anys => items().for_each(|one| self.any(number, one)),
        }
    }
}

/// A document of [`super::Builder`] as protobuf.
pub fn protobuf(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    message.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let mut value = Message::default();
        value.message(8, &operation(&item["patch"]));
        paths.named(2, path, &value);
    }
    message.message(8, &paths);
    message.message(9, &schemas(&document["definitions"]));
    message.0
}

/// A patch operation: the names of its query parameters and its extensions.
fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let mut query = Message::default();
        query.text(2, &parameter["in"]);
        query.text(4, &parameter["name"]);
        query.text(6, &parameter["type"]);
        // ParametersItem.parameter, Parameter.non_body_parameter, NonBodyParameter.query_parameter_sub_schema
        let wrapped = [3, 2, 1].into_iter().fold(query, |inner, number| {
            let mut outer = Message::default();
            outer.message(number, &inner);
            outer
        });
        message.message(OPERATION_PARAMETERS, &wrapped);
    }
    message.message(9, &Message::default());
    if let Some(map) = operation.as_object() {
        message.extensions(OPERATION_EXTENSION, map);
    }
    message
}

/// `Definitions` and `Properties`, which look alike.
fn schemas(map: &Value) -> Message {
    let mut message = Message::default();
    for (name, value) in map.as_object().into_iter().flatten() {
        message.named(1, name, &schema(value));
    }
    message
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    let Some(map) = value.as_object() else {
        return message;
    };
    for (name, number, form) in SCHEMA_FIELDS {
        if let Some(value) = map.get(*name) {
            message.field(*number, *form, value);
        }
    }
    if let Some(values) = map.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, &schema(values));
        message.message(SCHEMA_ADDITIONAL, &item);
    }
    if let Some(kind) = map.get("type") {
        let mut item = Message::default();
        item.text(1, kind);
        message.message(SCHEMA_TYPE, &item);
    }
    if let Some(items) = map.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(items));
        message.message(SCHEMA_ITEMS, &item);
    }
    if let Some(properties) = map.get("properties") {
        message.message(SCHEMA_PROPERTIES, &schemas(properties));
    }
    message.extensions(SCHEMA_EXTENSION, map);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    /// The payloads of one field of a message.
    fn payloads(mut bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let length = match tag & 7 {
                0 => {
                    varint(&mut bytes);
                    0
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            let (payload, rest) = bytes.split_at(length);
            bytes = rest;
            if tag >> 3 == wanted {
                found.push(payload);
            }
        }
        found
    }

    /// Follows fields down, taking the first of each.
    fn follow<'b>(bytes: &'b [u8], numbers: &[u64]) -> &'b [u8] {
        numbers
            .iter()
            .fold(bytes, |bytes, number| payloads(bytes, *number)[0])
    }

    #[test]
    fn a_document_reads_back_field_by_field() {
        let bytes = protobuf(&json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1"},
            "paths": {"/p/{name}": {"patch": {
                "parameters": [{"name": "dryRun", "in": "query", "type": "string"}],
                "x-kubernetes-group-version-kind": {"kind": "A"},
            }}},
            "definitions": {"a.A": {
                "type": "object", "required": ["l"], "maximum": 1.5, "maxItems": 300, "uniqueItems": true,
                "properties": {"l": {"type": "array", "items": {"$ref": "#/definitions/b"}}},
                "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "A"}],
            }},
        }));
        assert_eq!(follow(&bytes, &[1]), b"2.0");
        assert_eq!(follow(&bytes, &[2, 2]), b"v1");
        let patch = follow(&bytes, &[8, 2, 2, 8]);
        assert_eq!(follow(patch, &[8, 1, 2, 3, 4]), b"dryRun");
        assert_eq!(follow(patch, &[13, 2, 2]), br#"{"kind":"A"}"#);
        assert_eq!(follow(&bytes, &[9, 1, 1]), b"a.A");
        let schema = follow(&bytes, &[9, 1, 2]);
        assert_eq!(follow(schema, &[7]), 1.5f64.to_le_bytes());
        assert_eq!(follow(schema, &[19]), b"l");
        assert_eq!(follow(schema, &[22, 1]), b"object");
        assert_eq!(follow(schema, &[25, 1, 1]), b"l");
        let list = follow(schema, &[25, 1, 2]);
        assert_eq!(follow(list, &[23, 1, 1]), b"#/definitions/b");
        let kind: Value = serde_json::from_slice(follow(schema, &[31, 2, 2])).unwrap();
        assert_eq!(kind[0]["kind"], "A");
    }

    #[test]
    fn every_shipped_definition_is_written_under_its_name() {
        let document = super::super::Builder::shipped().document("v1.34.9");
        let bytes = protobuf(&document);
        let names: Vec<&[u8]> = payloads(follow(&bytes, &[9]), 1)
            .into_iter()
            .map(|one| follow(one, &[1]))
            .collect();
        let wanted = document["definitions"].as_object().unwrap();
        assert_eq!(names.len(), wanted.len());
        assert!(names.contains(&&b"io.k8s.api.core.v1.Pod"[..]));
    }
}

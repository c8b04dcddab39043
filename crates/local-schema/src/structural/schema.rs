//! A schema in the form in which objects are walked.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::{self, Rule};

/// Compiled patterns may take so many bytes.
const PATTERN_SIZE_LIMIT_BYTES: usize = 1 << 20;
/// Schemas nested deeper are cut off.
const MAX_DEPTH: usize = 100;

/// The JSON type a schema asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Any,
    Object,
    Array,
    Text,
    Integer,
    Number,
    Boolean,
}

/// How list items are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) kind: Kind,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Option<Box<Schema>>,
    pub(super) items: Option<Box<Schema>>,
    pub(super) required: Vec<String>,
    pub(super) preserves_unknown: bool,
    pub(super) is_embedded: bool,
    pub(super) is_int_or_string: bool,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) list_type: ListType,
    pub(super) choices: Vec<Value>,
    pub(super) format: String,
    pub(super) pattern: Option<(String, Regex)>,
    pub(super) limits: Limits,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<Rule>,
    /// Here or anywhere below.
    pub(super) has_rules: bool,
}

/// Numeric bounds.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) minimum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
}

impl Schema {
    pub(super) fn compile(schema: &Value) -> Self {
        Self::at(schema, 0)
    }

    fn at(schema: &Value, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self::default();
        }
        let mut node = Self::read(schema, depth);
        let below = node
            .properties
            .values()
            .chain(node.additional.as_deref())
            .chain(node.items.as_deref());
        node.has_rules = !node.rules.is_empty() || below.into_iter().any(|inner| inner.has_rules);
        node
    }

    fn read(schema: &Value, depth: usize) -> Self {
        let inner = |value: &Value| Self::at(value, depth + 1);
        let list = |name: &str| {
            schema[name]
                .as_array()
                .into_iter()
                .flatten()
                .map(inner)
                .collect()
        };
        let is_true = |name: &str| schema[name] == true;
        Self {
            kind: kind(&schema["type"]),
            properties: schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), inner(property)))
                .collect(),
            additional: match &schema["additionalProperties"] {
                additional @ Value::Object(_) => Some(Box::new(inner(additional))),
                Value::Bool(true) => Some(Box::new(Self {
                    preserves_unknown: true,
                    ..Self::default()
                })),
                _ => None,
            },
            items: schema["items"]
                .is_object()
                .then(|| Box::new(inner(&schema["items"]))),
            required: texts(&schema["required"]),
            preserves_unknown: is_true("x-kubernetes-preserve-unknown-fields"),
            is_embedded: is_true("x-kubernetes-embedded-resource"),
            is_int_or_string: is_true("x-kubernetes-int-or-string"),
            nullable: is_true("nullable"),
            default: schema
                .get("default")
                .filter(|default| !default.is_null())
                .cloned(),
            list_type: match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(texts(&schema["x-kubernetes-list-map-keys"])),
                _ => ListType::Atomic,
            },
            choices: schema["enum"].as_array().cloned().unwrap_or_default(),
            format: schema["format"].as_str().unwrap_or_default().to_string(),
            pattern: schema["pattern"]
                .as_str()
                .and_then(|text| Some((text.to_string(), compile_pattern(text)?))),
            limits: Limits::read(schema),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: schema["not"]
                .is_object()
                .then(|| Box::new(inner(&schema["not"]))),
            rules: rules::compile(&schema["x-kubernetes-validations"]),
            has_rules: false,
        }
    }

    /// The schema of a field of an object.
    pub(super) fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

/// Go's and Rust's expressions are nearly the same language; what only Go reads never matches a refusal.
pub(super) fn compile_pattern(text: &str) -> Option<Regex> {
    regex::RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE_LIMIT_BYTES)
        .build()
        .ok()
}

fn kind(value: &Value) -> Kind {
    match value.as_str() {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::Text,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}

impl Limits {
    fn read(schema: &Value) -> Self {
        let count = |name: &str| schema[name].as_u64();
        Self {
            minimum: schema["minimum"].as_f64(),
            exclusive_minimum: schema["exclusiveMinimum"] == true,
            maximum: schema["maximum"].as_f64(),
            exclusive_maximum: schema["exclusiveMaximum"] == true,
            multiple_of: schema["multipleOf"]
                .as_f64()
                .filter(|factor| *factor != 0.0),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
        }
    }
}

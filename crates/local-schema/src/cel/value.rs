//! Values of expressions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// A value; JSON objects and lists are only borrowed.
#[derive(Clone, Debug)]
pub(crate) enum CelValue<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Json(&'v Value),
    List(Vec<CelValue<'v>>),
    Map(BTreeMap<String, CelValue<'v>>),
    Type(&'static str),
    Optional(Option<Box<CelValue<'v>>>),
    Quantity(Quantity),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(jiff::Timestamp),
    /// A checked URL.
    Url(String),
}

impl<'v> CelValue<'v> {
    pub(super) fn of(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::String(text) => Self::Text(text.clone()),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int),
                (None, Some(uint)) => Self::Uint(uint),
                _ => Self::Double(number.as_f64().unwrap_or_default()),
            },
            container => Self::Json(container),
        }
    }

    /// The items, for lists.
    pub(super) fn items(&self) -> Option<Vec<CelValue<'v>>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Json(Value::Array(items)) => Some(items.iter().map(Self::of).collect()),
            _ => None,
        }
    }

    /// The keys, for maps.
    pub(super) fn keys(&self) -> Option<Vec<String>> {
        match self {
            Self::Map(entries) => Some(entries.keys().cloned().collect()),
            Self::Json(Value::Object(fields)) => Some(fields.keys().cloned().collect()),
            _ => None,
        }
    }

    /// A member of a map.
    pub(super) fn member(&self, name: &str) -> Option<CelValue<'v>> {
        match self {
            Self::Map(entries) => entries.get(name).cloned(),
            Self::Json(Value::Object(fields)) => fields.get(name).map(Self::of),
            _ => None,
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_) | Self::Json(Value::Object(_)))
    }

    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::List(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::Json(Value::Array(items)) => Some(items.len()),
            Self::Json(Value::Object(fields)) => Some(fields.len()),
            _ => None,
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) | Self::Json(Value::Array(_)) => "list",
            Self::Map(_) | Self::Json(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Url(_) => "kubernetes.URL",
        }
    }

    pub(super) fn as_double(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// Integers of both kinds, exactly.
    pub(super) fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::Uint(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(super) fn equals(&self, other: &CelValue<'v>) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Text(one), Self::Text(other)) | (Self::Url(one), Self::Url(other)) => {
                one == other
            }
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Type(one), Self::Type(other)) => one == other,
            (Self::Json(one), Self::Json(other)) if one == other => true,
            (Self::Optional(one), Self::Optional(other)) => match (one, other) {
                (None, None) => true,
                (Some(one), Some(other)) => one.equals(other),
                _ => false,
            },
            _ => {
                if let (Some(one), Some(other)) = (self.items(), other.items()) {
                    return one.len() == other.len()
                        && one.iter().zip(&other).all(|(one, other)| one.equals(other));
                }
                if let (Some(keys), Some(others)) = (self.keys(), other.keys()) {
                    let same = |key: &String| match (self.member(key), other.member(key)) {
                        (Some(one), Some(other)) => one.equals(&other),
                        _ => false,
                    };
                    return keys == others && keys.iter().all(same);
                }
                self.compare(other) == Some(Ordering::Equal)
            }
        }
    }

    /// The order of values that have one.
    pub(super) fn compare(&self, other: &CelValue<'v>) -> Option<Ordering> {
        if let (Some(one), Some(other)) = (self.as_integer(), other.as_integer()) {
            return Some(one.cmp(&other));
        }
        if let (Some(one), Some(other)) = (self.as_double(), other.as_double()) {
            return one.partial_cmp(&other);
        }
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bytes(one), Self::Bytes(other)) => Some(one.cmp(other)),
            (Self::Quantity(one), Self::Quantity(other)) => Some(one.cmp(other)),
            (Self::Duration(one), Self::Duration(other)) => Some(one.cmp(other)),
            (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }
}

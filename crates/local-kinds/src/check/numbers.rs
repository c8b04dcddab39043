//! Whole numbers, ports, and values that are a number or a percentage.

use local_schema::FieldError;
use serde_json::Value;

use super::names::{percent, port_name};
use crate::tree::{child, integer, number};

/// Below zero.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// `must be between 1 and 5, inclusive`.
pub fn range_words(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A field that may be absent but not below zero.
pub fn not_negative(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    match integer(parent, key) {
        Some(value) if value < 0 => {
            vec![FieldError::invalid(child(path, key), value, NOT_NEGATIVE)]
        }
        _ => Vec::new(),
    }
}

/// A field that, when present, lies in a range.
pub fn within(parent: &Value, key: &str, path: &str, low: i64, high: i64) -> Vec<FieldError> {
    match integer(parent, key) {
        Some(value) if !(low..=high).contains(&value) => {
            let words = range_words(low, high);
            vec![FieldError::invalid(child(path, key), value, words)]
        }
        _ => Vec::new(),
    }
}

/// A port number.
pub fn port(value: i64, path: &str) -> Vec<FieldError> {
    if (1..=65535).contains(&value) {
        return Vec::new();
    }
    vec![FieldError::invalid(path, value, range_words(1, 65535))]
}

/// A port given by number or by name.
pub fn port_or_name(value: &Value, path: &str) -> Vec<FieldError> {
    match value {
        Value::String(name) => super::names::invalid(path, name, port_name(name)),
        other => port(other.as_i64().unwrap_or_default(), path),
    }
}

/// A count or a percentage, not below zero.
pub fn count_or_percent(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    let path = child(path, key);
    match &parent[key] {
        Value::String(text) => super::names::invalid(&path, text, percent(text)),
        Value::Number(value) if value.as_i64().is_some_and(|value| value < 0) => {
            vec![FieldError::invalid(path, parent[key].clone(), NOT_NEGATIVE)]
        }
        _ => Vec::new(),
    }
}

/// Not above 100 %.
pub fn at_most_all(parent: &Value, key: &str, path: &str) -> Vec<FieldError> {
    match percent_of(&parent[key]) {
        Some(value) if value > 100 => vec![FieldError::invalid(
            child(path, key),
            parent[key].clone(),
            "must not be greater than 100%",
        )],
        _ => Vec::new(),
    }
}

/// The number before the percent sign.
pub fn percent_of(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// The number of a count or percentage, 0 when it is neither.
pub fn plain_number(parent: &Value, key: &str) -> i64 {
    percent_of(&parent[key]).unwrap_or_else(|| number(parent, key))
}

//! What may differ between two clusters, made equal: identifiers, revisions, times, allocated addresses.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Recorded values and what they are here.
#[derive(Default)]
pub struct Translation {
    known: HashMap<String, String>,
    revisions: BTreeMap<u64, String>,
}

/// Fields whose recorded values stand in later requests.
const CARRIED: &[&str] = &["uid", "resourceVersion", "continue", "name"];

impl Translation {
    /// Learns pairs from two answers of the same shape.
    pub fn learn(&mut self, recorded: &Value, actual: &Value) {
        match (recorded, actual) {
            (Value::Object(left), Value::Object(right)) => {
                for (name, value) in left {
                    let Some(other) = right.get(name) else {
                        continue;
                    };
                    if let (Value::String(here), Value::String(there)) = (value, other)
                        && CARRIED.contains(&name.as_str())
                        && here != there
                        && (name != "name" || left.contains_key("generateName"))
                    {
                        if let ("resourceVersion", Ok(number)) = (name.as_str(), here.parse()) {
                            self.revisions
                                .entry(number)
                                .or_insert_with(|| there.clone());
                        }
                        self.known
                            .entry(here.clone())
                            .or_insert_with(|| there.clone());
                    }
                    self.learn(value, other);
                }
            }
            (Value::Array(left), Value::Array(right)) => {
                for (one, other) in left.iter().zip(right) {
                    self.learn(one, other);
                }
            }
            _ => {}
        }
    }

    /// Learns one pair.
    pub fn learn_text(&mut self, recorded: &str, actual: &str) {
        self.known
            .entry(recorded.to_string())
            .or_insert_with(|| actual.to_string());
    }

    /// A header in this cluster's values.
    pub fn text<'a>(&'a self, text: &'a str) -> &'a str {
        self.known.get(text).map_or(text, String::as_str)
    }

    /// A request body in this cluster's values.
    pub fn body(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| {
                    let known = value
                        .as_str()
                        .filter(|_| CARRIED.contains(&name.as_str()))
                        .and_then(|text| self.known.get(text));
                    (
                        name.clone(),
                        known.map_or_else(|| self.body(value), |text| text.as_str().into()),
                    )
                })
                .collect(),
            Value::Array(list) => list.iter().map(|one| self.body(one)).collect(),
            other => other.clone(),
        }
    }

    /// A revision nobody showed is taken for the last one shown before it.
    fn revision<'a>(&'a self, text: &'a str) -> &'a str {
        if let Some(known) = self.known.get(text) {
            return known;
        }
        let Ok(number) = text.parse::<u64>() else {
            return text;
        };
        let newest = self.revisions.keys().next_back().copied().unwrap_or(0);
        match self.revisions.range(..=number).next_back() {
            Some((_, known)) if number < newest + 100_000 => known,
            _ => text,
        }
    }

    /// A path in this cluster's values.
    pub fn path(&self, path: &str) -> String {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let place: Vec<&str> = place
            .split('/')
            .map(|part| self.known.get(part).map_or(part, String::as_str))
            .collect();
        let query: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some(("resourceVersion", value)) => {
                    format!("resourceVersion={}", self.revision(value))
                }
                Some((name @ ("continue" | "hash"), value)) => {
                    format!(
                        "{name}={}",
                        self.known.get(value).map_or(value, String::as_str)
                    )
                }
                _ => pair.to_string(),
            })
            .collect();
        let place = place.join("/");
        if query.is_empty() {
            place
        } else {
            format!("{place}?{}", query.join("&"))
        }
    }
}

/// The value with everything masked that may differ.
pub fn mask(value: &Value) -> Value {
    mask_at("", value)
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && text.ends_with('Z')
}

fn is_age(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 9
        && text.ends_with(['s', 'm', 'h', 'd', 'y'])
        && text.starts_with(|letter: char| letter.is_ascii_digit())
        && text
            .chars()
            .all(|letter| letter.is_ascii_digit() || "smhdy".contains(letter))
}

const TIMES: &[&str] = &[
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "expirationTimestamp",
];
const ALLOCATED: &[&str] = &[
    "clusterIP",
    "nodePort",
    "healthCheckNodePort",
    "uid",
    "continue",
    "caBundle",
    "token",
    "goVersion",
    "gitCommit",
    "compiler",
    "serverRelativeURL",
    "serverAddress",
    "gitVersion",
];

fn mask_at(name: &str, value: &Value) -> Value {
    match value {
        Value::String(_) if matches!(name, "goVersion" | "gitCommit" | "compiler") => {
            format!("<{name}>").into()
        }
        Value::String(text) if name == "resourceVersion" && !text.is_empty() => "<revision>".into(),
        Value::String(text) if ALLOCATED.contains(&name) && !text.is_empty() && text != "None" => {
            format!("<{name}>").into()
        }
        Value::Number(_) if ALLOCATED.contains(&name) => format!("<{name}>").into(),
        Value::String(text) if !text.is_empty() && (TIMES.contains(&name) || is_time(text)) => {
            "<time>".into()
        }
        Value::String(text) if text.starts_with("kube-api-access-") => {
            "kube-api-access-<suffix>".into()
        }
        Value::String(text) if name == "message" => mask_message(text).into(),
        Value::Array(list) if name == "cells" => list.iter().map(mask_cell).collect(),
        Value::Array(list) if name == "clusterIPs" => list
            .iter()
            .map(|one| {
                if one == "None" {
                    one.clone()
                } else {
                    "<clusterIP>".into()
                }
            })
            .collect(),
        Value::Array(list) if name == "managedFields" => {
            let mut entries: Vec<Value> = list.iter().map(mask).collect();
            entries.sort_by_key(|entry| entry.to_string());
            entries.into()
        }
        Value::Array(list) => list.iter().map(|one| mask_at("", one)).collect(),
        Value::Object(map) => {
            let mut masked: serde_json::Map<String, Value> = map
                .iter()
                .map(|(name, value)| (name.clone(), mask_at(name, value)))
                .collect();
            hide_generated(&mut masked);
            masked.into()
        }
        other => other.clone(),
    }
}

/// `gen-x7k2p` is `gen-<suffix>`.
fn hide_generated(map: &mut serde_json::Map<String, Value>) {
    let prefix = map
        .get("generateName")
        .and_then(Value::as_str)
        .map(str::to_string);
    if let (Some(prefix), Some(name)) = (prefix, map.get("name").and_then(Value::as_str))
        && (name.starts_with(&prefix) || prefix.len() > 58)
    {
        let shown = format!("{}<suffix>", &prefix[..prefix.len().min(58)]);
        map.insert("name".into(), shown.into());
    }
}

fn mask_cell(cell: &Value) -> Value {
    match cell.as_str() {
        Some(text) if is_age(text) => "<age>".into(),
        Some(text) if is_time(text) => "<time>".into(),
        Some(text) if text.starts_with("10.96.") => "<clusterIP>".into(),
        Some(text) => mask_message(text).into(),
        None => cell.clone(),
    }
}

/// Numbers of revisions, identifiers, times and ages inside sentences.
fn mask_message(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(mask_word).collect();
    for index in 1..words.len() {
        if matches!(
            words[index - 1].as_str(),
            "current:" | "version:" | "ResourceVersion"
        ) || words[index - 1].ends_with("(ago")
        {
            words[index] = "<revision>".into();
        }
    }
    words.join(" ")
}

fn mask_word(word: &str) -> String {
    let trimmed = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let uuid = trimmed.len() == 36 && trimmed.bytes().filter(|byte| *byte == b'-').count() == 4;
    let number = !trimmed.is_empty()
        && word.starts_with('(')
        && trimmed.bytes().all(|byte| byte.is_ascii_digit());
    if uuid {
        return word.replace(trimmed, "<uid>");
    }
    if number {
        return word.replace(trimmed, "<number>");
    }
    if word.contains("20") && trimmed.len() >= 20 && is_time(trimmed.trim_matches('"')) {
        return "<time>".into();
    }
    word.to_string()
}

/// Leaves kinds and groups that are not served here out of recorded discovery documents.
pub fn served_only(recorded: &mut Value, actual: &Value) {
    match (recorded, actual) {
        (Value::Object(left), Value::Object(right)) => {
            for (name, value) in left.iter_mut() {
                if let Some(other) = right.get(name) {
                    served_only(value, other);
                }
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            let label = |value: &Value| -> Option<String> {
                let text = |value: &Value| value.as_str().map(str::to_string);
                text(&value["resource"])
                    .or(text(&value["name"]))
                    .or(text(&value["metadata"]["name"]))
            };
            if left.iter().all(|one| label(one).is_some()) {
                left.retain(|one| right.iter().any(|other| label(other) == label(one)));
            }
            for (one, other) in left.iter_mut().zip(right) {
                served_only(one, other);
            }
        }
        _ => {}
    }
}

/// Where two values differ first, and how.
pub fn difference(path: &str, recorded: &Value, actual: &Value) -> Option<String> {
    match (recorded, actual) {
        (Value::Object(left), Value::Object(right)) => {
            for (name, value) in left {
                let below = format!("{path}.{name}");
                match right.get(name) {
                    Some(other) => {
                        if let Some(found) = difference(&below, value, other) {
                            return Some(found);
                        }
                    }
                    None => return Some(format!("{below}: missing, wanted {}", short(value))),
                }
            }
            let extra = right.iter().find(|(name, _)| !left.contains_key(*name))?;
            Some(format!(
                "{path}.{}: not wanted: {}",
                extra.0,
                short(extra.1)
            ))
        }
        (Value::Array(left), Value::Array(right)) => {
            for (index, (one, other)) in left.iter().zip(right).enumerate() {
                if let Some(found) = difference(&format!("{path}[{index}]"), one, other) {
                    return Some(found);
                }
            }
            (left.len() != right.len()).then(|| {
                let at = left.len().min(right.len());
                let extra = left
                    .get(at)
                    .or(right.get(at))
                    .map(short)
                    .unwrap_or_default();
                format!(
                    "{path}: {} items wanted, {} found; first extra {extra}",
                    left.len(),
                    right.len()
                )
            })
        }
        (one, other) if one == other => None,
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        (one, other) => Some(format!(
            "{path}: wanted {}\n      found {}",
            short(one),
            short(other)
        )),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    text.chars().take(900).collect()
}

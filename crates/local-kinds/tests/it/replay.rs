//! Plays recorded writes through the kinds' rules as the registry does, and remembers the objects that come out.

use std::collections::BTreeMap;

use local_kinds::{KindRow, kind_of};
use local_schema::decode::decode_value;
use local_schema::patch::{PatchKind, patch};
use local_schema::{FieldError, type_of};
use serde_json::Value;

use crate::golden::Exchange;

/// What a path addresses.
pub struct Target {
    pub row: &'static KindRow,
    pub version: String,
    pub name: String,
    pub subresource: String,
    /// The object's path, or the collection's.
    pub key: String,
}

impl Target {
    pub fn parse(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, version, rest) = match parts[..] {
            ["api", version, ..] => ("", version, &parts[2..]),
            ["apis", group, version, ..] => (group, version, &parts[3..]),
            _ => return None,
        };
        let rest = match rest {
            ["namespaces", _, _, ..] if !matches!(rest[2], "status" | "finalize") => &rest[2..],
            _ => rest,
        };
        let row = kind_of(group, rest.first()?)?;
        let subresource = rest.get(2).copied().unwrap_or_default().to_string();
        let key = path.trim_end_matches(&format!("/{subresource}"));
        Some(Self {
            row,
            version: version.to_string(),
            name: rest.get(1).copied().unwrap_or_default().to_string(),
            key: if subresource.is_empty() { path } else { key }.to_string(),
            subresource,
        })
    }

    fn type_ref(&self) -> local_schema::TypeRef {
        type_of(self.row.group, &self.version, self.row.kind).unwrap()
    }
}

/// What the rules make of a write.
pub enum Outcome {
    /// The object as it would be stored and shown, and the warnings.
    Accepted(Value, Vec<String>),
    Refused(Vec<FieldError>),
}

/// The objects as the recorded server last showed them, by path, in the served version.
#[derive(Default)]
pub struct Replay {
    pub shown: BTreeMap<String, Value>,
}

impl Replay {
    /// Remembers what an answer shows.
    pub fn remember(&mut self, target: &Target, exchange: &Exchange) {
        if exchange.status >= 300 || exchange.path.contains("dryRun") {
            return;
        }
        let body = &exchange.response;
        let collection = target.name.is_empty();
        if body["kind"] == target.row.kind {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let key = if collection {
                format!("{}/{name}", target.key)
            } else {
                target.key.clone()
            };
            self.shown.insert(key, body.clone());
        }
        let items = body["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| &row["object"]);
        for item in items.chain(body["items"].as_array().into_iter().flatten()) {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            if item["kind"] != "PartialObjectMetadata" && collection {
                self.shown
                    .insert(format!("{}/{name}", target.key), item.clone());
            }
        }
    }

    /// The outcome of a write, `None` when it is none or cannot be played without the server.
    pub fn play(&self, target: &Target, exchange: &Exchange) -> Option<Outcome> {
        let rules = target.row.rules;
        match exchange.method.as_str() {
            "POST" if target.name.is_empty() => {
                let mut object = decode_value(exchange.request.clone(), &target.type_ref())
                    .ok()?
                    .object;
                rules.default(&target.version, &mut object);
                rules.to_storage(&target.version, &mut object);
                name_namespace(&mut object, target);
                let uid = &exchange.response["metadata"]["uid"];
                object["metadata"]["uid"] = match uid.is_string() {
                    true => uid.clone(),
                    false => "00000000-0000-0000-0000-000000000000".into(),
                };
                object["metadata"]["creationTimestamp"] =
                    exchange.response["metadata"]["creationTimestamp"].clone();
                rules.prepare_for_create(&mut object);
                let errors = rules.validate_create(&object);
                Some(finish(target, object, None, errors))
            }
            "PUT" | "PATCH" => self.play_update(target, exchange),
            _ => None,
        }
    }

    fn play_update(&self, target: &Target, exchange: &Exchange) -> Option<Outcome> {
        let rules = target.row.rules;
        let mut old = self.shown.get(&target.key)?.clone();
        let mut new = if exchange.method == "PUT" {
            decode_value(exchange.request.clone(), &target.type_ref())
                .ok()?
                .object
        } else {
            let kind = match exchange.content_type.as_str() {
                "application/json-patch+json" => PatchKind::Json,
                "application/merge-patch+json" => PatchKind::Merge,
                "application/strategic-merge-patch+json" => PatchKind::Strategic,
                _ => return None,
            };
            let body = exchange.request.to_string();
            patch(kind, old.clone(), body.as_bytes(), &target.type_ref())
                .ok()?
                .object
        };
        rules.default(&target.version, &mut new);
        rules.to_storage(&target.version, &mut new);
        rules.to_storage(&target.version, &mut old);
        let errors = match target.subresource.as_str() {
            "" => {
                if target.row.subresource("status").is_some() {
                    keep(&mut new, &old, "status");
                }
                rules.prepare_for_update(&mut new, &old);
                rules.validate_update(&new, &old)
            }
            "status" => {
                keep(&mut new, &old, "spec");
                rules.prepare_for_status_update(&mut new, &old);
                rules.validate_status_update(&new, &old)
            }
            "scale" => return None,
            other => {
                rules.prepare_for_subresource_update(other, &mut new, &old);
                rules.validate_subresource_update(other, &new, &old)
            }
        };
        Some(finish(target, new, Some(&old), errors))
    }
}

fn keep(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => new[key] = value.clone(),
        None => {
            new.as_object_mut().unwrap().remove(key);
        }
    }
}

/// The registry fills in the namespace of the path.
fn name_namespace(object: &mut Value, target: &Target) {
    let mut parts = target
        .key
        .split('/')
        .skip_while(|part| *part != "namespaces");
    if let (Some(_), Some(namespace), true) = (parts.next(), parts.next(), target.row.namespaced) {
        object["metadata"]["namespace"] = namespace.into();
    }
}

fn finish(
    target: &Target,
    mut object: Value,
    old: Option<&Value>,
    errors: Vec<FieldError>,
) -> Outcome {
    if !errors.is_empty() {
        return Outcome::Refused(errors);
    }
    let warnings = target.row.rules.warnings(&object, old);
    target.row.rules.to_version(&target.version, &mut object);
    local_schema::decode::normalize(&target.type_ref(), &mut object);
    Outcome::Accepted(object, warnings)
}

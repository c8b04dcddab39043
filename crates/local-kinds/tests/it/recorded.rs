//! Counts, scenario by scenario, how many recorded answers the rules give as well: objects after create and update,
//! causes of refusals, warnings, table columns and cells. The counts may only rise.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use local_schema::FieldError;
use regex::Regex;
use serde_json::{Value, json};

use crate::golden::{Exchange, exchanges, scenarios};
use crate::replay::{Outcome, Replay, Target};

/// Raise this when more becomes equal.
const FLOOR: usize = 1141;

#[derive(Default)]
struct Count {
    equal: usize,
    total: usize,
}

type Counts = BTreeMap<(String, &'static str), Count>;

fn count(
    counts: &mut Counts,
    scenario: &str,
    what: &'static str,
    number: u64,
    difference: Option<String>,
) {
    let one = counts.entry((scenario.to_string(), what)).or_default();
    one.total += 1;
    match difference {
        None => one.equal += 1,
        // SHOW=kinds/v1-pods prints what is not equal there.
        Some(difference) => {
            if std::env::var("SHOW").is_ok_and(|wanted| scenario.starts_with(&wanted)) {
                println!("{scenario} {number} {what}: {difference}");
            }
        }
    }
}

/// What only the registry, admission or controllers put there.
fn mask(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for key in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "generation",
            "name",
            "generateName",
            "namespace",
            "selfLink",
        ] {
            metadata.remove(key);
        }
    }
    let remove = |tree: &mut Value, keys: &[&str]| {
        if let Some(map) = tree.as_object_mut() {
            keys.iter().for_each(|key| {
                map.remove(*key);
            });
        }
    };
    match kind {
        "Pod" => mask_pod(&mut object["spec"]),
        "Service" => {
            remove(
                &mut object["spec"],
                &[
                    "clusterIP",
                    "clusterIPs",
                    "ipFamilies",
                    "ipFamilyPolicy",
                    "healthCheckNodePort",
                ],
            );
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                remove(port, &["nodePort"]);
            }
        }
        // Admission taints a new node until its conditions are known.
        "Node" => {
            remove(&mut object["spec"], &["taints"]);
        }
        "APIService" | "CustomResourceDefinition" => remove(&mut object, &["status"]),
        "PersistentVolumeClaim" | "PersistentVolume" => {
            remove(&mut object["metadata"], &["finalizers"])
        }
        _ => {}
    }
    object
}

/// Token volume, service account, priority, default tolerations and node come from admission and the scheduler.
fn mask_pod(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else {
        return;
    };
    for key in [
        "serviceAccount",
        "serviceAccountName",
        "priority",
        "preemptionPolicy",
        "nodeName",
        "tolerations",
    ] {
        map.remove(key);
    }
    let is_token = |one: &Value| {
        one["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let mut lists = vec![map.get_mut("volumes")];
    if let Some(volumes) = lists.pop().flatten().and_then(Value::as_array_mut) {
        volumes.retain(|one| !is_token(one));
        if volumes.is_empty() {
            map.remove("volumes");
        }
    }
    for key in ["containers", "initContainers"] {
        for container in map
            .get_mut(key)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            else {
                continue;
            };
            mounts.retain(|one| !is_token(one));
            if mounts.is_empty() {
                container.as_object_mut().unwrap().remove("volumeMounts");
            }
        }
    }
}

/// The first place where two trees differ.
fn difference(ours: &Value, theirs: &Value, path: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(two)) => one.keys().chain(two.keys()).find_map(|key| {
            difference(
                &ours[key.as_str()],
                &theirs[key.as_str()],
                &format!("{path}/{key}"),
            )
        }),
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => one
            .iter()
            .zip(two)
            .enumerate()
            .find_map(|(position, (one, two))| difference(one, two, &format!("{path}/{position}"))),
        _ if ours == theirs => None,
        _ => Some(format!("{path}: ours {ours}, recorded {theirs}")),
    }
}

/// Causes that the registry finds: they are about metadata, not about a kind.
fn is_of_registry(cause: &Value) -> bool {
    let field = cause["field"].as_str().unwrap_or_default();
    let of_metadata = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "ownerReferences",
        "uid",
        "deletionTimestamp",
        "resourceVersion",
    ]
    .iter()
    .any(|key| {
        field == format!("metadata.{key}") || field.starts_with(&format!("metadata.{key}."))
    });
    let name_of_kind = cause["message"].as_str().is_some_and(|text| {
        text.contains("must be spec.names")
            || text.contains("spec.version")
            || text.contains("reserved for system")
    });
    (of_metadata || field.starts_with("metadata.finalizers")) && !name_of_kind
}

/// A printed struct difference depends on Go's types and is not asked for.
fn without_go_diff(text: &str) -> String {
    text.split("\n@@")
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_string()
}

fn causes(errors: &[FieldError]) -> Vec<Value> {
    errors
        .iter()
        .map(|error| json!({"reason": error.kind.reason(), "message": error.message(), "field": error.path}))
        .collect()
}

fn compare_causes(ours: &[FieldError], exchange: &Exchange) -> Option<String> {
    let mut recorded: Vec<Value> = exchange.response["details"]["causes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    recorded.retain(|cause| !is_of_registry(cause));
    for cause in &mut recorded {
        let message = without_go_diff(cause["message"].as_str().unwrap_or_default());
        cause["message"] = UID.replace_all(&message, ZERO_UID).into_owned().into();
    }
    let mut ours = causes(ours);
    for cause in &mut ours {
        let message = cause["message"].as_str().unwrap_or_default().to_string();
        cause["message"] = UID.replace_all(&message, ZERO_UID).into_owned().into();
    }
    ours.retain(|cause| !is_of_registry(cause));
    if ours == recorded {
        return None;
    }
    // Go iterates maps in any order; the order is relaxed where the set is equal.
    let sorted = |list: &[Value]| {
        let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    if sorted(&ours) == sorted(&recorded) {
        return None;
    }
    Some(format!(
        "{}\n   ours     {}\n   recorded {}",
        exchange.note,
        Value::from(ours),
        Value::from(recorded)
    ))
}

fn compare_write(
    counts: &mut Counts,
    scenario: &str,
    replay: &Replay,
    target: &Target,
    exchange: &Exchange,
) {
    let Some(outcome) = replay.play(target, exchange) else {
        return;
    };
    // Allocation of addresses and ports is the registry's.
    let text = exchange.response.to_string();
    if text.contains("failed to allocate")
        || text.contains("already allocated")
        || text.contains("not in the valid range")
        || text.contains("not configured")
    {
        return;
    }
    match (exchange.status, outcome) {
        (200 | 201, Outcome::Accepted(ours, warnings)) => {
            let recorded = mask(&exchange.response, target.row.kind);
            let found = difference(&mask(&ours, target.row.kind), &recorded, "");
            count(
                counts,
                scenario,
                "objects",
                exchange.number,
                found.map(|found| format!("{} {found}", exchange.note)),
            );
            let recorded: Vec<&String> = exchange
                .warnings
                .iter()
                .filter(|text| {
                    !text.starts_with("unknown field")
                        && !text.starts_with("duplicate field")
                        && **text != target.row.deprecation
                })
                .collect();
            let missing = (warnings.iter().collect::<Vec<_>>() != recorded)
                .then(|| format!("ours {warnings:?}, recorded {recorded:?}"));
            if missing.is_some() || !recorded.is_empty() {
                count(counts, scenario, "warnings", exchange.number, missing);
            }
        }
        (200 | 201, Outcome::Refused(errors)) => {
            let found = format!(
                "{} accepted, ours {}",
                exchange.note,
                Value::from(causes(&errors))
            );
            count(counts, scenario, "objects", exchange.number, Some(found));
        }
        (422, Outcome::Refused(errors)) => {
            let found = compare_causes(&errors, exchange);
            count(counts, scenario, "refusals", exchange.number, found);
        }
        (422, Outcome::Accepted(..)) => {
            let found = compare_causes(&[], exchange);
            count(counts, scenario, "refusals", exchange.number, found);
        }
        _ => {}
    }
}

/// Uids of refused objects are never seen outside the message.
static UID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
});
const ZERO_UID: &str = "00000000-0000-0000-0000-000000000000";

static AGE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(\d+[smhdy])+$|^<invalid>$|(\d+[smhdy])+ ago").unwrap());

fn mask_cell(cell: &Value) -> Value {
    match cell {
        Value::String(text) => AGE.replace_all(text, "T").into_owned().into(),
        other => other.clone(),
    }
}

fn compare_table(
    counts: &mut Counts,
    scenario: &str,
    replay: &Replay,
    target: &Target,
    exchange: &Exchange,
) {
    let rules = target.row.rules;
    let ours: Vec<Value> = rules.columns().iter()
        .map(|one| json!({"name": one.name, "type": one.kind, "format": one.format, "priority": one.priority}))
        .collect();
    let mut recorded = exchange.response["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for one in &mut recorded {
        one.as_object_mut().unwrap().remove("description");
    }
    if ours.is_empty() {
        // The generic table is the registry's.
        let generic = recorded.len() == 2 && recorded[1]["name"] == "Created At";
        count(
            counts,
            scenario,
            "columns",
            exchange.number,
            (!generic).then(|| "none".to_string()),
        );
        return;
    }
    let found = (ours != recorded).then(|| {
        format!(
            "ours {}, recorded {}",
            Value::from(ours),
            Value::from(recorded)
        )
    });
    count(counts, scenario, "columns", exchange.number, found);
    for row in exchange.response["rows"].as_array().into_iter().flatten() {
        let name = row["object"]["metadata"]["name"]
            .as_str()
            .or(row["cells"][0].as_str())
            .unwrap_or_default();
        let key = if target.name.is_empty() {
            format!("{}/{name}", target.key)
        } else {
            target.key.clone()
        };
        // The server prints what is stored, not what the older version shows.
        let stored = key.replace("/autoscaling/v1/", "/autoscaling/v2/");
        let Some(object) = replay.shown.get(&stored).or_else(|| replay.shown.get(&key)) else {
            continue;
        };
        let version = &row["object"]["metadata"]["resourceVersion"];
        if version.is_string() && *version != object["metadata"]["resourceVersion"] {
            continue;
        }
        let mut object = object.clone();
        if stored == key || !replay.shown.contains_key(&stored) {
            rules.to_storage(&target.version, &mut object);
        }
        let cells: Vec<Value> = rules
            .cells(&object, now(&object))
            .iter()
            .map(mask_cell)
            .collect();
        let recorded: Vec<Value> = row["cells"]
            .as_array()
            .into_iter()
            .flatten()
            .map(mask_cell)
            .collect();
        let found = (cells != recorded).then(|| {
            format!(
                "{name}\n   ours     {}\n   recorded {}",
                Value::from(cells),
                Value::from(recorded)
            )
        });
        count(counts, scenario, "cells", exchange.number, found);
    }
}

/// Recordings are looked at right after the object was made.
fn now(object: &Value) -> Timestamp {
    object["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[test]
fn recorded_answers_are_met_at_least_as_often_as_before() {
    let mut counts = Counts::new();
    for scenario in scenarios("kinds").into_iter().chain(scenarios("tables")) {
        let mut replay = Replay::default();
        for exchange in exchanges(&scenario) {
            let Some(target) = Target::parse(&exchange.path) else {
                continue;
            };
            if exchange.response["kind"] == "Table" {
                replay.remember(&target, &exchange);
                compare_table(&mut counts, &scenario, &replay, &target, &exchange);
                continue;
            }
            compare_write(&mut counts, &scenario, &replay, &target, &exchange);
            replay.remember(&target, &exchange);
        }
    }
    let (mut equal, mut total) = (0, 0);
    let mut areas: BTreeMap<&str, Count> = BTreeMap::new();
    for ((scenario, what), one) in &counts {
        println!("{scenario:80} {what:9} {:4} of {:4}", one.equal, one.total);
        equal += one.equal;
        total += one.total;
        let area = areas.entry(what).or_default();
        area.equal += one.equal;
        area.total += one.total;
    }
    for (what, one) in areas {
        println!("all {what}: {} of {}", one.equal, one.total);
    }
    println!("all: {equal} of {total}");
    assert!(
        equal >= FLOOR,
        "{equal} of {total} are equal, {FLOOR} were before"
    );
}

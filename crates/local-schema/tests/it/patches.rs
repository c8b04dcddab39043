//! Patch arithmetic against the recordings: merged objects, refusals and their words.

use local_schema::patch::{PatchError, PatchKind, patch};
use local_schema::{TypeRef, type_of};
use serde_json::Value;

use crate::golden;

/// Fields that defaulting or the server adds after the patch.
const DEFAULTED: [&str; 24] = [
    "imagePullPolicy",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "protocol",
    "rollingUpdate",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "managedFields",
    "status",
    "apiVersion",
    "type",
    "revisionHistoryLimit",
    "progressDeadlineSeconds",
    "strategy",
    "dnsPolicy",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "terminationGracePeriodSeconds",
    "clusterIP",
    "clusterIPs",
    "targetPort",
];
/// Fields the server owns.
const SERVER: [&str; 12] = [
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "managedFields",
    "status",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "externalTrafficPolicy",
];

fn differences(path: &str, actual: &Value, wanted: &Value, found: &mut Vec<String>) {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => {
            for (key, value) in actual {
                match wanted.get(key) {
                    _ if SERVER.contains(&key.as_str()) => {}
                    Some(other) => differences(&format!("{path}.{key}"), value, other, found),
                    None => found.push(format!("{path}.{key} is too much: {value}")),
                }
            }
            for key in wanted.keys().filter(|key| !actual.contains_key(*key)) {
                if !DEFAULTED.contains(&key.as_str()) && !SERVER.contains(&key.as_str()) {
                    found.push(format!("{path}.{key} is missing"));
                }
            }
        }
        (Value::Array(actual), Value::Array(wanted)) if actual.len() == wanted.len() => {
            for (index, (one, other)) in actual.iter().zip(wanted).enumerate() {
                differences(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if actual == wanted
            || DEFAULTED.iter().any(|name| path.ends_with(name))
                && actual.as_object().is_some_and(|map| map.is_empty()) => {}
        _ => found.push(format!("{path}: {actual} instead of {wanted}")),
    }
}

fn kind_of(content_type: &str) -> Option<PatchKind> {
    Some(match content_type {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        _ => return None,
    })
}

/// Compares one exchange; `Err` says how it differs.
fn compare(before: &Value, exchange: &Value, object_type: &TypeRef) -> Result<(), String> {
    let kind = kind_of(golden::content_type(exchange)).ok_or("no patch")?;
    let status = exchange["response"]["status"].as_u64().unwrap_or_default();
    let result = patch(kind, before.clone(), &golden::body(exchange), object_type);
    let message = golden::message(exchange);
    match (status, result) {
        (200, Ok(patched)) => {
            let mut found = Vec::new();
            differences(
                "",
                &patched.object,
                &exchange["response"]["body"],
                &mut found,
            );
            if found.is_empty() {
                Ok(())
            } else {
                Err(found.join("; "))
            }
        }
        (400, Err(PatchError::BadRequest(text))) | (500, Err(PatchError::Internal(text)))
            if text == message =>
        {
            Ok(())
        }
        (500, Err(PatchError::Internal(text)))
            if message.starts_with("list element types")
                && text.starts_with("list element types") =>
        {
            Ok(())
        }
        (422, Err(PatchError::Unprocessable)) if message.contains("the server rejected") => Ok(()),
        (422, Err(error @ PatchError::Invalid { .. }))
            if kind == PatchKind::Strategic && error.to_string() == message =>
        {
            Ok(())
        }
        // The value in front is the whole object, in an order only Go's structs know.
        (422, Err(PatchError::Invalid { detail, .. })) if message.ends_with(&detail) => Ok(()),
        (400 | 409 | 422, Ok(patched)) => {
            let strict = patched
                .strict_error()
                .map(|error| error.to_string())
                .unwrap_or_default();
            let fine = !message.contains("patch: Invalid value")
                && !message.starts_with("error decoding")
                || kind == PatchKind::Strategic && strict == message
                || !strict.is_empty()
                    && message.ends_with(strict.rsplit("\": ").next().unwrap_or("?"));
            if fine {
                Ok(())
            } else {
                Err(format!("accepted, instead of {message}"))
            }
        }
        (status, result) => Err(format!("{result:?} instead of {status} {message}")),
    }
}

fn replay(scenario: &str, object_type: &TypeRef) -> (usize, Vec<String>) {
    let exchanges = golden::scenario(scenario);
    let before = exchanges[1]["response"]["body"].clone();
    let mut equal = 0;
    let mut wrong = Vec::new();
    for exchange in &exchanges[2..] {
        if exchange["request"]["method"] != "PATCH" {
            continue;
        }
        match compare(&before, exchange, object_type) {
            Ok(()) => equal += 1,
            Err(difference) => wrong.push(format!("{scenario} {}: {difference}", exchange["n"])),
        }
    }
    (equal, wrong)
}

#[test]
fn recorded_strategic_merges_come_out_equal() {
    let (equal, wrong) = replay(
        "strategic-deployment",
        &type_of("apps", "v1", "Deployment").unwrap(),
    );
    assert!(wrong.is_empty(), "{equal} equal\n{}", wrong.join("\n"));
    let (equal, wrong) = replay("strategic-service", &type_of("", "v1", "Service").unwrap());
    assert!(wrong.is_empty(), "{equal} equal\n{}", wrong.join("\n"));
}

#[test]
fn recorded_json_patches_come_out_equal() {
    // Exchange 52 and following states depend on each other only in their own files; here each starts anew.
    let (equal, wrong) = replay("json-patch", &type_of("", "v1", "ConfigMap").unwrap());
    assert!(wrong.is_empty(), "{equal} equal\n{}", wrong.join("\n"));
}

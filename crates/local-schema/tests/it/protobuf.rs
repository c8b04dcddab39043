//! Recorded protobuf bodies against what the server answered to them.

use base64::Engine;
use local_schema::{decode, protobuf, type_of};
use serde_json::Value;

use crate::golden;

/// Every value of `part` stands in `whole`.
fn missing(path: &str, part: &Value, whole: &Value, found: &mut Vec<String>) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (key, value) in part {
                match whole.get(key) {
                    Some(other) => missing(&format!("{path}.{key}"), value, other, found),
                    None => found.push(format!("{path}.{key}: {value} is too much")),
                }
            }
        }
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            for (index, (one, other)) in part.iter().zip(whole).enumerate() {
                missing(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if part == whole || part.as_object().is_some_and(|part| part.is_empty()) => {}
        _ => found.push(format!("{path}: {part} instead of {whole}")),
    }
}

#[test]
fn recorded_bodies_decode_to_what_the_server_understood() {
    let mut equal = 0;
    for exchange in &golden::scenario("protobuf-bodies")[1..] {
        let Some(body) = exchange["request"]["body"]["base64"].as_str() else {
            continue;
        };
        let body = base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap();
        let object = protobuf::decode(&body).unwrap();
        let (group, version) = object["apiVersion"]
            .as_str()
            .unwrap()
            .split_once('/')
            .unwrap_or(("", object["apiVersion"].as_str().unwrap()));
        let kind = type_of(group, version, object["kind"].as_str().unwrap()).unwrap();
        let decoded = decode::decode_value(object, &kind).unwrap();
        assert!(decoded.problems.is_empty(), "{:?}", decoded.problems);
        let response = &exchange["response"]["body"];
        if response["kind"] == "Status" {
            assert_eq!(
                decoded.object["metadata"]["name"],
                response["details"]["name"]
            );
        } else {
            let mut found = Vec::new();
            let mut object = decoded.object;
            object.as_object_mut().unwrap().remove("status");
            if object["kind"] == "SelfSubjectRulesReview" {
                // The answer carries no spec.
                object.as_object_mut().unwrap().remove("spec");
            }
            missing("", &object, response, &mut found);
            assert!(found.is_empty(), "{}: {}", exchange["n"], found.join("; "));
        }
        equal += 1;
    }
    assert_eq!(equal, 18);
}

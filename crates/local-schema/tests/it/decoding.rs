//! Bodies that decoding refuses, against the recorded words.

use local_schema::decode::{DecodeError, Decoded};
use local_schema::{decode, type_of};

use crate::golden;

fn outcome(result: Result<Decoded, DecodeError>) -> String {
    match result {
        Ok(decoded) => format!("strict decoding error: {}", decoded.problems.join(", ")),
        Err(error) => error.to_string(),
    }
}

fn replay(scenario: &str, group: &str, kind: &str) -> usize {
    let kind = type_of(group, "v1", kind).unwrap();
    let mut equal = 0;
    let mut wrong = Vec::new();
    for exchange in &golden::scenario(scenario)[1..] {
        let message = golden::message(exchange);
        let Some((_, reason)) = message
            .split_once(" cannot be handled as a ")
            .and_then(|(_, rest)| rest.split_once(": "))
        else {
            continue;
        };
        let about_kinds =
            reason.contains("is registered for version") || reason.contains("unknown conversion");
        if about_kinds
            || golden::content_type(exchange) != "application/json"
            || exchange["request"]["method"] != "POST"
        {
            continue;
        }
        let found = match exchange["request"]["body"]["kind"].as_str() {
            Some("Secret") => outcome(decode::decode(
                &golden::body(exchange),
                &type_of("", "v1", "Secret").unwrap(),
            )),
            _ => outcome(decode::decode(&golden::body(exchange), &kind)),
        };
        if found == reason {
            equal += 1;
        } else {
            wrong.push(format!(
                "{scenario} {}: {found}\n  instead of {reason}",
                exchange["n"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{equal} equal, not equal:\n{}",
        wrong.join("\n")
    );
    equal
}

#[test]
fn recorded_refusals_of_bodies_have_the_same_words() {
    assert!(replay("invalid-pod", "", "Pod") >= 4);
    assert!(replay("invalid-deployment", "apps", "Deployment") >= 2);
    assert!(replay("invalid-configmap", "", "ConfigMap") >= 3);
    assert!(replay("protocol-errors", "", "ConfigMap") >= 3);
}

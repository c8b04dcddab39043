//! Probes and lifecycle hooks.

use local_schema::FieldError;
use serde_json::Value;

use super::termination_grace_seconds;
use crate::check::names::{header, invalid};
use crate::check::numbers::{not_negative, port, port_or_name};
use crate::tree::{child, integer, list, number, present, text};

const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const NUMBERS: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];

/// Hooks and probes of a container that runs for good.
pub fn check_container(spec: &Value, container: &Value, path: &str) -> Vec<FieldError> {
    let grace = termination_grace_seconds(spec);
    let mut errors = Vec::new();
    let lifecycle = child(path, "lifecycle");
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            errors.extend(check_handler(handler, grace, &child(&lifecycle, hook)));
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[key];
        if probe.is_null() {
            continue;
        }
        let path = child(path, key);
        errors.extend(check_probe(probe, grace, &path));
        errors.extend(special(key, probe, &path));
    }
    errors
}

fn special(key: &str, probe: &Value, path: &str) -> Option<FieldError> {
    if key == "readinessProbe" {
        let seconds = integer(probe, "terminationGracePeriodSeconds")?;
        return Some(FieldError::invalid(
            child(path, "terminationGracePeriodSeconds"),
            seconds,
            "must not be set for readinessProbes",
        ));
    }
    let threshold = number(probe, "successThreshold");
    (threshold != 1)
        .then(|| FieldError::invalid(child(path, "successThreshold"), threshold, "must be 1"))
}

fn check_probe(probe: &Value, grace: i64, path: &str) -> Vec<FieldError> {
    let mut errors = check_handler(probe, grace, path);
    for key in NUMBERS {
        errors.extend(not_negative(probe, key, path));
    }
    if let Some(seconds) = integer(probe, "terminationGracePeriodSeconds")
        && seconds <= 0
    {
        errors.push(FieldError::invalid(
            child(path, "terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
    errors
}

fn check_handler(handler: &Value, grace: i64, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut count = 0;
    for key in HANDLERS.into_iter().filter(|key| present(handler, key)) {
        count += 1;
        let path = child(path, key);
        if count > 1 {
            errors.push(FieldError::forbidden(
                path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        errors.extend(check_action(key, &handler[key], grace, &path));
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    errors
}

fn check_action(key: &str, action: &Value, grace: i64, path: &str) -> Vec<FieldError> {
    match key {
        "exec" if list(action, "command").is_empty() => {
            vec![FieldError::required(child(path, "command"), "")]
        }
        "httpGet" => http_request(action, path),
        "tcpSocket" => port_or_name(&action["port"], &child(path, "port")),
        "grpc" => port(number(action, "port"), &child(path, "port")),
        "sleep" => {
            let seconds = number(action, "seconds");
            if (0..=grace).contains(&seconds) {
                return Vec::new();
            }
            let words = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            );
            vec![FieldError::invalid(path, seconds, words)]
        }
        _ => Vec::new(),
    }
}

fn http_request(action: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(action, "path").is_empty() {
        errors.push(FieldError::required(child(path, "path"), ""));
    }
    errors.extend(port_or_name(&action["port"], &child(path, "port")));
    if !SCHEMES.contains(&text(action, "scheme")) {
        errors.push(FieldError::not_supported(
            child(path, "scheme"),
            text(action, "scheme"),
            SCHEMES,
        ));
    }
    for one in list(action, "httpHeaders") {
        let name = text(one, "name");
        errors.extend(invalid(&child(path, "httpHeaders"), name, header(name)));
    }
    errors
}

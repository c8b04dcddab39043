//! Container ports, and the host's ports that containers share.

use std::collections::BTreeSet;

use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{invalid, port_name};
use crate::check::numbers::port;
use crate::tree::{child, index, list, number, text};

/// Protocols of ports, as upstream names them.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The ports of one container.
pub fn check(container: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "ports");
    let mut names = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, one) in list(container, "ports").iter().enumerate() {
        let path = index(&path, position);
        let name = text(one, "name");
        if !name.is_empty() {
            let wrong = port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(child(&path, "name"), name));
            }
            errors.extend(invalid(&child(&path, "name"), name, wrong));
        }
        match number(one, "containerPort") {
            0 => errors.push(FieldError::required(child(&path, "containerPort"), "")),
            value => errors.extend(port(value, &child(&path, "containerPort"))),
        }
        match number(one, "hostPort") {
            0 => {}
            value => errors.extend(port(value, &child(&path, "hostPort"))),
        }
        errors.extend(super::spec::one_of(one, "protocol", &path, PROTOCOLS));
    }
    errors
}

/// Ports of the host that two containers want.
pub fn host_conflicts(containers: &[Value], path: &str) -> Vec<FieldError> {
    let mut taken = BTreeSet::new();
    let mut errors = Vec::new();
    for (place, container) in containers.iter().enumerate() {
        let path = child(&index(path, place), "ports");
        for (position, one) in list(container, "ports").iter().enumerate() {
            let host = number(one, "hostPort");
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", text(one, "protocol"), text(one, "hostIP"));
            if !taken.insert(key.clone()) {
                let path = child(&index(&path, position), "hostPort");
                errors.push(FieldError::duplicate(path, key));
            }
        }
    }
    errors
}

/// With the host's network both numbers must be the same.
pub fn host_network(containers: &[Value], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (place, container) in containers.iter().enumerate() {
        let path = child(&index(path, place), "ports");
        for (position, one) in list(container, "ports").iter().enumerate() {
            if number(one, "hostPort") != number(one, "containerPort") {
                errors.push(FieldError::invalid(
                    child(&index(&path, position), "hostPort"),
                    number(one, "hostPort"),
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
    errors
}

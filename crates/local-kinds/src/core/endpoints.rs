//! Endpoints: the addresses behind a Service, in the old form.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{invalid, label, usable_address};
use crate::check::numbers::port;
use crate::core::pod::PROTOCOLS;
use crate::print::{NAME, NONE, age, column, cut, name};
use crate::rules::{Column, KindRules};
use crate::tree::{child, fill_zero, index, list, list_mut, number, text};

/// The rules of Endpoints.
pub struct EndpointsRules;

/// A table shows so many addresses.
const SHOWN: usize = 3;

impl KindRules for EndpointsRules {
    fn default(&self, _version: &str, object: &mut Value) {
        for subset in list_mut(object, "subsets") {
            for port in list_mut(subset, "ports") {
                fill_zero(port, "protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (position, subset) in list(object, "subsets").iter().enumerate() {
            errors.extend(check_subset(subset, &index("subsets", position)));
        }
        errors
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Endpoints"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), shown(object).into(), age(object, now)]
    }
}

fn check_subset(subset: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|key| list(subset, key).is_empty()) {
        let words = "must specify `addresses` or `notReadyAddresses`";
        errors.push(FieldError::required(path, words));
    }
    for key in lists {
        for (position, one) in list(subset, key).iter().enumerate() {
            let path = index(&child(path, key), position);
            let host = text(one, "hostname");
            errors.extend(usable_address(text(one, "ip"), &child(&path, "ip")));
            if !host.is_empty() {
                errors.extend(invalid(&child(&path, "hostname"), host, label(host)));
            }
        }
    }
    let ports = list(subset, "ports");
    for (position, one) in ports.iter().enumerate() {
        let path = index(&child(path, "ports"), position);
        let name = text(one, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(child(&path, "name"), ""));
        } else if !name.is_empty() {
            errors.extend(invalid(&child(&path, "name"), name, label(name)));
        }
        errors.extend(port(number(one, "port"), &child(&path, "port")));
        let protocol = text(one, "protocol");
        if !PROTOCOLS.contains(&protocol) {
            let path = child(&path, "protocol");
            errors.push(FieldError::not_supported(path, protocol, PROTOCOLS));
        }
    }
    errors
}

fn shown(object: &Value) -> String {
    let subsets = list(object, "subsets");
    if subsets.is_empty() {
        return NONE.to_string();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || list(subset, "addresses").iter().map(|one| text(one, "ip"));
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_string));
        }
        for port in ports {
            all.extend(addresses().map(|ip| join_port(ip, number(port, "port"))));
        }
    }
    cut(&all, SHOWN)
}

/// IPv6 addresses stand in brackets before a port.
fn join_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

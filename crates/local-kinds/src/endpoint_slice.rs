//! EndpointSlices: the addresses behind a Service.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{invalid, label, subdomain, usable_address};
use crate::check::numbers::port;
use crate::core::pod::PROTOCOLS;
use crate::print::{NAME, age, column, cut, name};
use crate::rules::{Column, KindRules};
use crate::tree::{child, fill, index, integer, list, list_mut, text};

/// The rules of EndpointSlices.
pub struct EndpointSliceRules;

const SHOWN: usize = 3;
const UNSET: &str = "<unset>";
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MOST_ADDRESSES: usize = 100;

const COLUMNS: &[Column] = &[
    NAME,
    column("AddressType"),
    column("Ports"),
    column("Endpoints"),
    column("Age"),
];

impl KindRules for EndpointSliceRules {
    fn default(&self, _version: &str, object: &mut Value) {
        for port in list_mut(object, "ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = text(object, "addressType");
        if kind.is_empty() {
            errors.push(FieldError::required("addressType", ""));
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(
                "addressType",
                kind,
                ADDRESS_TYPES,
            ));
        }
        for (position, one) in list(object, "endpoints").iter().enumerate() {
            errors.extend(check_endpoint(one, kind, &index("endpoints", position)));
        }
        let mut names = std::collections::BTreeSet::new();
        for (position, one) in list(object, "ports").iter().enumerate() {
            let path = index("ports", position);
            let own = text(one, "name");
            if !own.is_empty() {
                errors.extend(invalid(&child(&path, "name"), own, label(own)));
            }
            if !names.insert(own) {
                errors.push(FieldError::duplicate(child(&path, "name"), own));
            }
            let protocol = text(one, "protocol");
            if !PROTOCOLS.contains(&protocol) {
                let path = child(&path, "protocol");
                errors.push(FieldError::not_supported(path, protocol, PROTOCOLS));
            }
            if let Some(number) = integer(one, "port") {
                errors.extend(port(number, &child(&path, "port")));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        errors.extend(crate::check::metadata::immutable(
            &new["addressType"],
            &old["addressType"],
            "addressType",
        ));
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_create_on_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            text(object, "addressType").into(),
            ports(object).into(),
            endpoints(object).into(),
            age(object, now),
        ]
    }
}

fn check_endpoint(endpoint: &Value, kind: &str, path: &str) -> Vec<FieldError> {
    let path = &child(path, "addresses");
    let addresses = list(endpoint, "addresses");
    if addresses.is_empty() {
        return vec![FieldError::required(
            path,
            "must contain at least 1 address",
        )];
    }
    if addresses.len() > MOST_ADDRESSES {
        let kind = local_schema::FieldErrorKind::TooMany;
        let words = format!("must have at most {MOST_ADDRESSES} items");
        return vec![FieldError::new(kind, path, addresses.len(), words)];
    }
    let mut errors = Vec::new();
    for (position, one) in addresses.iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        let path = index(path, position);
        if kind == "FQDN" {
            errors.extend(invalid(&path, one, subdomain(one)));
        } else {
            errors.extend(usable_address(one, &path));
        }
    }
    errors
}

fn ports(object: &Value) -> String {
    let all: Vec<String> = list(object, "ports")
        .iter()
        .map(|one| match (integer(one, "port"), text(one, "name")) {
            (Some(number), _) => number.to_string(),
            (None, name) => name.to_string(),
        })
        .collect();
    if all.iter().all(String::is_empty) {
        UNSET.to_string()
    } else {
        cut(&all, SHOWN)
    }
}

fn endpoints(object: &Value) -> String {
    let all: Vec<String> = list(object, "endpoints")
        .iter()
        .flat_map(|one| list(one, "addresses"))
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect();
    if all.is_empty() {
        UNSET.to_string()
    } else {
        cut(&all, SHOWN)
    }
}

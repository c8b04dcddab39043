//! Ingresses and IngressClasses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::metadata::annotation;
use crate::check::names::{self, invalid};
use crate::check::numbers::port;
use crate::print::{NAME, NONE, age, column, cut, name, or_none};
use crate::rules::{Column, KindRules};
use crate::tree::{child, fill, index, integer, is_empty, list, object_mut, present, text};

/// The rules of Ingresses.
pub struct IngressRules;

/// The rules of IngressClasses.
pub struct IngressClassRules;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const SHOWN: usize = 3;
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDINGS: [&str; 2] = ["/..", "/."];
const NOT_ABSOLUTE: &str = "must be an absolute path";

impl KindRules for IngressRules {
    fn default(&self, _version: &str, object: &mut Value) {
        object_mut(object, "spec");
        object_mut(object_mut(object, "status"), "loadBalancer");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        let old = annotation(object, CLASS_ANNOTATION);
        let class = text(spec, "ingressClassName");
        if !old.is_empty() && !class.is_empty() && old != class {
            let path = child("annotations", CLASS_ANNOTATION);
            let words = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(path, old, words));
        }
        errors.extend(check(spec));
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(&new["spec"])
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_create_on_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Class"),
            column("Hosts"),
            column("Address"),
            column("Ports"),
            column("Age"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let secure = !is_empty(&spec["tls"]);
        vec![
            name(object),
            or_none(text(spec, "ingressClassName")),
            hosts(spec).into(),
            addresses(object).into(),
            if secure { "80, 443" } else { "80" }.into(),
            age(object, now),
        ]
    }
}

fn hosts(spec: &Value) -> String {
    let all: Vec<String> = list(spec, "rules")
        .iter()
        .map(|rule| text(rule, "host").to_string())
        .filter(|host| !host.is_empty())
        .collect();
    if all.is_empty() {
        "*".to_string()
    } else {
        cut(&all, SHOWN)
    }
}

fn addresses(object: &Value) -> String {
    let all: BTreeSet<&str> = list(&object["status"]["loadBalancer"], "ingress")
        .iter()
        .map(|one| match text(one, "ip") {
            "" => text(one, "hostname"),
            ip => ip,
        })
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn check(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_empty(&spec["rules"]) && !present(spec, "defaultBackend") {
        let words = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", spec["rules"].clone(), words));
    }
    if present(spec, "defaultBackend") {
        errors.extend(check_backend(
            &spec["defaultBackend"],
            "spec.defaultBackend",
        ));
    }
    for (position, rule) in list(spec, "rules").iter().enumerate() {
        errors.extend(check_rule(rule, &index("spec.rules", position)));
    }
    for (position, one) in list(spec, "tls").iter().enumerate() {
        let path = child(&index("spec.tls", position), "hosts");
        for (place, host) in list(one, "hosts").iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            errors.extend(check_host(host, &index(&path, place)));
        }
    }
    let class = text(spec, "ingressClassName");
    if !class.is_empty() {
        errors.extend(invalid(
            "spec.ingressClassName",
            class,
            names::subdomain(class),
        ));
    }
    errors
}

fn check_host(host: &str, path: &str) -> Vec<FieldError> {
    let wrong = if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::subdomain(host)
    };
    invalid(path, host, wrong)
}

fn check_rule(rule: &Value, path: &str) -> Vec<FieldError> {
    let host = text(rule, "host");
    let host_path = child(path, "host");
    let mut errors = Vec::new();
    if names::address(host).is_some() {
        let words = "must be a DNS name, not an IP address";
        errors.push(FieldError::invalid(host_path, host, words));
    } else if !host.is_empty() {
        errors.extend(check_host(host, &host_path));
    }
    if !present(rule, "http") {
        return errors;
    }
    let path = format!("{path}.http.paths");
    let paths = list(&rule["http"], "paths");
    if paths.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    }
    for (position, one) in paths.iter().enumerate() {
        errors.extend(check_path(one, &index(&path, position)));
    }
    errors
}

fn check_path(one: &Value, path: &str) -> Vec<FieldError> {
    let own = text(one, "path");
    let path_of_path = child(path, "path");
    let mut errors = Vec::new();
    let mut refuse = |words: String| {
        errors.push(FieldError::invalid(path_of_path.clone(), own, words));
    };
    match text(one, "pathType") {
        "Exact" | "Prefix" => {
            if !own.starts_with('/') {
                refuse(NOT_ABSOLUTE.to_string());
            }
            for bad in BAD_SEQUENCES.iter().filter(|bad| own.contains(**bad)) {
                refuse(format!("must not contain '{bad}'"));
            }
            for bad in BAD_ENDINGS.iter().filter(|bad| own.ends_with(**bad)) {
                refuse(format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !own.is_empty() && !own.starts_with('/') {
                refuse(NOT_ABSOLUTE.to_string());
            }
        }
        "" => {
            let path = child(path, "pathType");
            errors.push(FieldError::required(path, "pathType must be specified"));
        }
        other => {
            let path = child(path, "pathType");
            errors.push(FieldError::not_supported(path, other, PATH_TYPES));
        }
    }
    errors.extend(check_backend(&one["backend"], &child(path, "backend")));
    errors
}

fn check_backend(backend: &Value, path: &str) -> Vec<FieldError> {
    match (present(backend, "resource"), present(backend, "service")) {
        (true, true) => {
            let words = "cannot set both resource and service backends";
            vec![FieldError::invalid(path, "", words)]
        }
        (false, false) => {
            let words = "resource or service backend is required";
            vec![FieldError::invalid(path, "", words)]
        }
        (true, false) => Vec::new(),
        (false, true) => check_service(&backend["service"], path),
    }
}

fn check_service(service: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let own = format!("{path}.service");
    match text(service, "name") {
        "" => errors.push(FieldError::required(child(&own, "name"), "")),
        name => errors.extend(invalid(&child(&own, "name"), name, names::label_1035(name))),
    }
    let by_name = text(&service["port"], "name");
    let by_number = integer(&service["port"], "number").filter(|number| *number != 0);
    match (by_name, by_number) {
        ("", None) => {
            let words = "port name or number is required";
            errors.push(FieldError::required(path, words));
        }
        ("", Some(number)) => errors.extend(port(number, &format!("{own}.port.number"))),
        (name, None) => {
            let path = format!("{own}.port.name");
            errors.extend(invalid(&path, name, names::port_name(name)));
        }
        _ => {
            let words = "cannot set both port name & port number";
            errors.push(FieldError::invalid(path, "", words));
        }
    }
    errors
}

impl KindRules for IngressClassRules {
    fn default(&self, _version: &str, object: &mut Value) {
        if present(&object["spec"], "parameters") {
            fill(&mut object["spec"]["parameters"], "scope", "Cluster");
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Controller"),
            column("Parameters"),
            column("Age"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let parameters = &spec["parameters"];
        let shown = match (parameters.is_null(), text(parameters, "apiGroup")) {
            (true, _) => NONE.to_string(),
            (false, "") => format!("{}/{}", text(parameters, "kind"), text(parameters, "name")),
            (false, group) => {
                format!(
                    "{}.{group}/{}",
                    text(parameters, "kind"),
                    text(parameters, "name")
                )
            }
        };
        vec![
            name(object),
            text(spec, "controller").into(),
            shown.into(),
            age(object, now),
        ]
    }
}

//! A whole pod spec, part by part in upstream's order.

use local_schema::FieldError;
use serde_json::Value;

use super::{affinity, containers, scheduling, security, volumes};
use crate::check::labels::labels;
use crate::check::names::{self, invalid};
use crate::check::numbers::range_words;
use crate::tree::{child, index, integer, list, present, text};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// The largest Go int32, upstream's limit for seconds.
pub const LARGEST_SECONDS: i64 = i32::MAX as i64;
const MAXIMAL_NAMESERVERS: usize = 3;
const MAXIMAL_SEARCHES: usize = 32;

/// A pod that is to be created.
pub fn check_new_pod(pod: &Value) -> Vec<FieldError> {
    let spec = &pod["spec"];
    let mut errors = check_pod(pod);
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    errors
}

/// What holds for pods but not for templates comes after the spec.
pub fn check_pod(pod: &Value) -> Vec<FieldError> {
    let spec = &pod["spec"];
    let mut errors = check(spec, "spec");
    for key in ["containers", "initContainers"] {
        let path = child("spec", key);
        for (position, container) in list(spec, key).iter().enumerate() {
            let image = text(container, "image");
            if image.trim() != image {
                errors.push(FieldError::invalid(
                    child(&index(&path, position), "image"),
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    errors
}

/// The spec of a pod or of a template.
pub fn check(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = volumes::check(spec, path);
    errors.extend(containers::check(spec, path));
    errors.extend(one_of(spec, "restartPolicy", path, RESTART_POLICIES));
    errors.extend(one_of(spec, "dnsPolicy", path, DNS_POLICIES));
    errors.extend(labels(spec, "nodeSelector", path));
    errors.extend(security::check_pod(spec, path));
    errors.extend(affinity::check(&spec["affinity"], &child(path, "affinity")));
    errors.extend(dns_config(spec, path));
    errors.extend(scheduling::gates(spec, path));
    errors.extend(scheduling::spread(spec, path));
    errors.extend(single_fields(spec, path));
    errors.extend(scheduling::tolerations(spec, path));
    errors.extend(host_aliases(spec, path));
    errors.extend(subdomain_field(spec, "priorityClassName", path));
    errors.extend(subdomain_field(spec, "runtimeClassName", path));
    if present(spec, "preemptionPolicy") {
        errors.extend(one_of(
            spec,
            "preemptionPolicy",
            path,
            &["PreemptLowerPriority", "Never"],
        ));
    }
    errors
}

/// A mandatory text that is one of a few; `supported` in the order in which upstream names them.
pub fn one_of(parent: &Value, key: &str, path: &str, supported: &[&str]) -> Vec<FieldError> {
    let value = text(parent, key);
    if value.is_empty() {
        return vec![FieldError::required(child(path, key), "")];
    }
    if supported.contains(&value) {
        return Vec::new();
    }
    vec![FieldError::not_supported(
        child(path, key),
        value,
        supported,
    )]
}

fn subdomain_field(spec: &Value, key: &str, path: &str) -> Vec<FieldError> {
    match text(spec, key) {
        "" => Vec::new(),
        value => invalid(&child(path, key), value, names::subdomain(value)),
    }
}

fn label_field(spec: &Value, key: &str, path: &str) -> Vec<FieldError> {
    match text(spec, key) {
        "" => Vec::new(),
        value => invalid(&child(path, key), value, names::label(value)),
    }
}

fn single_fields(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = subdomain_field(spec, "serviceAccountName", path);
    errors.extend(subdomain_field(spec, "nodeName", path));
    if let Some(seconds) = integer(spec, "activeDeadlineSeconds")
        && !(1..=LARGEST_SECONDS).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            child(path, "activeDeadlineSeconds"),
            seconds,
            range_words(1, LARGEST_SECONDS),
        ));
    }
    errors.extend(label_field(spec, "hostname", path));
    errors.extend(label_field(spec, "subdomain", path));
    errors
}

fn host_aliases(spec: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "hostAliases");
    let mut errors = Vec::new();
    for (position, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = index(&path, position);
        let ip = text(alias, "ip");
        if names::address(ip).is_none() {
            errors.push(FieldError::invalid(child(&path, "ip"), ip, names::IP_WORDS));
        }
        for host in list(alias, "hostnames").iter().filter_map(Value::as_str) {
            errors.extend(invalid(
                &child(&path, "hostnames"),
                host,
                names::subdomain(host),
            ));
        }
    }
    errors
}

fn dns_config(spec: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = list(config, "nameservers");
    let mut errors = Vec::new();
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            let words = "must provide `dnsConfig` when `dnsPolicy` is None";
            return vec![FieldError::required(path, words)];
        }
        if servers.is_empty() {
            return vec![FieldError::required(
                child(&path, "nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            )];
        }
    }
    if servers.len() > MAXIMAL_NAMESERVERS {
        errors.push(FieldError::invalid(
            child(&path, "nameservers"),
            config["nameservers"].clone(),
            format!("must not have more than {MAXIMAL_NAMESERVERS} nameservers"),
        ));
    }
    let servers_path = child(&path, "nameservers");
    for (position, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        if names::address(server).is_none() {
            errors.push(FieldError::invalid(
                index(&servers_path, position),
                server,
                names::IP_WORDS,
            ));
        }
    }
    let searches_path = child(&path, "searches");
    let searches = list(config, "searches");
    if searches.len() > MAXIMAL_SEARCHES {
        errors.push(FieldError::invalid(
            searches_path.clone(),
            config["searches"].clone(),
            format!("must not have more than {MAXIMAL_SEARCHES} search paths"),
        ));
    }
    for (position, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            errors.extend(invalid(
                &index(&searches_path, position),
                search,
                names::subdomain(name),
            ));
        }
    }
    for (position, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            let path = index(&child(&path, "options"), position);
            errors.push(FieldError::required(path, "must not be empty"));
        }
    }
    errors
}

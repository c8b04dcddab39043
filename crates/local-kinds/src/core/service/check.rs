//! What a Service may ask for.

use std::collections::BTreeSet;

use local_schema::FieldError;
use serde_json::Value;

use super::is_external;
use crate::check::labels::labels;
use crate::check::names::{self, invalid};
use crate::check::numbers::{port, port_or_name};
use crate::check::show;
use crate::core::pod::PROTOCOLS;
use crate::tree::{child, index, integer, is_empty, list, number, present, text};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const LONGEST_AFFINITY_SECONDS: i64 = 86_400;

/// A whole spec, in upstream's order.
pub fn spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    let mut errors = Vec::new();
    if is_empty(&spec["ports"]) && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    errors.extend(of_type(spec, kind, headless));
    errors.extend(ports(spec));
    errors.extend(labels(spec, "selector", path));
    errors.extend(affinity(spec));
    errors.extend(cluster_addresses(spec));
    for (position, one) in list(spec, "externalIPs").iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        errors.extend(names::usable_address(
            one,
            &index("spec.externalIPs", position),
        ));
    }
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", kind, TYPES));
    }
    errors.extend(node_ports(spec, kind));
    errors.extend(same_ports(spec));
    errors.extend(balancer(spec, kind));
    errors.extend(policies(spec));
    errors
}

fn of_type(spec: &Value, kind: &str, headless: bool) -> Vec<FieldError> {
    if kind == "ExternalName" {
        return external_name(spec);
    }
    if headless && (kind == "LoadBalancer" || kind == "NodePort") {
        let words = format!("may not be set to 'None' for {kind} services");
        return vec![FieldError::invalid("spec.clusterIPs[0]", "None", words)];
    }
    Vec::new()
}

fn external_name(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !is_empty(&spec[key]) {
            let words = "may not be set for ExternalName services";
            errors.push(FieldError::forbidden(child("spec", key), words));
        }
    }
    let name = text(spec, "externalName");
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    } else {
        errors.extend(invalid("spec.externalName", bare, names::subdomain(bare)));
    }
    errors
}

fn ports(spec: &Value) -> Vec<FieldError> {
    let all = list(spec, "ports");
    let mut taken = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, one) in all.iter().enumerate() {
        let path = index("spec.ports", position);
        let name = text(one, "name");
        if name.is_empty() {
            if all.len() > 1 {
                errors.push(FieldError::required(child(&path, "name"), ""));
            }
        } else {
            errors.extend(invalid(&child(&path, "name"), name, names::label(name)));
            if !taken.insert(name) {
                errors.push(FieldError::duplicate(child(&path, "name"), name));
            }
        }
        errors.extend(port(number(one, "port"), &child(&path, "port")));
        let protocol = text(one, "protocol");
        if !PROTOCOLS.contains(&protocol) {
            let path = child(&path, "protocol");
            errors.push(FieldError::not_supported(path, protocol, PROTOCOLS));
        }
        errors.extend(port_or_name(
            &one["targetPort"],
            &child(&path, "targetPort"),
        ));
        let application = text(one, "appProtocol");
        if !application.is_empty() {
            let path = child(&path, "appProtocol");
            errors.extend(invalid(&path, application, names::qualified(application)));
        }
    }
    errors
}

fn affinity(spec: &Value) -> Vec<FieldError> {
    let choice = text(spec, "sessionAffinity");
    match choice {
        "" => vec![FieldError::required("spec.sessionAffinity", "")],
        "None" => Vec::new(),
        "ClientIP" => {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let seconds = integer(&spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds");
            match seconds {
                Some(seconds) if seconds <= 0 || seconds > LONGEST_AFFINITY_SECONDS => {
                    let words =
                        format!("must be greater than 0 and less than {LONGEST_AFFINITY_SECONDS}");
                    vec![FieldError::invalid(path, seconds, words)]
                }
                _ => Vec::new(),
            }
        }
        other => {
            let path = "spec.sessionAffinity";
            vec![FieldError::not_supported(
                path,
                other,
                &["ClientIP", "None"],
            )]
        }
    }
}

fn cluster_addresses(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (position, one) in list(spec, "clusterIPs").iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        if (position == 0 && one == "None") || names::address(one).is_some() {
            continue;
        }
        let path = index("spec.clusterIPs", position);
        errors.push(FieldError::invalid(path, one, names::IP_WORDS));
    }
    let first = list(spec, "clusterIPs").first().and_then(Value::as_str);
    let address = text(spec, "clusterIP");
    if !address.is_empty() && first.is_some_and(|first| first != address) {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            spec["clusterIPs"].clone(),
            "first value must match `clusterIP`",
        ));
    }
    errors
}

fn node_ports(spec: &Value, kind: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut taken = BTreeSet::new();
    for (position, one) in list(spec, "ports").iter().enumerate() {
        let own = number(one, "nodePort");
        if own == 0 {
            continue;
        }
        let path = child(&index("spec.ports", position), "nodePort");
        if kind == "ClusterIP" {
            let words = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(path.clone(), words));
        }
        if !taken.insert((text(one, "protocol"), own)) {
            errors.push(FieldError::duplicate(path, own));
        }
    }
    errors
}

fn same_ports(spec: &Value) -> Vec<FieldError> {
    let mut taken = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, one) in list(spec, "ports").iter().enumerate() {
        if taken.insert((text(one, "protocol"), number(one, "port"))) {
            continue;
        }
        let shown = show::structure(&[
            ("Name", "\"\"".to_string()),
            ("Protocol", show::text(one, "protocol")),
            ("AppProtocol", "null".to_string()),
            ("Port", show::number(one, "port")),
            ("TargetPort", "0".to_string()),
            ("NodePort", "0".to_string()),
        ]);
        let path = index("spec.ports", position);
        errors.push(FieldError::duplicate(path, one.clone()).showing(shown));
    }
    errors
}

fn balancer(spec: &Value, kind: &str) -> Vec<FieldError> {
    let balanced = kind == "LoadBalancer";
    let mut errors = Vec::new();
    let ranges = list(spec, "loadBalancerSourceRanges");
    let path = "spec.LoadBalancerSourceRanges";
    if !ranges.is_empty() && !balanced {
        errors.push(FieldError::forbidden(path, ONLY_BALANCED));
    }
    for (position, one) in ranges.iter().enumerate().filter(|_| balanced) {
        let one = one.as_str().unwrap_or_default();
        if names::network(one.trim()).is_none() {
            errors.push(FieldError::invalid(
                index(path, position),
                one,
                names::CIDR_WORDS,
            ));
        }
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if present(spec, key) && !balanced {
            errors.push(FieldError::forbidden(child("spec", key), ONLY_BALANCED));
        }
    }
    let class = text(spec, "loadBalancerClass");
    if !class.is_empty() {
        errors.extend(invalid(
            "spec.loadBalancerClass",
            class,
            names::qualified(class),
        ));
    }
    errors
}

fn policies(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let outside = text(spec, "externalTrafficPolicy");
    let path = "spec.externalTrafficPolicy";
    if !outside.is_empty() && !is_external(spec) {
        let words = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(path, outside, words));
    } else if !outside.is_empty() && !["Cluster", "Local"].contains(&outside) {
        errors.push(FieldError::not_supported(
            path,
            outside,
            &["Cluster", "Local"],
        ));
    }
    let inside = text(spec, "internalTrafficPolicy");
    if !inside.is_empty() && !["Cluster", "Local"].contains(&inside) {
        errors.push(FieldError::not_supported(
            "spec.internalTrafficPolicy",
            inside,
            &["Cluster", "Local"],
        ));
    }
    errors
}

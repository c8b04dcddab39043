//! What changes with a Service's type, and what stays although a client left it out.

use local_schema::FieldError;
use serde_json::{Value, json};

use super::is_external;
use crate::tree::{is_empty, list, number, remove, restore, same, text};

fn has_address(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn is_balanced(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer"
}

/// Upstream's order: what was allocated is kept, both address fields agree, what the new type cannot have is dropped.
pub fn prepare(new: &mut Value, old: &Value) {
    keep_allocated(new, old);
    agree(new, old);
    drop_with_type(new, old);
}

fn keep_allocated(new: &mut Value, old: &Value) {
    if has_address(new) && has_address(old) {
        let absent = is_empty(&new["clusterIP"]);
        if absent && is_empty(&new["clusterIPs"]) {
            restore(new, old, "clusterIP");
            restore(new, old, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if is_empty(&new[key]) {
                restore(new, old, key);
            }
        }
    }
    if has_node_ports(new) && has_node_ports(old) {
        let before: Vec<Value> = list(old, "ports").to_vec();
        for port in crate::tree::list_mut(new, "ports") {
            let key = (text(port, "protocol").to_string(), number(port, "port"));
            let known = before
                .iter()
                .find(|one| (text(one, "protocol"), number(one, "port")) == (&key.0, key.1));
            if let Some(known) = known.filter(|_| number(port, "nodePort") == 0) {
                restore(port, known, "nodePort");
            }
        }
        if is_empty(&new["healthCheckNodePort"]) && text(new, "externalTrafficPolicy") == "Local" {
            restore(new, old, "healthCheckNodePort");
        }
    }
}

/// `clusterIP` and the first of `clusterIPs` are one thing; a client may change either.
fn agree(new: &mut Value, old: &Value) {
    let address = text(new, "clusterIP").to_string();
    if address == text(old, "clusterIP") || !same(&new["clusterIPs"], &old["clusterIPs"]) {
        if !address.is_empty() && is_empty(&new["clusterIPs"]) {
            new["clusterIPs"] = json!([address]);
        }
        return;
    }
    if address.is_empty() {
        remove(new, "clusterIPs");
    } else {
        new["clusterIPs"] = json!([address]);
    }
}

fn drop_with_type(new: &mut Value, old: &Value) {
    let drop_same = |new: &mut Value, keys: &[&str]| {
        for key in keys {
            if same(&new[*key], &old[*key]) {
                remove(new, key);
            }
        }
    };
    if has_address(old) && !has_address(new) {
        drop_same(
            new,
            &[
                "clusterIP",
                "clusterIPs",
                "ipFamilies",
                "ipFamilyPolicy",
                "internalTrafficPolicy",
            ],
        );
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let before = list(old, "ports").to_vec();
        let known = |port: &Value| {
            before
                .iter()
                .any(|one| number(one, "nodePort") == number(port, "nodePort"))
        };
        for port in crate::tree::list_mut(new, "ports") {
            if known(port) {
                remove(port, "nodePort");
            }
        }
        drop_same(new, &["healthCheckNodePort"]);
    }
    if is_balanced(old) && !is_balanced(new) {
        drop_same(new, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if is_external(old) && !is_external(new) {
        drop_same(new, &["externalTrafficPolicy"]);
    }
}

/// What must not change once it is set.
pub fn check(new: &Value, old: &Value) -> Vec<FieldError> {
    const WORDS: &str = "may not change once set";
    let mut errors = Vec::new();
    if is_balanced(new)
        && is_balanced(old)
        && !same(&new["loadBalancerClass"], &old["loadBalancerClass"])
    {
        let value = new["loadBalancerClass"].clone();
        errors.push(FieldError::invalid("spec.loadBalancerClass", value, WORDS));
    }
    if !has_address(new) || !has_address(old) {
        return errors;
    }
    let first = |spec: &Value| list(spec, "clusterIPs").first().cloned();
    if let Some(before) = first(old)
        && first(new) != Some(before)
    {
        let value = new["clusterIPs"].clone();
        errors.push(FieldError::invalid("spec.clusterIPs[0]", value, WORDS));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_port_stays_until_the_type_goes() {
        let old = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30001}]});
        let mut new = json!({"type": "NodePort", "ports": [{"protocol": "TCP", "port": 80}]});
        prepare(&mut new, &old);
        assert_eq!(new["ports"][0]["nodePort"], 30001);
        assert_eq!(new["clusterIP"], "10.0.0.1");
        new["type"] = json!("ClusterIP");
        prepare(&mut new, &old);
        assert!(new["ports"][0].get("nodePort").is_none());
    }
}

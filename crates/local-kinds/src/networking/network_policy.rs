//! NetworkPolicies.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::selector;
use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules};
use crate::tree::{child, child_mut, fill, index, is_empty, list, list_mut};

/// The rules of NetworkPolicies.
pub struct NetworkPolicyRules;

impl KindRules for NetworkPolicyRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let Some(spec) = child_mut(object, "spec") else {
            return;
        };
        for direction in ["ingress", "egress"] {
            for rule in list_mut(spec, direction) {
                for port in list_mut(rule, "ports") {
                    fill(port, "protocol", "TCP");
                }
            }
        }
        if is_empty(&spec["policyTypes"]) {
            spec["policyTypes"] = if is_empty(&spec["egress"]) {
                json!(["Ingress"])
            } else {
                json!(["Ingress", "Egress"])
            };
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = selector::check(&spec["podSelector"], "spec.podSelector");
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            for (position, rule) in list(spec, direction).iter().enumerate() {
                let path = child(&index(&child("spec", direction), position), side);
                for (place, peer) in list(rule, side).iter().enumerate() {
                    let path = index(&path, place);
                    for key in ["podSelector", "namespaceSelector"] {
                        errors.extend(selector::check(&peer[key], &child(&path, key)));
                    }
                }
            }
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Pod-Selector"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = selector::display(&object["spec"]["podSelector"]);
        vec![name(object), shown.into(), age(object, now)]
    }
}

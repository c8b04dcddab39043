//! Services. Allocating addresses and ports is the registry's; here is what may be asked for.

mod cells;
mod check;
mod update;

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::print::{NAME, column, wide};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{
    child_mut, fill, fill_zero, is_empty, list_mut, number, object_mut, remove, text,
};

/// The rules of Services.
pub struct ServiceRules;

/// How long a client is sent to the same pod, with session affinity.
const AFFINITY_SECONDS: i64 = 10_800;

const COLUMNS: &[Column] = &[
    NAME,
    column("Type"),
    column("Cluster-IP"),
    column("External-IP"),
    column("Port(s)"),
    column("Age"),
    wide("Selector"),
];

impl KindRules for ServiceRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill_zero(spec, "sessionAffinity", "None");
        match text(spec, "sessionAffinity") {
            "None" => remove(spec, "sessionAffinityConfig"),
            "ClientIP" => {
                let config = object_mut(spec, "sessionAffinityConfig");
                fill(
                    object_mut(config, "clientIP"),
                    "timeoutSeconds",
                    AFFINITY_SECONDS,
                );
            }
            _ => {}
        }
        fill_zero(spec, "type", "ClusterIP");
        for port in list_mut(spec, "ports") {
            default_port(port);
        }
        let kind = text(spec, "type").to_string();
        if kind == "NodePort" || kind == "LoadBalancer" {
            fill_zero(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            fill(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            fill(spec, "allocateLoadBalancerNodePorts", true);
        }
        object_mut(object_mut(object, "status"), "loadBalancer");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        if let Some(spec) = child_mut(object, "spec") {
            let address = text(spec, "clusterIP").to_string();
            if !address.is_empty() && is_empty(&spec["clusterIPs"]) {
                spec["clusterIPs"] = json!([address]);
            }
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        update::prepare(&mut new["spec"], &old["spec"]);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check::spec(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = update::check(&new["spec"], &old["spec"]);
        errors.extend(check::spec(&new["spec"]));
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Rfc1035Label
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        let key = field.trim_start_matches("spec.");
        text(&object["spec"], key).to_string()
    }
}

fn default_port(port: &mut Value) {
    fill_zero(port, "protocol", "TCP");
    let own = number(port, "port");
    fill_zero(port, "targetPort", own);
}

/// Reachable from outside, so that the traffic policy for outside means something.
fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !is_empty(&spec["externalIPs"]),
        _ => false,
    }
}

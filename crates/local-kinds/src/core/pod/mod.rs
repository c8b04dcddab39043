//! Pods, and the pod templates inside every workload.
//!
//! A pod's spec is defaulted and checked here for both; what only holds for real pods says so.

mod affinity;
mod cells;
mod containers;
mod defaults;
mod environment;
mod ports;
mod probes;
mod quality;
mod scheduling;
mod security;
mod spec;
mod template;
mod update;
mod volumes;

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

pub use defaults::{default_claim_spec, default_spec};
pub use ports::PROTOCOLS;
pub use quality::quality_of_service;
pub use scheduling::TAINT_EFFECTS;
pub use template::{check_template, default_template};
pub use volumes::{host_path as check_host_path, nfs as check_nfs};

use crate::print::{NAME, column, wide};
use crate::rules::{Column, KindRules};
use crate::tree::{
    at, child_mut, fill, integer, list, list_mut, number, object_mut, remove, restore, same, text,
    truth,
};

/// The rules of Pods.
pub struct PodRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready"),
    column("Status"),
    column("Restarts"),
    column("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

const SELECTABLE: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

impl KindRules for PodRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        defaults::default_spec(spec);
        defaults::default_pod_only(spec);
        if let Some(status) = child_mut(object, "status") {
            defaults::agree_addresses(status);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        for container in list_mut(&mut object["spec"], "initContainers") {
            // Only `Always` is known without feature gates; upstream drops the others.
            if text(container, "restartPolicy") != "Always" {
                remove(container, "restartPolicy");
            }
        }
        let class = quality_of_service(&object["spec"]);
        let created = object["metadata"]["creationTimestamp"].clone();
        object["status"] = json!({"phase": "Pending", "qosClass": class});
        if !list(&object["spec"], "schedulingGates").is_empty() {
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": created,
            }]);
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        restore(new, old, "status");
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        restore(new, old, "spec");
        // Owners and a running deletion are not a node agent's to change.
        if let Some(metadata) = child_mut(new, "metadata") {
            restore(metadata, &old["metadata"], "ownerReferences");
        }
        let class = text(&old["status"], "qosClass");
        if !class.is_empty() && new["status"].is_object() {
            fill(&mut new["status"], "qosClass", class);
        }
    }

    fn prepare_for_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        update::keep_but(subresource, new, old);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        spec::check_new_pod(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        update::check(new, old)
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        update::check_status(new, old)
    }

    fn validate_subresource_update(
        &self,
        subresource: &str,
        new: &Value,
        old: &Value,
    ) -> Vec<FieldError> {
        update::check_subresource(subresource, new, old)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        match field {
            "spec.hostNetwork" => truth(&object["spec"], "hostNetwork").to_string(),
            // Known as a label, but upstream never fills it in.
            "status.podIPs" => String::new(),
            _ => at(object, &format!("/{}", field.replace('.', "/")))
                .as_str()
                .unwrap_or_default()
                .to_string(),
        }
    }

    fn grace_period_seconds(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        Some(grace(object, requested))
    }
}

/// A pod that no node runs, or that has finished, goes at once; a running deletion is only ever shortened.
fn grace(object: &Value, requested: Option<i64>) -> i64 {
    let spec = &object["spec"];
    let mut period = requested
        .or_else(|| integer(spec, "terminationGracePeriodSeconds"))
        .unwrap_or(0);
    let phase = text(&object["status"], "phase");
    if text(spec, "nodeName").is_empty() || phase == "Failed" || phase == "Succeeded" {
        period = 0;
    }
    if period < 0 { 1 } else { period }
}

/// Whether two pod specs say the same.
fn same_spec(new: &Value, old: &Value) -> bool {
    same(new, old)
}

/// The grace period that lifecycle hooks are measured against.
fn termination_grace_seconds(spec: &Value) -> i64 {
    number(spec, "terminationGracePeriodSeconds")
}

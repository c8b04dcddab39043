//! HorizontalPodAutoscalers, stored as `autoscaling/v2` and shown as `v1` too.

mod cells;
mod check;
mod v1;

use jiff::Timestamp;
use local_schema::{FieldError, Quantity};
use serde_json::{Value, json};

use crate::print::{NAME, column};
use crate::rules::{Column, KindRules};
use crate::tree::{child_mut, fill, is_empty, list, list_mut, object_mut, remove};

/// The rules of HorizontalPodAutoscalers.
pub struct AutoscalerRules;

/// Without metrics, an autoscaler follows the CPU to this share of the requests.
const DEFAULT_CPU_PERCENT: i64 = 80;

const COLUMNS: &[Column] = &[
    NAME,
    column("Reference"),
    column("Targets"),
    column("MinPods"),
    column("MaxPods"),
    column("Replicas"),
    column("Age"),
];

/// Where each metric type keeps its fields.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn default_metrics() -> Value {
    json!([{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": DEFAULT_CPU_PERCENT},
    }}])
}

impl KindRules for AutoscalerRules {
    fn default(&self, version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill(spec, "minReplicas", 1);
        if version == "v1" {
            v1::default(object);
            return;
        }
        if list(spec, "metrics").is_empty() {
            spec["metrics"] = default_metrics();
        }
        for metric in list_mut(spec, "metrics") {
            canonical_target(metric);
        }
        if let Some(behavior) = child_mut(spec, "behavior") {
            default_behavior(behavior);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
        drop_gated(object);
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value) {
        drop_gated(new);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check::spec(&object["spec"])
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check::status(&new["status"])
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }

    fn to_storage(&self, version: &str, object: &mut Value) {
        if version == "v1" {
            v1::to_storage(object);
        }
    }

    fn to_version(&self, version: &str, object: &mut Value) {
        if version == "v1" {
            v1::from_storage(object);
        }
    }
}

/// Tolerances are kept as from 1.35 on; one that is none is dropped, as by 1.34, which keeps them behind a gate.
fn drop_gated(object: &mut Value) {
    for direction in ["scaleUp", "scaleDown"] {
        let Some(rules) = object.pointer_mut(&format!("/spec/behavior/{direction}")) else {
            continue;
        };
        let tolerance = Quantity::from_value(&rules["tolerance"]);
        if tolerance.map_or(true, |tolerance| tolerance.to_string().starts_with('-')) {
            remove(rules, "tolerance");
        }
    }
}

fn canonical_target(metric: &mut Value) {
    for (_, key) in SOURCES {
        let Some(target) = metric.get_mut(key).and_then(|one| one.get_mut("target")) else {
            continue;
        };
        for key in ["value", "averageValue"] {
            if let Some(value) = target.get(key).filter(|value| !value.is_null())
                && let Ok(quantity) = Quantity::from_value(value)
            {
                target[key] = quantity.to_string().into();
            }
        }
    }
}

fn default_behavior(behavior: &mut Value) {
    let up = object_mut(behavior, "scaleUp");
    fill(up, "stabilizationWindowSeconds", 0);
    fill(up, "selectPolicy", "Max");
    fill(
        up,
        "policies",
        json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]),
    );
    let down = object_mut(behavior, "scaleDown");
    fill(down, "selectPolicy", "Max");
    fill(
        down,
        "policies",
        json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
}

/// True for the metric that `v1` knows by itself: the CPU's share of the requests.
fn is_cpu_share(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && !is_empty(&metric["resource"]["target"]["averageUtilization"])
}

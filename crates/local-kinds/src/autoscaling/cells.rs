//! The row of an autoscaler in a table, above all its TARGETS.

use jiff::Timestamp;
use serde_json::Value;

use crate::check::resources::quantity;
use crate::print::{NONE, UNKNOWN, age, name};
use crate::tree::{integer, list, number, present, text};

/// A table shows so many metrics.
const SHOWN: usize = 2;

/// One row.
pub fn cells(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&autoscaler["spec"], &autoscaler["status"]);
    let reference = &spec["scaleTargetRef"];
    let least = match integer(spec, "minReplicas") {
        Some(least) => least.to_string(),
        None => "<unset>".to_string(),
    };
    vec![
        name(autoscaler),
        format!("{}/{}", text(reference, "kind"), text(reference, "name")).into(),
        targets(spec, status).into(),
        least.into(),
        number(spec, "maxReplicas").into(),
        number(status, "currentReplicas").into(),
        age(autoscaler, now),
    ]
}

fn targets(spec: &Value, status: &Value) -> String {
    let metrics = list(spec, "metrics");
    if metrics.is_empty() {
        return NONE.to_string();
    }
    let statuses = list(status, "currentMetrics");
    let shown: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .filter_map(|(position, metric)| {
            target(metric, statuses.get(position).unwrap_or(&Value::Null))
        })
        .collect();
    let shown = shown.join(", ");
    if metrics.len() > SHOWN {
        format!("{shown} + {} more...", metrics.len() - SHOWN)
    } else {
        shown
    }
}

fn target(metric: &Value, status: &Value) -> Option<String> {
    match text(metric, "type") {
        "External" => Some(value_or_average(metric, status, "external")),
        "Object" => Some(value_or_average(metric, status, "object")),
        "Pods" => Some(format!(
            "{}/{}",
            current(status, "pods", "averageValue"),
            wanted(metric, "pods", "averageValue")
        )),
        "Resource" => Some(resource(metric, status, "resource")),
        "ContainerResource" => Some(resource(metric, status, "containerResource")),
        _ => None,
    }
}

fn value_or_average(metric: &Value, status: &Value, key: &str) -> String {
    if present(&metric[key]["target"], "averageValue") {
        format!(
            "{}/{} (avg)",
            current(status, key, "averageValue"),
            wanted(metric, key, "averageValue")
        )
    } else {
        format!(
            "{}/{}",
            current(status, key, "value"),
            wanted(metric, key, "value")
        )
    }
}

fn resource(metric: &Value, status: &Value, key: &str) -> String {
    let name = text(&metric[key], "name");
    if present(&metric[key]["target"], "averageValue") {
        return format!(
            "{name}: {}/{}",
            current(status, key, "averageValue"),
            wanted(metric, key, "averageValue")
        );
    }
    let share = |own: Option<i64>, none: &str| match own {
        Some(share) => format!("{share}%"),
        None => none.to_string(),
    };
    format!(
        "{name}: {}/{}",
        share(
            integer(&status[key]["current"], "averageUtilization"),
            UNKNOWN
        ),
        share(
            integer(&metric[key]["target"], "averageUtilization"),
            "<auto>"
        )
    )
}

fn wanted(metric: &Value, key: &str, field: &str) -> String {
    quantity(&metric[key]["target"][field]).to_string()
}

fn current(status: &Value, key: &str, field: &str) -> String {
    match &status[key]["current"][field] {
        Value::Null => UNKNOWN.to_string(),
        value => quantity(value).to_string(),
    }
}

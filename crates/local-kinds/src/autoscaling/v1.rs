//! `autoscaling/v1`: one CPU target, everything else in annotations that survive the round trip.

use serde_json::{Map, Value, json};

use super::{SOURCES, default_metrics, is_cpu_share};
use crate::check::show;
use crate::tree::{integer, is_empty, list, object_mut, present, remove, text};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const SHARE: &str = "targetCPUUtilizationPercentage";
const CURRENT_SHARE: &str = "currentCPUUtilizationPercentage";

/// The old names of a source's fields: in the old form a target or status is flat.
struct Names {
    utilization: &'static str,
    average: &'static str,
    value: &'static str,
}

const TARGET: Names = Names {
    utilization: "targetAverageUtilization",
    average: "targetAverageValue",
    value: "targetValue",
};
const CURRENT: Names = Names {
    utilization: "currentAverageUtilization",
    average: "currentAverageValue",
    value: "currentValue",
};

/// Without any metric the CPU share has its default, as in the stored version.
pub fn default(object: &mut Value) {
    let has_others = object["metadata"]["annotations"].get(METRICS).is_some();
    let spec = object_mut(object, "spec");
    if !has_others && integer(spec, SHARE).is_none() {
        spec[SHARE] = super::DEFAULT_CPU_PERCENT.into();
    }
}

/// From `v1` to the stored `v2`.
pub fn to_storage(object: &mut Value) {
    let spec = object_mut(object, "spec");
    let share = integer(spec, SHARE);
    remove(spec, SHARE);
    let mut metrics = parse_list(take_annotation(object, METRICS), "target", &TARGET);
    if let Some(share) = share {
        metrics.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": share},
        }}));
    }
    object["spec"]["metrics"] = match metrics.is_empty() {
        true => default_metrics(),
        false => metrics.into(),
    };
    if let Some(behavior) = take_annotation(object, BEHAVIOR) {
        object["spec"]["behavior"] = renamed_keys(&behavior, false);
    }
    let current = parse_list(
        take_annotation(object, CURRENT_METRICS),
        "current",
        &CURRENT,
    );
    let conditions = take_annotation(object, CONDITIONS);
    if !object["status"].is_object() {
        return;
    }
    let status = object_mut(object, "status");
    let share = integer(status, CURRENT_SHARE);
    remove(status, CURRENT_SHARE);
    if !current.is_empty() {
        status["currentMetrics"] = current.into();
    } else if let Some(share) = share {
        status["currentMetrics"] = json!([{"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": share},
        }}]);
    }
    if let Some(conditions) = conditions {
        status["conditions"] = conditions;
    }
}

/// From the stored `v2` to `v1`.
pub fn from_storage(object: &mut Value) {
    let spec = object_mut(object, "spec");
    let metrics = list(spec, "metrics").to_vec();
    let behavior = spec["behavior"].clone();
    remove(spec, "metrics");
    remove(spec, "behavior");
    if let Some(cpu) = metrics.iter().find(|one| is_cpu_share(one)) {
        spec[SHARE] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    let others: Vec<String> = metrics
        .iter()
        .filter(|one| !is_cpu_share(one))
        .map(|one| old_metric(one, "target", &TARGET))
        .collect();
    if !others.is_empty() {
        annotate(object, METRICS, format!("[{}]", others.join(",")));
    }
    if !behavior.is_null() {
        annotate(object, BEHAVIOR, old_behavior(&behavior));
    }
    if object["status"].is_object() {
        status_from_storage(object);
    }
}

fn status_from_storage(object: &mut Value) {
    let status = object_mut(object, "status");
    let current = list(status, "currentMetrics").to_vec();
    let conditions = list(status, "conditions").to_vec();
    remove(status, "currentMetrics");
    remove(status, "conditions");
    let share = current
        .iter()
        .find(|one| one["type"] == "Resource" && one["resource"]["name"] == "cpu")
        .and_then(|one| integer(&one["resource"]["current"], "averageUtilization"));
    if let Some(share) = share {
        status[CURRENT_SHARE] = share.into();
    }
    if !current.is_empty() {
        let all: Vec<String> = current
            .iter()
            .map(|one| old_metric(one, "current", &CURRENT))
            .collect();
        annotate(object, CURRENT_METRICS, format!("[{}]", all.join(",")));
    }
    if !conditions.is_empty() {
        let keys = ["type", "status", "lastTransitionTime", "reason", "message"];
        let all: Vec<String> = conditions.iter().map(|one| fields(one, &keys)).collect();
        annotate(object, CONDITIONS, format!("[{}]", all.join(",")));
    }
}

fn annotate(object: &mut Value, key: &str, text: String) {
    object_mut(object_mut(object, "metadata"), "annotations")[key] = text.into();
}

/// Removes an annotation; one that is no JSON is lost, as upstream loses it.
fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let text = annotations.as_object_mut()?.remove(key)?;
    if is_empty(annotations) {
        remove(&mut object["metadata"], "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

/// The fields that are there, as JSON in the given order.
fn fields(tree: &Value, keys: &[&str]) -> String {
    let given: Vec<show::Field<'_>> = keys
        .iter()
        .filter(|key| present(tree, key))
        .map(|key| (*key, tree[*key].to_string()))
        .collect();
    show::structure(&given)
}

/// `v2`'s `{type, x: {…, target}}` as text in the old flat form, with fields in the order of the old Go types.
fn old_metric(metric: &Value, side: &str, names: &Names) -> String {
    let kind = text(metric, "type");
    let Some((_, key)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return show::structure(&[("type", json!(kind).to_string())]);
    };
    let source = &metric[*key];
    let own = &source[side];
    let mut out: Vec<show::Field<'_>> = Vec::new();
    let mut push = |name: &'static str, value: &Value| {
        if !value.is_null() {
            out.push((name, value.to_string()));
        }
    };
    match *key {
        "object" => {
            let described = fields(&source["describedObject"], &["kind", "name", "apiVersion"]);
            out.push(("target", described));
            out.push(("metricName", source["metric"]["name"].to_string()));
            // Not optional in the old form.
            let value = match &own["value"] {
                Value::Null => json!("0"),
                value => value.clone(),
            };
            out.push((names.value, value.to_string()));
            for (name, value) in [
                ("selector", &source["metric"]["selector"]),
                ("averageValue", &own["averageValue"]),
            ] {
                if !value.is_null() {
                    out.push((name, value.to_string()));
                }
            }
        }
        "pods" => {
            push("metricName", &source["metric"]["name"]);
            push(names.average, &own["averageValue"]);
            push("selector", &source["metric"]["selector"]);
        }
        "external" => {
            push("metricName", &source["metric"]["name"]);
            push("metricSelector", &source["metric"]["selector"]);
            let is_current = side == "current";
            let zero = json!("0");
            let value = match &own["value"] {
                Value::Null if is_current => &zero,
                value => value,
            };
            push(names.value, value);
            push(names.average, &own["averageValue"]);
        }
        _ => {
            push("name", &source["name"]);
            push(names.utilization, &own["averageUtilization"]);
            push(names.average, &own["averageValue"]);
            push("container", &source["container"]);
        }
    }
    show::structure(&[
        ("type", json!(kind).to_string()),
        (key, show::structure(&out)),
    ])
}

fn parse_list(parsed: Option<Value>, side: &str, names: &Names) -> Vec<Value> {
    let Some(Value::Array(metrics)) = parsed else {
        return Vec::new();
    };
    metrics
        .iter()
        .filter_map(|one| new_metric(one, side, names))
        .collect()
}

/// The old flat form as `v2`.
fn new_metric(metric: &Value, side: &str, names: &Names) -> Option<Value> {
    let kind = text(metric, "type");
    let (_, key) = SOURCES.iter().find(|(name, _)| *name == kind)?;
    let source = &metric[*key];
    let average = match *key {
        "object" => &source["averageValue"],
        _ => &source[names.average],
    };
    let share = &source[names.utilization];
    let mut value = &source[names.value];
    // The old form always has a value here, which means nothing next to an average.
    if (*key == "object" || side == "current") && !average.is_null() {
        value = &Value::Null;
    }
    let mut own = Map::new();
    if side == "target" {
        let kind = match (share.is_null(), value.is_null()) {
            (false, _) => "Utilization",
            (true, false) => "Value",
            (true, true) => "AverageValue",
        };
        own.insert("type".into(), kind.into());
    }
    for (name, value) in [
        ("averageUtilization", share),
        ("averageValue", average),
        ("value", value),
    ] {
        if !value.is_null() {
            own.insert(name.into(), value.clone());
        }
    }
    let mut out = Map::new();
    out.insert(side.into(), own.into());
    if present(source, "metricName") {
        let mut identifier = json!({"name": source["metricName"]});
        let selector = match *key {
            "external" => &source["metricSelector"],
            _ => &source["selector"],
        };
        if !selector.is_null() {
            identifier["selector"] = selector.clone();
        }
        out.insert("metric".into(), identifier);
    }
    if *key == "object" {
        out.insert("describedObject".into(), source["target"].clone());
    }
    for name in ["name", "container"] {
        if present(source, name) {
            out.insert(name.into(), source[name].clone());
        }
    }
    Some(json!({"type": kind, (*key): out}))
}

/// Upstream writes its internal names here: capitals, and every field.
fn old_behavior(behavior: &Value) -> String {
    let rules = |rules: &Value| {
        let policies: Vec<String> = list(rules, "policies")
            .iter()
            .map(|one| {
                show::structure(&[
                    ("Type", show::text(one, "type")),
                    ("Value", show::number(one, "value")),
                    ("PeriodSeconds", show::number(one, "periodSeconds")),
                ])
            })
            .collect();
        show::structure(&[
            (
                "StabilizationWindowSeconds",
                show::pointer(rules, "stabilizationWindowSeconds"),
            ),
            ("SelectPolicy", show::pointer(rules, "selectPolicy")),
            ("Policies", format!("[{}]", policies.join(","))),
            ("Tolerance", show::pointer(rules, "tolerance")),
        ])
    };
    show::structure(&[
        ("ScaleUp", show::nested(behavior, "scaleUp", rules)),
        ("ScaleDown", show::nested(behavior, "scaleDown", rules)),
    ])
}

/// Changes the case of every key's first letter.
fn renamed_keys(tree: &Value, capital: bool) -> Value {
    match tree {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| {
                let mut letters = key.chars();
                let first = letters.next().map_or(String::new(), |one| {
                    if capital {
                        one.to_uppercase().to_string()
                    } else {
                        one.to_lowercase().to_string()
                    }
                });
                (first + letters.as_str(), renamed_keys(value, capital))
            })
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(items) => items.iter().map(|one| renamed_keys(one, capital)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_CPU_PERCENT;
    use super::*;

    fn round_trip(v2: Value) -> Value {
        let mut object = v2;
        from_storage(&mut object);
        to_storage(&mut object);
        object
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let v2 = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 9, "metrics": [
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "500Mi"}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "1500m"}}},
            {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Service", "name": "s"},
                "target": {"type": "Value", "value": "2k"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}],
            "behavior": {"scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}}});
        assert_eq!(round_trip(v2.clone()), v2);
    }

    #[test]
    fn v1_without_a_target_follows_the_cpu() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3}});
        to_storage(&mut object);
        let share = &object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
        assert_eq!(share, &json!(DEFAULT_CPU_PERCENT));
    }
}

//! Answers as clients expect them, version by version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::{CUSTOM, CustomVersion, EXTERNAL};
use crate::adapter::{GroupResource, KindRow};
use crate::pushed::{PUSHED, PUSHED_RESOURCE, PUSHED_VERSION};
use crate::selector::Selector;
use crate::value::quantity;

/// A value of one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectValue {
    pub(crate) name: String,
    pub(crate) millis: i64,
    pub(crate) at: Timestamp,
}

/// A value of one external series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeriesValue {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) millis: i64,
    pub(crate) at: Timestamp,
}

/// What all values of an answer have in common.
pub(crate) struct Described<'a> {
    pub(crate) kind: &'a KindRow,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) metric: &'a str,
    pub(crate) selector: &'a Selector,
    pub(crate) window_seconds: Option<u64>,
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A `MetricValueList`.
pub(crate) fn custom_values(
    version: CustomVersion,
    common: &Described<'_>,
    values: &[ObjectValue],
) -> Value {
    let items: Vec<Value> = values
        .iter()
        .map(|value| custom_value(version, common, value))
        .collect();
    json!({
        "kind": "MetricValueList", "apiVersion": format!("{CUSTOM}/{}", version.name()),
        "metadata": {}, "items": items
    })
}

fn custom_value(version: CustomVersion, common: &Described<'_>, value: &ObjectValue) -> Value {
    let mut object = json!({"kind": common.kind.kind, "name": value.name, "apiVersion": common.kind.api_version()});
    if let Some(namespace) = common.namespace {
        object["namespace"] = json!(namespace);
    }
    let mut item = json!({
        "describedObject": object, "timestamp": time(value.at), "value": quantity(value.millis)
    });
    let window = match version {
        CustomVersion::V1Beta1 => {
            item["metricName"] = json!(common.metric);
            item["selector"] = common.selector.object();
            "window"
        }
        CustomVersion::V1Beta2 => {
            item["metric"] = json!({"name": common.metric, "selector": common.selector.object()});
            "windowSeconds"
        }
    };
    if let Some(seconds) = common.window_seconds {
        item[window] = json!(seconds);
    }
    item
}

/// An `ExternalMetricValueList`.
pub(crate) fn external_values(
    metric: &str,
    window_seconds: Option<u64>,
    values: &[SeriesValue],
) -> Value {
    let items = values.iter().map(|value| {
        let mut item = json!({
            "metricName": metric, "metricLabels": value.labels,
            "timestamp": time(value.at), "value": quantity(value.millis)
        });
        if let Some(seconds) = window_seconds {
            item["window"] = json!(seconds);
        }
        item
    });
    let items: Vec<Value> = items.collect();
    json!({
        "kind": "ExternalMetricValueList", "apiVersion": format!("{EXTERNAL}/v1beta1"),
        "metadata": {}, "items": items
    })
}

/// The discovery list of a version of the custom metrics API; `metrics` are ordered.
pub(crate) fn custom_resources<'a>(
    version: CustomVersion,
    metrics: impl Iterator<Item = (&'a GroupResource, &'a str, bool)>,
) -> Value {
    let entry = |(resource, metric, namespaced): (&GroupResource, &str, bool)| {
        entry(
            &format!("{resource}/{metric}"),
            namespaced,
            "MetricValueList",
        )
    };
    resources(
        &format!("{CUSTOM}/{}", version.name()),
        metrics.map(entry).collect(),
    )
}

/// The discovery list of the external metrics API.
pub(crate) fn external_resources<'a>(metrics: impl Iterator<Item = &'a str>) -> Value {
    let entries = metrics.map(|metric| entry(metric, true, "ExternalMetricValueList"));
    resources(&format!("{EXTERNAL}/v1beta1"), entries.collect())
}

/// The discovery list of the API that metrics are pushed to.
pub(crate) fn pushed_resources() -> Value {
    let entry = json!({"name": PUSHED_RESOURCE, "singularName": "pushedmetric", "namespaced": true,
        "kind": "PushedMetric", "verbs": ["create"]});
    resources(&format!("{PUSHED}/{PUSHED_VERSION}"), vec![entry])
}

fn entry(name: &str, namespaced: bool, kind: &str) -> Value {
    json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]})
}

fn resources(group_version: &str, entries: Vec<Value>) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries})
}

/// An `APIGroup`.
pub(crate) fn group(name: &str) -> Value {
    let version =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions = match name {
        CUSTOM => vec![version("v1beta2"), version("v1beta1")],
        PUSHED => vec![version(PUSHED_VERSION)],
        _ => vec![version("v1beta1")],
    };
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "preferredVersion": versions[0], "versions": versions
    })
}

/// An `APIGroupList`.
pub(crate) fn groups() -> Value {
    let groups = [group(CUSTOM), group(EXTERNAL), group(PUSHED)];
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> KindRow {
        KindRow {
            group: String::new(),
            version: "v1".into(),
            kind: "Service".into(),
            plural: "services".into(),
            namespaced: true,
        }
    }

    #[test]
    fn both_versions_of_a_value_have_their_own_fields() {
        let (kind, selector) = (service(), Selector::parse("code=200").unwrap());
        let common = Described {
            kind: &kind,
            namespace: Some("shop"),
            metric: "hits",
            selector: &selector,
            window_seconds: Some(30),
        };
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let values = [ObjectValue {
            name: "web".into(),
            millis: 1_500,
            at,
        }];
        let object =
            json!({"kind": "Service", "namespace": "shop", "name": "web", "apiVersion": "v1"});
        let selector = json!({"matchLabels": {"code": "200"}});
        let older = custom_values(CustomVersion::V1Beta1, &common, &values);
        assert_eq!(
            older["items"][0],
            json!({"describedObject": object, "metricName": "hits", "timestamp": "2023-11-14T22:13:20Z",
                "value": "1500m", "window": 30, "selector": selector})
        );
        let newer = custom_values(CustomVersion::V1Beta2, &common, &values);
        assert_eq!(
            newer["items"][0],
            json!({"describedObject": object, "metric": {"name": "hits", "selector": selector},
                "timestamp": "2023-11-14T22:13:20Z", "value": "1500m", "windowSeconds": 30})
        );
        assert_eq!(newer["apiVersion"], "custom.metrics.k8s.io/v1beta2");
    }

    #[test]
    fn the_list_of_the_walk_is_exactly_this() {
        let (namespaces, services) = (
            GroupResource::parse("namespaces"),
            GroupResource::parse("services"),
        );
        let metrics = [
            (&namespaces, "active_devices", false),
            (&services, "active_devices", true),
        ];
        let expected = json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "custom.metrics.k8s.io/v1beta1",
            "resources": [
                {"name": "namespaces/active_devices", "singularName": "", "namespaced": false, "kind": "MetricValueList", "verbs": ["get"]},
                {"name": "services/active_devices", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]}
            ]
        });
        assert_eq!(
            custom_resources(CustomVersion::V1Beta1, metrics.into_iter()),
            expected
        );
    }
}

//! Answers as clients expect them, version by version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::path::{CUSTOM, CustomVersion, EXTERNAL};
use crate::adapter::{GroupResource, KindRow};
use crate::pushed::{PUSHED, PUSHED_RESOURCE, PUSHED_VERSION};
use crate::selector::Selector;
use crate::serve::Content;
use crate::value::Quantity;

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

/// Values of one answer were mostly read at the same moment, so each second is written once.
fn seconds<'v>(all: impl Iterator<Item = &'v Timestamp>) -> BTreeMap<i64, String> {
    let mut texts = BTreeMap::new();
    for at in all {
        let text = || at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        texts.entry(at.as_second()).or_insert_with(text);
    }
    texts
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<T> {
    kind: &'static str,
    api_version: String,
    metadata: Empty,
    items: Vec<T>,
}

#[derive(Serialize)]
struct Empty {}

impl<T: Serialize> List<T> {
    fn written(&self) -> Content {
        let text = serde_json::to_vec(self);
        Content::Written(text.expect("names, numbers and texts can always be written as JSON"))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CustomValue<'a> {
    described_object: DescribedObject<'a>,
    timestamp: &'a str,
    value: Quantity,
    #[serde(flatten)]
    metric: MetricOf<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescribedObject<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    api_version: &'a str,
}

/// Here the versions differ.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum MetricOf<'a> {
    #[serde(rename_all = "camelCase")]
    V1Beta1 {
        metric_name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        window: Option<u64>,
        selector: &'a Value,
    },
    #[serde(rename_all = "camelCase")]
    V1Beta2 {
        metric: MetricIdentifier<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        window_seconds: Option<u64>,
    },
}

#[derive(Clone, Copy, Serialize)]
struct MetricIdentifier<'a> {
    name: &'a str,
    selector: &'a Value,
}

/// A `MetricValueList`.
pub(crate) fn custom_values(
    version: CustomVersion,
    common: &Described<'_>,
    values: &[ObjectValue],
) -> Content {
    let (selector, kind_version) = (common.selector.object(), common.kind.api_version());
    let texts = seconds(values.iter().map(|value| &value.at));
    let metric = match version {
        CustomVersion::V1Beta1 => MetricOf::V1Beta1 {
            metric_name: common.metric,
            window: common.window_seconds,
            selector: &selector,
        },
        CustomVersion::V1Beta2 => MetricOf::V1Beta2 {
            metric: MetricIdentifier {
                name: common.metric,
                selector: &selector,
            },
            window_seconds: common.window_seconds,
        },
    };
    let items = values.iter().map(|value| CustomValue {
        described_object: DescribedObject {
            kind: &common.kind.kind,
            namespace: common.namespace,
            name: &value.name,
            api_version: &kind_version,
        },
        timestamp: &texts[&value.at.as_second()],
        value: Quantity(value.millis),
        metric,
    });
    let list = List {
        kind: "MetricValueList",
        api_version: format!("{CUSTOM}/{}", version.name()),
        metadata: Empty {},
        items: items.collect(),
    };
    list.written()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalValue<'a> {
    metric_name: &'a str,
    metric_labels: &'a BTreeMap<String, String>,
    timestamp: &'a str,
    value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
}

/// An `ExternalMetricValueList`.
pub(crate) fn external_values(
    metric: &str,
    window_seconds: Option<u64>,
    values: &[SeriesValue],
) -> Content {
    let texts = seconds(values.iter().map(|value| &value.at));
    let items = values.iter().map(|value| ExternalValue {
        metric_name: metric,
        metric_labels: &value.labels,
        timestamp: &texts[&value.at.as_second()],
        value: Quantity(value.millis),
        window: window_seconds,
    });
    let list = List {
        kind: "ExternalMetricValueList",
        api_version: format!("{EXTERNAL}/v1beta1"),
        metadata: Empty {},
        items: items.collect(),
    };
    list.written()
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

    fn read(content: Content) -> Value {
        match content {
            Content::Written(text) => serde_json::from_slice(&text).unwrap(),
            Content::Tree(tree) => tree,
        }
    }

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
        let older = read(custom_values(CustomVersion::V1Beta1, &common, &values));
        assert_eq!(
            older["items"][0],
            json!({"describedObject": object, "metricName": "hits", "timestamp": "2023-11-14T22:13:20Z",
                "value": "1500m", "window": 30, "selector": selector})
        );
        let newer = read(custom_values(CustomVersion::V1Beta2, &common, &values));
        assert_eq!(
            newer["items"][0],
            json!({"describedObject": object, "metric": {"name": "hits", "selector": selector},
                "timestamp": "2023-11-14T22:13:20Z", "value": "1500m", "windowSeconds": 30})
        );
        assert_eq!(newer["apiVersion"], "custom.metrics.k8s.io/v1beta2");
        assert_eq!(
            (&newer["kind"], &newer["metadata"]),
            (&json!("MetricValueList"), &json!({}))
        );
    }

    #[test]
    fn what_is_not_set_is_left_out_but_the_selector_is_null() {
        let mut kind = service();
        kind.namespaced = false;
        let common = Described {
            kind: &kind,
            namespace: None,
            metric: "hits",
            selector: &Selector::default(),
            window_seconds: None,
        };
        let values = [ObjectValue {
            name: "web".into(),
            millis: 2_000,
            at: Timestamp::UNIX_EPOCH,
        }];
        let object = json!({"kind": "Service", "name": "web", "apiVersion": "v1"});
        let older = read(custom_values(CustomVersion::V1Beta1, &common, &values));
        assert_eq!(
            older["items"][0],
            json!({"describedObject": object, "metricName": "hits", "timestamp": "1970-01-01T00:00:00Z",
                "value": "2", "selector": null})
        );
        let newer = read(custom_values(CustomVersion::V1Beta2, &common, &values));
        assert_eq!(
            newer["items"][0]["metric"],
            json!({"name": "hits", "selector": null})
        );
        assert!(newer["items"][0].get("windowSeconds").is_none());
    }

    #[test]
    fn external_values_keep_their_labels_and_each_its_time() {
        let value = |second| SeriesValue {
            labels: BTreeMap::from([("queue".to_owned(), "a\"b".to_owned())]),
            millis: 1,
            at: Timestamp::from_second(second).unwrap(),
        };
        let list = read(external_values(
            "depth",
            Some(60),
            &[value(0), value(90), value(0)],
        ));
        assert_eq!(list["kind"], "ExternalMetricValueList");
        assert_eq!(list["apiVersion"], "external.metrics.k8s.io/v1beta1");
        assert_eq!(
            list["items"][1],
            json!({"metricName": "depth", "metricLabels": {"queue": "a\"b"}, "timestamp": "1970-01-01T00:01:30Z",
                "value": "1m", "window": 60})
        );
        assert_eq!(list["items"][2]["timestamp"], "1970-01-01T00:00:00Z");
        let none = read(external_values("depth", None, &[]));
        assert_eq!(none["items"], json!([]));
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

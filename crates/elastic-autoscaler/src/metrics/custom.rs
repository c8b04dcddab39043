//! `custom.metrics.k8s.io`, in the newer of the versions that the cluster has.

use std::sync::Arc;
use std::time::Duration;

use elastic_core::horizontal_pod_autoscaler::{Sample, Samples};
use elastic_core::label_query::LabelQuery;
use elastic_core::quantity::millis;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, ObjectMetricSource};
use kube::Client;
use serde::Deserialize;

use super::Asked;
use crate::api::{escape, get};
use crate::kinds::Kinds;
use crate::shared::Shared;

const GROUP: &str = "custom.metrics.k8s.io";
/// The versions that are understood, the best first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// How long the version that was found is used without another look.
const VERSION_FRESHNESS: Duration = Duration::from_secs(30);
/// What a value without a window is averaged over.
const WINDOW_DEFAULT: SignedDuration = SignedDuration::from_secs(60);

#[derive(Deserialize)]
struct MetricValueList {
    #[serde(default)]
    items: Vec<MetricValue>,
}

/// A value in either version; the older one calls its window differently.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Described,
    timestamp: Timestamp,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

type Values = Arc<Vec<(String, Sample)>>;

pub(super) struct CustomMetrics {
    version: Shared<&'static str, String>,
    answers: Shared<Values, String>,
}

impl CustomMetrics {
    pub(super) fn new(freshness: Duration) -> Self {
        CustomMetrics {
            version: Shared::new(VERSION_FRESHNESS),
            answers: Shared::new(freshness),
        }
    }

    /// A metric of each pod that the target's selector matches.
    pub(super) async fn of_pods(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        metric: &MetricIdentifier,
    ) -> Result<Samples, String> {
        let namespace = asked.namespace;
        let path = format!(
            "namespaces/{namespace}/pods/{}/{}",
            escape("*"),
            escape(&metric.name)
        );
        let mut query = Vec::new();
        if !asked.query.is_everything() {
            query.push(("labelSelector", asked.query.to_string()));
        }
        let values = self.values(client, &path, query, metric).await?;
        if values.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        Ok(values.iter().cloned().collect())
    }

    /// A metric of one object. That of a namespace is always that of the autoscaler's own.
    pub(super) async fn of_object(
        &self,
        client: &Client,
        kinds: &Kinds,
        namespace: &str,
        source: &ObjectMetricSource,
    ) -> Result<i64, String> {
        let (object, metric) = (&source.described_object, &source.metric);
        let api_version = object.api_version.as_deref().unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let name = escape(&metric.name);
        let path = if (group, object.kind.as_str()) == ("", "Namespace") {
            format!("namespaces/{namespace}/metrics/{name}")
        } else {
            let place = kinds.find(client, group, &object.kind).await;
            let place = place.map_err(|error| {
                unfetched(&format!(
                    "unable to map kind {} to resource: {error}",
                    object.kind
                ))
            })?;
            let (resource, object) = (place.resource(), escape(&object.name));
            format!("namespaces/{namespace}/{resource}/{object}/{name}")
        };
        let values = self.values(client, &path, Vec::new(), metric).await?;
        match values.as_slice() {
            [(_, sample)] => Ok(sample.milli),
            others => Err(unfetched(&format!(
                "the custom metrics API server returned {} results when we asked for exactly one",
                others.len()
            ))),
        }
    }

    async fn values(
        &self,
        client: &Client,
        path: &str,
        mut query: Vec<(&str, String)>,
        metric: &MetricIdentifier,
    ) -> Result<Values, String> {
        let selector = LabelQuery::from_selector(metric.selector.as_ref())?;
        if !selector.is_everything() {
            query.push(("metricLabelSelector", selector.to_string()));
        }
        let version = self.version.get(GROUP, || find_version(client)).await;
        let version = version.map_err(|error| {
            self.version.forget(GROUP);
            unfetched(&error)
        })?;
        let query: Vec<String> = query
            .into_iter()
            .map(|(key, value)| format!("{key}={}", escape(&value)))
            .collect();
        let sign = if query.is_empty() { "" } else { "?" };
        let path = format!("/apis/{GROUP}/{version}/{path}{sign}{}", query.join("&"));
        let what = format!("{}.{GROUP}", metric.name);
        self.answers
            .get(&path, || fetch(client, &path, &what))
            .await
    }
}

fn unfetched(error: &str) -> String {
    format!("unable to fetch metrics from custom metrics API: {error}")
}

async fn fetch(client: &Client, path: &str, what: &str) -> Result<Values, String> {
    let list: MetricValueList = get(client, path, what)
        .await
        .map_err(|error| unfetched(&error.message))?;
    let rows = list.items.into_iter().map(|item| {
        let milli = millis(&item.value).map_err(|error| unfetched(&error.to_string()))?;
        let window = item.window_seconds.map(SignedDuration::from_secs);
        let sample = Sample {
            milli,
            timestamp: item.timestamp,
            window: window.unwrap_or(WINDOW_DEFAULT),
        };
        Ok((item.described_object.name, sample))
    });
    rows.collect::<Result<_, String>>().map(Arc::new)
}

async fn find_version(client: &Client) -> Result<&'static str, String> {
    let unregistered = || format!("no custom metrics API ({GROUP}) registered");
    let group: Group = get(client, &format!("/apis/{GROUP}"), "apigroups")
        .await
        .map_err(|error| match error.code {
            Some(404) => unregistered(),
            _ => error.message,
        })?;
    let is_served = |version: &&str| group.versions.iter().any(|one| one.version == *version);
    VERSIONS
        .into_iter()
        .find(is_served)
        .ok_or_else(unregistered)
}

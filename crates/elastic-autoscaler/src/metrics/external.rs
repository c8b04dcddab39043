//! `external.metrics.k8s.io`: the sum of all series that a selector matches.

use std::time::Duration;

use elastic_core::label_query::LabelQuery;
use elastic_core::quantity::millis;
use k8s_openapi::api::autoscaling::v2::MetricIdentifier;
use kube::Client;
use serde::Deserialize;

use crate::api::{escape, get};
use crate::shared::Shared;

#[derive(Deserialize)]
struct ExternalMetricValueList {
    #[serde(default)]
    items: Vec<ExternalMetricValue>,
}

#[derive(Deserialize)]
struct ExternalMetricValue {
    value: String,
}

pub(super) struct ExternalMetrics {
    answers: Shared<i64, String>,
}

impl ExternalMetrics {
    pub(super) fn new(freshness: Duration) -> Self {
        ExternalMetrics {
            answers: Shared::new(freshness),
        }
    }

    pub(super) async fn read(
        &self,
        client: &Client,
        namespace: &str,
        metric: &MetricIdentifier,
    ) -> Result<i64, String> {
        let selector = LabelQuery::from_selector(metric.selector.as_ref())?;
        let mut path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}",
            escape(&metric.name)
        );
        if !selector.is_everything() {
            path.push_str(&format!("?labelSelector={}", escape(&selector.to_string())));
        }
        let what = format!("{}.external.metrics.k8s.io", metric.name);
        self.answers
            .get(&path, || fetch(client, &path, &what))
            .await
    }
}

async fn fetch(client: &Client, path: &str, what: &str) -> Result<i64, String> {
    let unfetched =
        |error: &str| format!("unable to fetch metrics from external metrics API: {error}");
    let list: ExternalMetricValueList = get(client, path, what)
        .await
        .map_err(|error| unfetched(&error.message))?;
    if list.items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    let values = list.items.iter().map(|item| millis(&item.value));
    let values: Vec<i64> = values
        .collect::<Result<_, _>>()
        .map_err(|error| unfetched(&error.to_string()))?;
    Ok(values.into_iter().fold(0, i64::saturating_add))
}

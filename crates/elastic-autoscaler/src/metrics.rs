//! The three metrics APIs, in the requests and the words of upstream's clients.

mod custom;
mod external;
mod resource;

use std::time::Duration;

use elastic_core::horizontal_pod_autoscaler::{PodView, Reading};
use elastic_core::label_query::LabelQuery;
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::MetricSpec;
use kube::Client;

use crate::kinds::Kinds;
use custom::CustomMetrics;
use external::ExternalMetrics;
use resource::ResourceMetrics;

/// What a reading is about.
pub(crate) struct Asked<'a> {
    pub(crate) namespace: &'a str,
    /// The target's selector.
    pub(crate) query: &'a LabelQuery,
    /// The pods that it matches.
    pub(crate) pods: &'a [PodView],
}

/// The clients of the metrics APIs.
pub(crate) struct Metrics {
    client: Client,
    resource: ResourceMetrics,
    custom: CustomMetrics,
    external: ExternalMetrics,
}

impl Metrics {
    /// Answers are shared by all who ask within `freshness`.
    pub(crate) fn new(client: Client, freshness: Duration) -> Self {
        Metrics {
            client,
            resource: ResourceMetrics::new(freshness),
            custom: CustomMetrics::new(freshness),
            external: ExternalMetrics::new(freshness),
        }
    }

    /// Reads one metric.
    ///
    /// # Errors
    /// The client's sentence, which the decision puts into its context.
    pub(crate) async fn read(
        &self,
        kinds: &Kinds,
        metric: &MetricSpec,
        asked: &Asked<'_>,
    ) -> Result<Reading, String> {
        let client = &self.client;
        if let Some(source) = &metric.resource {
            let samples = self.resource.read(client, asked, &source.name, None);
            return samples.await.map(Reading::PerPod);
        }
        if let Some(source) = &metric.container_resource {
            let container = Some(source.container.as_str());
            let samples = self.resource.read(client, asked, &source.name, container);
            return samples.await.map(Reading::PerPod);
        }
        if let Some(source) = &metric.pods {
            let samples = self.custom.of_pods(client, asked, &source.metric);
            return samples.await.map(Reading::PerPod);
        }
        if let Some(source) = &metric.object {
            let value = self
                .custom
                .of_object(client, kinds, asked.namespace, source);
            return value.await.map(Reading::Whole);
        }
        match &metric.external {
            Some(source) => {
                let value = self.external.read(client, asked.namespace, &source.metric);
                value.await.map(Reading::Whole)
            }
            None => Err("the metric has no source".to_owned()),
        }
    }
}

/// A duration in Go's notation: `10s`, `1m30s`, `1.5s`.
fn parse_window(text: &str) -> SignedDuration {
    let mut seconds = 0.0;
    let mut number = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character.is_ascii_digit() || character == '.' {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600.0,
            'm' if characters.peek() == Some(&'s') => 0.001,
            'm' => 60.0,
            's' => 1.0,
            _ => 0.0,
        };
        seconds += number.parse::<f64>().unwrap_or(0.0) * unit;
        number.clear();
    }
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_in_gos_notation() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1h0m5s", 3_605_000),
            ("", 0),
        ] {
            assert_eq!(parse_window(text).as_millis(), millis, "{text}");
        }
    }
}

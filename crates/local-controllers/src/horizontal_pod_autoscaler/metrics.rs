//! Reads pod metrics from `metrics.k8s.io`, in the words of upstream's client when it fails.

use std::collections::BTreeMap;

use elastic_core::horizontal_pod_autoscaler::{Sample, Samples};
use elastic_core::quantity::millis;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::MetricSpec;
use kube::Client;
use serde::Deserialize;

use crate::shared::requests::get;

#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

/// What one cycle read, or why it could not.
pub(super) struct PodUsage(Result<Vec<PodMetrics>, String>);

impl PodUsage {
    /// Asks once for everything a cycle needs.
    pub(super) async fn read(client: &Client, namespace: &str, selector: &str) -> Self {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}",
            escape(selector)
        );
        let list = get::<PodMetricsList>(client, &path).await;
        PodUsage(match list {
            Ok(list) if list.items.is_empty() => {
                Err("no metrics returned from resource metrics API".to_owned())
            }
            Ok(list) => Ok(list.items),
            Err(error) => Err(format!(
                "unable to fetch metrics from resource metrics API: {}",
                error.api_message()
            )),
        })
    }

    /// The samples of one metric.
    pub(super) fn samples(&self, metric: &MetricSpec) -> Result<Samples, String> {
        let (resource, container) = match (&metric.resource, &metric.container_resource) {
            (Some(source), _) => (&source.name, None),
            (None, Some(source)) => (&source.name, Some(source.container.as_str())),
            _ => return Err(unserved(metric)),
        };
        let pods = self
            .0
            .as_ref()
            .map_err(|error| format!("unable to get metrics for resource {resource}: {error}"))?;
        let samples = pods.iter().filter_map(|pod| {
            let milli = usage(pod, resource, container)?;
            let window = parse_window(&pod.window);
            Some((
                pod.metadata.name.clone(),
                Sample {
                    milli,
                    timestamp: pod.timestamp,
                    window,
                },
            ))
        });
        Ok(samples.collect())
    }
}

/// Metrics of APIs that this controller does not read yet.
fn unserved(metric: &MetricSpec) -> String {
    let name = metric
        .pods
        .as_ref()
        .map_or("", |source| source.metric.name.as_str());
    format!(
        "unable to get metric {name}: unable to fetch metrics from custom metrics API: the server could not find the \
         metric {name} for pods"
    )
}

fn usage(pod: &PodMetrics, resource: &str, only: Option<&str>) -> Option<i64> {
    let mut containers = pod
        .containers
        .iter()
        .filter(|container| only.is_none_or(|only| only == container.name))
        .peekable();
    containers.peek()?;
    // A pod with one container that lacks the resource is not measured at all.
    containers
        .map(|container| {
            container
                .usage
                .get(resource)
                .and_then(|text| millis(text).ok())
        })
        .sum()
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

fn escape(selector: &str) -> String {
    let mut escaped = String::with_capacity(selector.len());
    for byte in selector.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read() -> PodUsage {
        let list: PodMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "p0"}, "timestamp": "2026-11-21T11:00:00Z", "window": "10s", "containers": [
                {"name": "app", "usage": {"cpu": "90m", "memory": "10Mi"}}, {"name": "side", "usage": {"cpu": "10000000n"}}]},
        ]}))
        .unwrap();
        PodUsage(Ok(list.items))
    }

    fn metric(value: serde_json::Value) -> MetricSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn containers_are_added_up_or_looked_at_alone() {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let all =
            metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        assert_eq!(read().samples(&all).unwrap()["p0"].milli, 100);
        let one = |container: &str| {
            metric(json!({"type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": container, "target": target}}))
        };
        assert_eq!(read().samples(&one("app")).unwrap()["p0"].milli, 90);
        assert!(read().samples(&one("nope")).unwrap().is_empty());
        let memory =
            metric(json!({"type": "Resource", "resource": {"name": "memory", "target": target}}));
        assert!(read().samples(&memory).unwrap().is_empty());
    }

    #[test]
    fn a_failure_names_the_resource() {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let cpu =
            metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        let failed = PodUsage(Err(
            "no metrics returned from resource metrics API".to_owned()
        ));
        assert_eq!(
            failed.samples(&cpu).unwrap_err(),
            "unable to get metrics for resource cpu: no metrics returned from resource metrics API"
        );
    }

    #[test]
    fn windows_are_read_in_gos_notation() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("", 0),
        ] {
            assert_eq!(parse_window(text).as_millis(), millis, "{text}");
        }
        assert_eq!(escape("app=t,tier in (a)"), "app%3Dt%2Ctier%20in%20%28a%29");
    }
}

//! `metrics.k8s.io`: CPU and memory of pods.
//!
//! Upstream lists the pods of each autoscaler's selector. Where many autoscalers share a namespace, one list of all its
//! pods serves them, and each takes the pods that its selector matches; what comes of it and what is said about a failure
//! is the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elastic_core::horizontal_pod_autoscaler::{Sample, Samples};
use elastic_core::quantity::millis;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Asked, parse_window};
use crate::api::{escape, get};
use crate::shared::Shared;

/// From so many selectors in a namespace on, all its pods are listed at once.
const SELECTORS_FOR_WHOLE_LIST: usize = 8;
/// How long a selector that asked counts.
const SELECTOR_MEMORY: Duration = Duration::from_secs(60);

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

/// One pod's usage as far as it is understood.
struct Measured {
    timestamp: Timestamp,
    window: SignedDuration,
    containers: Vec<(String, BTreeMap<String, i64>)>,
}

type Table = Arc<HashMap<String, Measured>>;

pub(super) struct ResourceMetrics {
    answers: Shared<Table, String>,
    /// The selectors that asked lately, by namespace.
    askers: Mutex<HashMap<String, HashMap<String, Instant>>>,
}

impl ResourceMetrics {
    pub(super) fn new(freshness: Duration) -> Self {
        ResourceMetrics {
            answers: Shared::new(freshness),
            askers: Mutex::default(),
        }
    }

    pub(super) async fn read(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let selector = asked.query.to_string();
        let is_whole = self.counts(asked.namespace, &selector) >= SELECTORS_FOR_WHOLE_LIST;
        let mut path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods",
            asked.namespace
        );
        if !is_whole && !selector.is_empty() {
            path.push_str(&format!("?labelSelector={}", escape(&selector)));
        }
        let table = self.answers.get(&path, || fetch(client, &path)).await?;
        let mine: Vec<(&String, &Measured)> = if is_whole {
            let names = asked.pods.iter().map(|pod| &pod.name);
            names.filter_map(|name| table.get_key_value(name)).collect()
        } else {
            table.iter().collect()
        };
        if mine.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let samples = mine.into_iter().filter_map(|(name, pod)| {
            let sample = Sample {
                milli: pod.usage(resource, container)?,
                timestamp: pod.timestamp,
                window: pod.window,
            };
            Some((name.clone(), sample))
        });
        Ok(samples.collect())
    }

    /// How many selectors asked for this namespace lately, this one included.
    fn counts(&self, namespace: &str, selector: &str) -> usize {
        let now = Instant::now();
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = askers.entry(namespace.to_owned()).or_default();
        ours.insert(selector.to_owned(), now);
        let is_recent = |at: &Instant| now.duration_since(*at) < SELECTOR_MEMORY;
        if ours.len() >= SELECTORS_FOR_WHOLE_LIST {
            ours.retain(|_, at| is_recent(at));
        }
        let count = ours.len();
        if count == 1 {
            askers.retain(|_, ours| ours.values().any(is_recent));
        }
        count
    }
}

async fn fetch(client: &Client, path: &str) -> Result<Table, String> {
    let list: PodMetricsList = get(client, path, "pods.metrics.k8s.io")
        .await
        .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
    let rows = list
        .items
        .into_iter()
        .map(|pod| (pod.metadata.name.clone(), Measured::from(pod)));
    Ok(Arc::new(rows.collect()))
}

impl From<PodMetrics> for Measured {
    fn from(pod: PodMetrics) -> Self {
        let containers = pod.containers.into_iter().map(|container| {
            let usage = container.usage.into_iter();
            let usage = usage.filter_map(|(name, text)| Some((name, millis(&text).ok()?)));
            (container.name, usage.collect())
        });
        Measured {
            timestamp: pod.timestamp,
            window: parse_window(&pod.window),
            containers: containers.collect(),
        }
    }
}

impl Measured {
    /// The usage of one container or of all; a pod with one container that lacks the resource is not measured at all.
    fn usage(&self, resource: &str, only: Option<&str>) -> Option<i64> {
        let mut usages = self
            .containers
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| only == name))
            .map(|(_, usage)| usage.get(resource).copied())
            .peekable();
        usages.peek()?;
        usages.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn measured() -> Measured {
        let pod: PodMetrics = serde_json::from_value(json!(
            {"metadata": {"name": "p0"}, "timestamp": "2026-11-21T11:00:00Z", "window": "10s", "containers": [
                {"name": "app", "usage": {"cpu": "90m", "memory": "10Mi"}}, {"name": "side", "usage": {"cpu": "10000000n"}}]}
        ))
        .unwrap();
        Measured::from(pod)
    }

    #[test]
    fn containers_are_added_up_or_looked_at_alone() {
        let pod = measured();
        assert_eq!(pod.usage("cpu", None), Some(100));
        assert_eq!(pod.usage("cpu", Some("app")), Some(90));
        assert_eq!(pod.usage("cpu", Some("nope")), None);
        assert_eq!(pod.usage("memory", None), None);
        assert_eq!(pod.usage("memory", Some("app")), Some(10_485_760_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_counts_its_selectors_for_a_minute() {
        let metrics = ResourceMetrics::new(Duration::from_secs(1));
        for index in 0..SELECTORS_FOR_WHOLE_LIST {
            assert_eq!(metrics.counts("shop", &format!("app=a{index}")), index + 1);
        }
        assert_eq!(metrics.counts("other", "app=a0"), 1);
        assert_eq!(metrics.counts("shop", "app=a0"), SELECTORS_FOR_WHOLE_LIST);
        tokio::time::advance(SELECTOR_MEMORY).await;
        assert_eq!(metrics.counts("shop", "app=a0"), 1);
        assert_eq!(metrics.askers.lock().unwrap().len(), 1);
    }
}

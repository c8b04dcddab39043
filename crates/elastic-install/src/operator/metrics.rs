//! What the replica counts, in Prometheus' text format.
//!
//! Calls to the cloud are counted where they pass, in the transport; pods are read from what the virtual node writes back
//! on them. Labels have few values by construction: actions, zones and error codes, with a bound on the whole.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cloud_api::catalog::{PriceList, Size};
use cloud_api::client::{BoxError, BoxFuture, Transport};
use elastic_core::names::{
    INSTANCE_CPU, INSTANCE_ID, INSTANCE_MEMORY, ON_VIRTUAL_NODE_LABEL, POD_MOMENTS_ANNOTATION, TRUE,
};
use elastic_core::timeline::PodMoments;
use elastic_node::Figures;
use futures::StreamExt;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

/// Upper bounds of all histograms, in seconds.
const BOUNDS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Most label sets of one metric; what comes beyond is counted as `other`.
const SETS_MAX: usize = 200;
const SECONDS_PER_HOUR: f64 = 3600.0;

#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (count, bound) in self.counts.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// A pod as far as it is counted.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    has_group: bool,
    per_hour: f64,
    staged: Staged,
}

/// Which stages of a pod are counted.
#[derive(Clone, Copy, Debug, Default)]
struct Staged {
    /// Those that the virtual node sees itself.
    seen: bool,
    /// Those that the cloud tells afterwards.
    told: bool,
}

#[derive(Debug, Default)]
struct Counts {
    /// By action and code.
    calls: BTreeMap<(String, String), u64>,
    throttled: u64,
    /// By zone and outcome.
    creations: BTreeMap<(String, String), Histogram>,
    stages: BTreeMap<&'static str, Histogram>,
    pods: HashMap<String, Running>,
}

/// Counts of one replica.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    counts: Mutex<Counts>,
    /// What the virtual nodes count themselves.
    pub(super) figures: Arc<Figures>,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic while counting leaves at worst one count too few.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, action: &str, zone: &str, code: &str, seconds: f64) {
        let mut counts = self.counts();
        if code.starts_with("Throttling") {
            counts.throttled += 1;
        }
        *bounded(&mut counts.calls, action, code) += 1;
        if action == "CreateContainerGroup" {
            bounded(&mut counts.creations, zone, code).observe(seconds);
        }
    }

    fn put(&self, pod: &PartialObjectMeta<Pod>) {
        let uid = pod.uid().unwrap_or_default();
        let annotation = |key: &str| pod.annotations().get(key);
        let number = |key: &str| annotation(key).and_then(|text| text.parse::<f64>().ok());
        let size = number(INSTANCE_CPU)
            .zip(number(INSTANCE_MEMORY))
            .and_then(|(cpu, memory)| Size::from_decimals(cpu, memory));
        let price = |size| PriceList::default().per_second(size, false, 0).as_cny();
        let mut counts = self.counts();
        let mut staged = counts
            .pods
            .get(&uid)
            .map_or_else(Staged::default, |known| known.staged);
        let moments = annotation(POD_MOMENTS_ANNOTATION)
            .and_then(|text| serde_json::from_str::<PodMoments>(text).ok())
            .filter(|moments| moments.ready.is_some());
        if let Some(moments) = &moments {
            let mut wanted = Vec::new();
            if !staged.seen {
                wanted.extend(seen(moments));
            }
            if !staged.told {
                wanted.extend(told(moments));
            }
            for (stage, seconds) in wanted {
                counts.stages.entry(stage).or_default().observe(seconds);
            }
            staged.seen = true;
            staged.told |= moments.pulled.is_some();
        }
        let running = Running {
            has_group: annotation(INSTANCE_ID).is_some(),
            per_hour: size.map_or(0.0, price) * SECONDS_PER_HOUR,
            staged,
        };
        counts.pods.insert(uid, running);
    }

    /// The text that `/metrics` answers with.
    pub(super) fn text(&self, leading: bool) -> String {
        let counts = self.counts();
        let mut text = String::new();
        let groups = counts.pods.values().filter(|pod| pod.has_group).count();
        let per_hour: f64 = counts.pods.values().map(|pod| pod.per_hour).sum();
        let mut one = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            head(&mut text, name, kind, help);
            line(&mut text, name, "", value);
        };
        let leads = "Whether this replica leads.";
        one("springtide_leader", "gauge", leads, &u8::from(leading));
        let has_group = "Pods that have a container group.";
        one("springtide_container_groups", "gauge", has_group, &groups);
        let orphans = "Container groups without a pod; they cost money until they are swept.";
        one(
            "springtide_orphan_groups",
            "gauge",
            orphans,
            &self.figures.orphans(),
        );
        let price = "List price of all container groups, CNY an hour.";
        one("springtide_cost_per_hour", "gauge", price, &per_hour);
        let throttled = "Calls that the cloud refused as too many.";
        one(
            "springtide_cloud_throttled_total",
            "counter",
            throttled,
            &counts.throttled,
        );
        head(
            &mut text,
            "springtide_cloud_calls_total",
            "counter",
            "Calls to the cloud by action and code.",
        );
        for ((action, code), count) in &counts.calls {
            let labels = format!("action={action:?},code={code:?}");
            line(&mut text, "springtide_cloud_calls_total", &labels, count);
        }
        head(
            &mut text,
            "springtide_create_seconds",
            "histogram",
            "Time of a creation call by zone and code.",
        );
        for ((zone, code), histogram) in &counts.creations {
            let labels = format!("zone={zone:?},code={code:?}");
            lines(&mut text, "springtide_create_seconds", &labels, histogram);
        }
        head(
            &mut text,
            "springtide_pod_stage_seconds",
            "histogram",
            "Time of ready pods in each stage on their way.",
        );
        for (stage, histogram) in &counts.stages {
            let labels = format!("stage={stage:?}");
            lines(
                &mut text,
                "springtide_pod_stage_seconds",
                &labels,
                histogram,
            );
        }
        text
    }
}

fn bounded<'a, V: Default>(
    map: &'a mut BTreeMap<(String, String), V>,
    first: &str,
    second: &str,
) -> &'a mut V {
    let key = (first.to_owned(), second.to_owned());
    let key = if map.len() >= SETS_MAX && !map.contains_key(&key) {
        ("other".to_owned(), "other".to_owned())
    } else {
        key
    };
    map.entry(key).or_default()
}

type Stage = (&'static str, f64);

/// Seconds between two moments that are known, by the name of what happened in between.
fn between(name: &'static str, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Stage> {
    let seconds = to?.duration_since(from?).as_secs_f64();
    Some((name, seconds.max(0.0)))
}

fn seen(moments: &PodMoments) -> impl Iterator<Item = Stage> {
    let stages = [
        between("schedule", moments.created, moments.bound),
        between("create", moments.bound, moments.accepted),
        between("ready", moments.running, moments.ready),
    ];
    stages.into_iter().flatten()
}

fn told(moments: &PodMoments) -> impl Iterator<Item = Stage> {
    let stages = [
        between("pull", moments.accepted, moments.pulled),
        between("start", moments.pulled, moments.running),
    ];
    stages.into_iter().flatten()
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

fn lines(text: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let bucket = format!("{name}_bucket");
    for (bound, count) in BOUNDS.iter().zip(histogram.counts) {
        line(text, &bucket, &format!("{labels},le=\"{bound}\""), count);
    }
    line(
        text,
        &bucket,
        &format!("{labels},le=\"+Inf\""),
        histogram.count,
    );
    line(text, &format!("{name}_sum"), labels, histogram.sum);
    line(text, &format!("{name}_count"), labels, histogram.count);
}

/// Follows pods on virtual nodes until `stop`.
pub(super) async fn follow_pods(client: Client, metrics: Arc<Metrics>, stop: CancellationToken) {
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let only = watcher::Config::default().labels(&format!("{ON_VIRTUAL_NODE_LABEL}={TRUE}"));
    let mut changes = pin!(watcher(pods, only).default_backoff());
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => break,
            change = changes.next() => change,
        };
        match change {
            Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                metrics.put(&pod);
            }
            Some(Ok(watcher::Event::Delete(pod))) => {
                metrics.counts().pods.remove(&pod.uid().unwrap_or_default());
            }
            // Pods that went while the watch was broken must not be counted for ever.
            Some(Ok(watcher::Event::Init)) => metrics.counts().pods.clear(),
            Some(Ok(watcher::Event::InitDone)) => {}
            Some(Err(error)) => tracing::debug!(%error, "watch of pods for metrics broke off"),
            None => break,
        }
    }
    metrics.counts().pods.clear();
}

/// Counts what passes.
pub(super) struct Counting<T> {
    pub(super) inner: T,
    pub(super) metrics: Arc<Metrics>,
}

impl<T: Transport> Transport for Counting<T> {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        let header = request.headers().get("x-acs-action");
        let action = header.and_then(|value| value.to_str().ok());
        let action = action.unwrap_or_default().to_owned();
        let zone = zone(request.uri().query().unwrap_or_default(), request.body());
        Box::pin(async move {
            let begun = Instant::now();
            let answer = self.inner.send(request).await;
            let code = match &answer {
                Ok(answer) if answer.status().is_success() => "OK".to_owned(),
                Ok(answer) => refusal(answer.body()),
                Err(_) => "NoAnswer".to_owned(),
            };
            let seconds = begun.elapsed().as_secs_f64();
            self.metrics.called(&action, &zone, &code, seconds);
            answer
        })
    }
}

/// Parameters travel in the query or, when they are long, in the body.
fn zone(query: &str, body: &[u8]) -> String {
    let body = std::str::from_utf8(body).unwrap_or_default();
    let pairs = query.split('&').chain(body.split('&'));
    let found = pairs.filter_map(|pair| pair.strip_prefix("ZoneId=")).next();
    found.unwrap_or("any").to_owned()
}

fn refusal(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: String,
    }
    let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
    refusal.map_or_else(|| "Unreadable".to_owned(), |refusal| refusal.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_action_code_and_zone() {
        let metrics = Metrics::default();
        metrics.called("CreateContainerGroup", "z-a", "OK", 0.2);
        metrics.called("CreateContainerGroup", "z-a", "OK", 7.0);
        metrics.called("DeleteContainerGroup", "any", "Throttling.User", 0.1);
        let text = metrics.text(true);
        for line in [
            "springtide_leader 1",
            "springtide_orphan_groups 0",
            "springtide_cloud_calls_total{action=\"CreateContainerGroup\",code=\"OK\"} 2",
            "springtide_cloud_throttled_total 1",
            "springtide_create_seconds_bucket{zone=\"z-a\",code=\"OK\",le=\"0.25\"} 1",
            "springtide_create_seconds_bucket{zone=\"z-a\",code=\"OK\",le=\"+Inf\"} 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn each_stage_of_a_pod_is_counted_once_also_when_the_pull_is_told_later() {
        let metrics = Metrics::default();
        let mut moments = serde_json::json!({
            "created": "2026-01-01T00:00:00Z", "bound": "2026-01-01T00:00:01Z",
            "accepted": "2026-01-01T00:00:03Z", "running": "2026-01-01T00:00:09Z", "ready": "2026-01-01T00:00:19Z"
        });
        let put = |moments: &serde_json::Value| {
            let annotations = serde_json::json!({POD_MOMENTS_ANNOTATION: moments.to_string()});
            let pod = serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"uid": "u", "annotations": annotations}
            });
            metrics.put(&serde_json::from_value(pod).unwrap());
        };
        let sum = |stage: &str| {
            let text = metrics.text(true);
            let name = format!("springtide_pod_stage_seconds_sum{{stage={stage:?}}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.map(|value| value.parse::<f64>().unwrap())
        };
        put(&moments);
        assert_eq!(
            (sum("ready"), sum("pull"), sum("start")),
            (Some(10.0), None, None)
        );
        moments["pulled"] = "2026-01-01T00:00:07Z".into();
        put(&moments);
        put(&moments);
        let stages = ["schedule", "create", "pull", "start", "ready"].map(sum);
        assert_eq!(stages, [1.0, 2.0, 4.0, 2.0, 10.0].map(Some));
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::default();
        for number in 0..2 * SETS_MAX {
            metrics.called("A", "any", &format!("Code{number}"), 0.1);
        }
        assert_eq!(metrics.counts().calls.len(), SETS_MAX + 1);
    }

    #[test]
    fn zones_are_found_in_query_and_body() {
        assert_eq!(zone("A=b&ZoneId=z-1", b""), "z-1");
        assert_eq!(zone("", b"ZoneId=z-2&X=y"), "z-2");
        assert_eq!(zone("", b"\xff"), "any");
    }
}

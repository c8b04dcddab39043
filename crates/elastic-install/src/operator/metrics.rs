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
use cloud_api::instance_type::Choice;
use elastic_core::names::{
    INSTANCE_CPU, INSTANCE_ID, INSTANCE_MEMORY, INSTANCE_SPEC, ON_VIRTUAL_NODE_LABEL,
    POD_MOMENTS_ANNOTATION, TRUE,
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

use super::traces::pods::{self, Call, Stage};
use super::traces::{Traces, trace_of};

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
    /// Pods of before, while a new watch lists them all again.
    relisted: HashMap<String, Running>,
    /// UIDs of pods by their container groups; only kept for traces.
    groups: HashMap<String, String>,
}

/// Counts of one replica.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    counts: Mutex<Counts>,
    /// What the virtual nodes count themselves.
    pub(super) figures: Arc<Figures>,
    pub(super) traces: Traces,
}

impl Metrics {
    pub(super) fn with_traces(traces: Traces) -> Self {
        Self {
            traces,
            ..Self::default()
        }
    }

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

    /// Takes a pod's newest state. Traces are told of pods that became ready after `since` only: older ones were told by
    /// whoever led then.
    fn put(&self, pod: &PartialObjectMeta<Pod>, since: Timestamp) {
        let uid = pod.uid().unwrap_or_default();
        let annotation = |key: &str| pod.annotations().get(key);
        let number = |key: &str| annotation(key).and_then(|text| text.parse::<f64>().ok());
        let size = number(INSTANCE_CPU)
            .zip(number(INSTANCE_MEMORY))
            .and_then(|(cpu, memory)| Size::from_decimals(cpu, memory));
        let machine = annotation(INSTANCE_SPEC).and_then(|spec| Choice::parse(spec));
        let machine = machine.filter(|choice| choice.machine().is_some());
        let prices = PriceList::default();
        let price = |size| match &machine {
            Some(choice) => prices.machine_per_second(size, choice.gpus(), 0).as_cny(),
            None => prices.per_second(size, false, 0).as_cny(),
        };
        let moments = moments(pod).filter(|moments| moments.ready.is_some());
        let mut counts = self.counts();
        let known = counts.pods.get(&uid).or(counts.relisted.get(&uid));
        let before = known.map_or_else(Staged::default, |known| known.staged);
        let mut staged = before;
        let mut wanted = Vec::new();
        if let Some(moments) = &moments {
            if !before.seen {
                wanted.extend(seen(moments));
            }
            if !before.told {
                wanted.extend(told(moments));
            }
            staged.seen = true;
            staged.told |= moments.pulled.is_some();
        }
        for stage in &wanted {
            let histogram = counts.stages.entry(stage.name).or_default();
            histogram.observe(stage.seconds());
        }
        let group = annotation(INSTANCE_ID);
        if let Some(group) = group.filter(|_| self.traces.is_on()) {
            counts.groups.insert(group.clone(), uid.clone());
        }
        let running = Running {
            has_group: group.is_some(),
            per_hour: size.map_or(0.0, price) * SECONDS_PER_HOUR,
            staged,
        };
        counts.pods.insert(uid, running);
        drop(counts);
        if let Some(moments) = moments
            && let Some(ready) = moments.ready.filter(|ready| *ready >= since)
        {
            self.trace(pod, wanted, (!before.seen).then_some((ready, None)));
        }
    }

    /// Forgets a pod; one that never was ready ends its trace.
    fn gone(&self, pod: &PartialObjectMeta<Pod>, now: Timestamp) {
        let mut counts = self.counts();
        let known = counts.pods.remove(&pod.uid().unwrap_or_default());
        if let Some(group) = pod.annotations().get(INSTANCE_ID) {
            counts.groups.remove(group);
        }
        drop(counts);
        if known.is_none_or(|known| known.staged.seen) {
            return;
        }
        let moments = moments(pod).unwrap_or_default();
        // A short job may be over before anybody sees it ready.
        let error = (moments.running.is_none())
            .then(|| "the pod went before its containers ran".to_owned());
        let stages = seen(&moments).chain(told(&moments));
        self.trace(pod, stages.collect(), Some((now, error)));
    }

    /// Tells of stages, and of the whole way when it is at its end.
    fn trace(
        &self,
        pod: &PartialObjectMeta<Pod>,
        stages: Vec<Stage>,
        end: Option<(Timestamp, Option<String>)>,
    ) {
        if !self.traces.is_on() {
            return;
        }
        let created = pod.creation_timestamp().map(|time| time.0);
        let whole = end.zip(created);
        let whole = whole.and_then(|((end, error), created)| pods::whole(pod, created, end, error));
        for span in pods::stages(pod, stages).into_iter().chain(whole) {
            self.traces.give(span);
        }
    }

    /// The pod that a call is about, when calls are traced and it is about one.
    fn about(&self, action: &str, request: &Request<Bytes>) -> Option<String> {
        if !self.traces.is_on() {
            return None;
        }
        let value = |name| {
            parameter(
                name,
                request.uri().query().unwrap_or_default(),
                request.body(),
            )
        };
        if action == "CreateContainerGroup" {
            // The virtual node's client token is the pod's UID.
            return value("ClientToken").filter(|token| trace_of(token).is_some());
        }
        let group = value("ContainerGroupId")?;
        self.counts().groups.get(&group).cloned()
    }

    /// A new watch lists all pods: those that went while the old one was broken must not be counted for ever, and stages of
    /// the others not twice.
    fn listing(&self) {
        let mut counts = self.counts();
        counts.groups.clear();
        counts.relisted = std::mem::take(&mut counts.pods);
    }

    fn listed(&self) {
        self.counts().relisted = HashMap::new();
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
        text + &self.traces.text()
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

/// What the virtual node wrote on a pod.
fn moments(pod: &PartialObjectMeta<Pod>) -> Option<PodMoments> {
    let text = pod.annotations().get(POD_MOMENTS_ANNOTATION)?;
    serde_json::from_str(text).ok()
}

impl Stage {
    fn seconds(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64().max(0.0)
    }
}

/// What happened between two moments that are known.
fn between(name: &'static str, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Stage> {
    let (from, to) = from.zip(to)?;
    Some(Stage { name, from, to })
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
    let since = Timestamp::now();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => break,
            change = changes.next() => change,
        };
        match change {
            Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                metrics.put(&pod, since);
            }
            Some(Ok(watcher::Event::Delete(pod))) => metrics.gone(&pod, Timestamp::now()),
            Some(Ok(watcher::Event::Init)) => metrics.listing(),
            Some(Ok(watcher::Event::InitDone)) => metrics.listed(),
            Some(Err(error)) => tracing::debug!(%error, "watch of pods for metrics broke off"),
            None => break,
        }
    }
    metrics.listing();
    metrics.listed();
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
        let about = self.metrics.about(&action, &request);
        let host = about.as_ref().and(request.uri().host()).map(str::to_owned);
        Box::pin(async move {
            let (from, begun) = (Timestamp::now(), Instant::now());
            let answer = self.inner.send(request).await;
            let code = match &answer {
                Ok(answer) if answer.status().is_success() => "OK".to_owned(),
                Ok(answer) => refusal(answer.body()),
                Err(_) => "NoAnswer".to_owned(),
            };
            let seconds = begun.elapsed().as_secs_f64();
            self.metrics.called(&action, &zone, &code, seconds);
            let span = about.and_then(|uid| {
                let call = Call {
                    action: &action,
                    zone: &zone,
                    code: &code,
                    status: answer.as_ref().ok().map(|answer| answer.status().as_u16()),
                    host: host.as_deref().unwrap_or_default(),
                    from,
                    to: Timestamp::now(),
                };
                pods::call(&uid, &call)
            });
            if let Some(span) = span {
                self.metrics.traces.give(span);
            }
            answer
        })
    }
}

fn zone(query: &str, body: &[u8]) -> String {
    parameter("ZoneId", query, body).unwrap_or_else(|| "any".to_owned())
}

/// Parameters travel in the query or, when they are long, in the body.
fn parameter(name: &str, query: &str, body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).unwrap_or_default();
    let mut pairs = query.split('&').chain(body.split('&'));
    pairs.find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
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
            metrics.put(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH);
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
        metrics.listing();
        put(&moments);
        metrics.listed();
        assert_eq!(sum("ready"), Some(10.0), "also when all are listed again");
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

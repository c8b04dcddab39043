//! One task for every ElasticMetric: looks at the source in its rhythm, puts the outcome on the board, tells it on the object.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elastic_core::ElasticMetric;
use elastic_core::elastic_metric::{ElasticMetricStatus, READY, validate};
use elastic_core::elastic_workload::{ConditionStatus, set_condition};
use elastic_core::events::{EventKind, event};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::Event as Change;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::{Entry, Key, key};
use super::evaluate::{Problem, Reading, from_query};
use super::scrape;
use crate::adapter::KindRow;
use crate::custom::source::Source;
use crate::outgoing::Fetcher;
use crate::value::quantity;

/// Most ElasticMetrics; further ones are told so.
const MAX_METRICS: usize = 5_000;
/// Sources looked at at the same time.
const LOOKS: usize = 32;
/// A value on the object is renewed this often when nothing else changes.
const STATUS_EVERY: Duration = Duration::from_secs(30);
const COMPONENT: &str = "elastic-metrics";

/// What the tasks need.
pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) source: Arc<Source>,
    pub(crate) fetcher: Fetcher,
    /// Whether this replica writes on the objects.
    pub(crate) leads: watch::Receiver<bool>,
}

struct Task {
    generation: Option<i64>,
    uid: Option<String>,
    stop: CancellationToken,
}

/// Follows all ElasticMetrics until `shutdown`.
pub(crate) async fn run(settings: Settings, shutdown: CancellationToken) {
    let settings = Arc::new(settings);
    let places = Arc::new(Semaphore::new(LOOKS));
    let running = TaskTracker::new();
    let mut tasks: HashMap<Key, Task> = HashMap::new();
    let api: Api<ElasticMetric> = Api::all(settings.client.clone());
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed: Vec<Key> = Vec::new();
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => break,
            change = changes.next() => change,
        };
        match change {
            Some(Ok(Change::Init)) => listed.clear(),
            Some(Ok(Change::InitApply(metric))) => {
                listed.push(key(&metric));
                keep(
                    metric,
                    &mut tasks,
                    &settings,
                    &places,
                    (&running, &shutdown),
                );
            }
            Some(Ok(Change::Apply(metric))) => {
                keep(
                    metric,
                    &mut tasks,
                    &settings,
                    &places,
                    (&running, &shutdown),
                );
            }
            Some(Ok(Change::Delete(metric))) => end(&key(&metric), &mut tasks, &settings),
            Some(Ok(Change::InitDone)) => {
                let gone: Vec<Key> = tasks
                    .keys()
                    .filter(|key| !listed.contains(key))
                    .cloned()
                    .collect();
                for key in gone {
                    end(&key, &mut tasks, &settings);
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "watch of ElasticMetrics broke off, it is taken up again")
            }
            None => break,
        }
    }
    for task in tasks.values() {
        task.stop.cancel();
    }
    running.close();
    running.wait().await;
}

/// Makes sure that a task looks at this very spec.
fn keep(
    metric: ElasticMetric,
    tasks: &mut HashMap<Key, Task>,
    settings: &Arc<Settings>,
    places: &Arc<Semaphore>,
    (running, shutdown): (&TaskTracker, &CancellationToken),
) {
    let key = key(&metric);
    let (generation, uid) = (metric.metadata.generation, metric.uid());
    let metric = Arc::new(metric);
    if tasks.len() >= MAX_METRICS && !tasks.contains_key(&key) {
        tracing::error!(
            namespace = key.0,
            name = key.1,
            most = MAX_METRICS,
            "too many ElasticMetrics, this one is not looked at"
        );
        return;
    }
    settings.source.board.know(metric);
    if tasks
        .get(&key)
        .is_some_and(|task| task.generation == generation && task.uid == uid)
    {
        return;
    }
    let stop = shutdown.child_token();
    running.spawn(look(
        key.clone(),
        settings.clone(),
        places.clone(),
        stop.clone(),
    ));
    let task = Task {
        generation,
        uid,
        stop,
    };
    if let Some(before) = tasks.insert(key, task) {
        before.stop.cancel();
    }
}

fn end(key: &Key, tasks: &mut HashMap<Key, Task>, settings: &Settings) {
    if let Some(task) = tasks.remove(key) {
        task.stop.cancel();
    }
    settings.source.board.forget(key);
}

/// Looks again and again at one.
async fn look(key: Key, settings: Arc<Settings>, places: Arc<Semaphore>, stop: CancellationToken) {
    let mut memory = scrape::Memory::new();
    let mut written: Option<Instant> = None;
    loop {
        let Some(metric) = settings.source.board.known(&key) else {
            return;
        };
        let kind = kind(&settings.source, &metric);
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = evaluate(&settings, &places, &metric, kind.as_ref(), &mut memory) => outcome,
        };
        settings.source.board.put(Entry {
            metric: metric.clone(),
            kind: kind.clone(),
            outcome: outcome.clone(),
            read: Instant::now(),
        });
        if *settings.leads.borrow() {
            let due = written.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
            // What was written last comes back by the watch; until then it is compared with what was before.
            let metric = settings.source.board.known(&key).unwrap_or(metric.clone());
            if tell(&settings.client, &metric, kind.as_ref(), &outcome, due).await {
                written = Some(Instant::now());
            }
        }
        let interval = Duration::from_secs(u64::from(metric.interval_seconds()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

fn kind(source: &Source, metric: &ElasticMetric) -> Option<KindRow> {
    let target = metric.spec.target.as_ref()?;
    source
        .kinds()
        .of_kind(target.group(), &target.kind)
        .cloned()
}

async fn evaluate(
    settings: &Settings,
    places: &Semaphore,
    metric: &ElasticMetric,
    kind: Option<&KindRow>,
    memory: &mut scrape::Memory,
) -> Result<Reading, Problem> {
    let problems = validate(metric);
    if !problems.is_empty() {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(Problem::new("Invalid", texts.join("; ")));
    }
    if let Some(target) = &metric.spec.target {
        let Some(kind) = kind else {
            let message = format!(
                "spec.target: the cluster has no kind {} in {}",
                target.kind, target.api_version
            );
            return Err(Problem::new("UnknownKind", message));
        };
        if !kind.namespaced && !target.is_namespace() {
            let message = format!(
                "spec.target.kind: a {} is in no namespace; describe objects of this namespace",
                target.kind
            );
            return Err(Problem::new("Invalid", message));
        }
    }
    if let Some(rival) = settings.source.board.rival(metric) {
        return Err(Problem::new(
            "Conflict",
            format!("the older ElasticMetric {rival} has the same metric of the same target"),
        ));
    }
    // The semaphore is never closed.
    let _place = places.acquire().await.ok();
    if let Some(scrape) = &metric.spec.scrape {
        return scrape::read(&settings.client, &settings.fetcher, metric, scrape, memory).await;
    }
    let query = metric.spec.query.as_deref().unwrap_or_default();
    let Some(prometheus) = settings.source.prometheus() else {
        return Err(Problem::new(
            "NoPrometheus",
            "no Prometheus is configured; set its address, or use spec.scrape",
        ));
    };
    let lookback = Duration::from_secs(u64::from(metric.max_age_seconds()));
    match prometheus.query(query, Some(lookback)).await {
        Ok(samples) => from_query(metric, samples, Timestamp::now()),
        Err(error @ crate::prometheus::SourceError::Answer(_)) => {
            Err(Problem::new("QueryFailed", error.to_string()))
        }
        Err(error) => Err(Problem::new("SourceUnavailable", error.to_string())),
    }
}

/// Writes the status when its condition changed or its value is due, and an event when the condition changed.
async fn tell(
    client: &Client,
    metric: &ElasticMetric,
    kind: Option<&KindRow>,
    outcome: &Result<Reading, Problem>,
    due: bool,
) -> bool {
    let now = Timestamp::now();
    let before = metric.status.clone().unwrap_or_default();
    let next = status(metric, kind, outcome, now);
    let condition = |status: &ElasticMetricStatus| {
        status
            .conditions
            .iter()
            .find(|one| one.type_ == READY)
            .cloned()
    };
    let (was, is) = (condition(&before), condition(&next));
    let same = was.as_ref().zip(is.as_ref()).is_some_and(|(was, is)| {
        was.status == is.status
            && was.reason == is.reason
            && was.observed_generation == is.observed_generation
    });
    if same && !due {
        return false;
    }
    let namespace = metric.namespace().unwrap_or_default();
    let api: Api<ElasticMetric> = Api::namespaced(client.clone(), &namespace);
    // Null takes away what is no longer true.
    let mut status = json!(next);
    for field in ["value", "series", "lastReadTime", "path"] {
        if status.get(field).is_none() {
            status[field] = serde_json::Value::Null;
        }
    }
    let patch = Patch::Merge(json!({"status": status}));
    if let Err(error) = api
        .patch_status(&metric.name_any(), &PatchParams::default(), &patch)
        .await
    {
        tracing::warn!(namespace, name = metric.name_any(), %error, "status of an ElasticMetric could not be written");
        return false;
    }
    let flipped = was
        .as_ref()
        .zip(is.as_ref())
        .is_none_or(|(was, is)| was.status != is.status || was.reason != is.reason);
    if let Some(condition) = is.filter(|_| flipped) {
        post_event(
            client,
            metric,
            &condition.reason,
            &condition.message,
            outcome.is_ok(),
            now,
        )
        .await;
    }
    true
}

async fn post_event(
    client: &Client,
    metric: &ElasticMetric,
    reason: &str,
    message: &str,
    good: bool,
    now: Timestamp,
) {
    let namespace = metric.namespace().unwrap_or_default();
    let kind = if good {
        EventKind::Normal
    } else {
        EventKind::Warning
    };
    let event = event(
        &metric.object_ref(&()),
        COMPONENT,
        kind,
        reason,
        message,
        now,
    );
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::debug!(namespace, name = metric.name_any(), %error, "event about an ElasticMetric could not be posted");
    }
}

fn status(
    metric: &ElasticMetric,
    kind: Option<&KindRow>,
    outcome: &Result<Reading, Problem>,
    now: Timestamp,
) -> ElasticMetricStatus {
    let generation = metric.metadata.generation;
    let before = metric.status.clone().unwrap_or_default();
    let mut next = ElasticMetricStatus {
        observed_generation: generation,
        conditions: before.conditions,
        path: path(metric, kind),
        ..ElasticMetricStatus::default()
    };
    let (holds, reason, message) = match outcome {
        Ok(reading) => {
            let sum = reading
                .values
                .iter()
                .fold(0i64, |sum, value| sum.saturating_add(value.millis));
            let oldest = reading.values.iter().map(|value| value.at).min();
            next.value = Some(quantity(sum));
            next.series = i32::try_from(reading.values.len()).ok();
            next.last_read_time = oldest.map(Time);
            (
                ConditionStatus::True,
                "Read",
                reading
                    .note
                    .clone()
                    .unwrap_or_else(|| "the source gives the metric".to_owned()),
            )
        }
        Err(problem) => (
            ConditionStatus::False,
            problem.reason,
            problem.message.clone(),
        ),
    };
    set_condition(
        &mut next.conditions,
        READY,
        holds,
        reason,
        &message,
        generation,
        now,
    );
    next
}

fn path(metric: &ElasticMetric, kind: Option<&KindRow>) -> Option<String> {
    let (namespace, name) = (metric.namespace()?, metric.metric_name());
    if metric.spec.target.is_none() {
        return Some(format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}"
        ));
    }
    let begin = format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/{namespace}");
    let resource = kind?.resource();
    if resource.is_namespace() {
        return Some(format!("{begin}/metrics/{name}"));
    }
    let object = metric.target_name().unwrap_or_else(|| "*".to_owned());
    Some(format!("{begin}/{resource}/{object}/{name}"))
}

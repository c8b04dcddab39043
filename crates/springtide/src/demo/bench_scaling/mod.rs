//! `cargo xtask bench scaling`: how fast signals become replicas, and what waiting for them costs. An API server, the
//! controllers in question and metrics that this process plays; no workers, no cloud.
//!
//! Nothing here is asserted: a slow machine prints slow numbers and exits zero.

mod cron;
mod metrics_query;
mod pushed;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use elastic_controllers::{
    ElasticWorkloadConfig, FastAutoscalerConfig, install_definitions, run_elastic_workload,
    run_fast_horizontal_pod_autoscaler,
};
use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{Bounds, distribute};
use elastic_core::names::FAST_SYNC_PERIOD;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use local_apiserver::testing::PlayedMetrics;
use local_apiserver::{ApiServer, ApiServerConfig};
use local_controllers::config::AutoscalerConfig;
use local_controllers::horizontal_pod_autoscaler;
use local_controllers::shared::Cluster;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::demo::bench::{Measured, millis, print_table};
use crate::demo::bench_virtual_node::{cpu_seconds, measured};
use crate::printer::Step;

const NAMESPACE: &str = "default";
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often the metric crosses its target in one repetition.
const CROSSINGS: usize = 15;
const FAST_PERIOD: &str = "250ms";
/// The workload's size.
const REPLICAS: u32 = 5_000;
/// How long after the last child's write more writes would be counted.
const QUIET: Duration = Duration::from_secs(1);
const AUTOSCALERS: usize = 1_000;
const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// How long the waiting autoscalers are watched, in whole periods.
const WATCHED: Duration = Duration::from_secs(30);
/// Requests in flight while objects are made.
const IN_FLIGHT: usize = 32;
const CORE_PERCENT: f64 = 100.0;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Everything.
    All,
    /// From a metric that crosses its target to the written scale, on the fast path.
    FastPath,
    /// An ElasticWorkload from nothing to 5,000 replicas over three units.
    ElasticWorkload,
    /// What 1,000 autoscalers at 15 s cost.
    Autoscalers,
    /// What 10,000 CronHPA jobs cost between runs, and how late they scale.
    Cron,
    /// What the metrics APIs add to Prometheus' time when 1,000 pods are asked about.
    MetricsQuery,
}

/// Measures `repeat` times and prints a table on standard output.
pub async fn run(repeat: u32, part: Part) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    let is_wanted = |one: Part| part == one || part == Part::All;
    for round in 1..=repeat {
        let step = Step::start(format!("round {round} of {repeat}"));
        if is_wanted(Part::FastPath) {
            step.update("fast path");
            all.extend(World::start().await?.fast_path().await?);
            let world = World::start_with(metrics_query::to_loopback).await?;
            all.extend(world.fast_path_pushed().await?);
        }
        if is_wanted(Part::ElasticWorkload) {
            step.update("elastic workload");
            all.extend(World::start().await?.elastic_workload().await?);
        }
        if is_wanted(Part::Autoscalers) {
            step.update(format!("{AUTOSCALERS} autoscalers"));
            all.extend(World::start().await?.autoscalers().await?);
        }
        if is_wanted(Part::Cron) {
            step.update("10,000 CronHPA jobs");
            all.extend(World::start().await?.cron().await?);
        }
        if is_wanted(Part::MetricsQuery) {
            step.update("metrics of 1,000 pods");
            all.extend(metrics_query::measure().await?);
        }
        step.done("");
    }
    print_table(&all);
    Ok(ExitCode::SUCCESS)
}

/// An API server with played metrics.
struct World {
    api: ApiServer,
    client: Client,
    metrics: Arc<PlayedMetrics>,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ApiServerConfig)) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a temporary directory")?;
        let mut config = ApiServerConfig::new(folder.path().join("api"));
        change(&mut config);
        let api = ApiServer::start(config).await?;
        let metrics = Arc::new(PlayedMetrics::default());
        let client = metrics.client(api.client());
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
        accounts.create(&PostParams::default(), &account).await?;
        Ok(World {
            api,
            client,
            metrics,
            shutdown: CancellationToken::new(),
            _folder: folder,
        })
    }

    async fn stop(self, controller: tokio::task::JoinHandle<()>) -> anyhow::Result<()> {
        self.shutdown.cancel();
        controller.await.context("end the controller")?;
        self.api.shutdown().await;
        Ok(())
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn create_deployment(&self, name: &str, replicas: u32) -> anyhow::Result<()> {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "bench:1"}]}}},
        }))?;
        let deployments = self.deployments();
        deployments
            .create(&PostParams::default(), &deployment)
            .await
            .with_context(|| format!("create deployment {name}"))?;
        let status = Patch::Merge(json!({"status": {"replicas": replicas}}));
        deployments
            .patch_status(name, &PatchParams::default(), &status)
            .await?;
        Ok(())
    }

    async fn create_autoscaler(
        &self,
        name: &str,
        metadata: Value,
        spec: Value,
    ) -> anyhow::Result<()> {
        let mut object = json!({"metadata": metadata, "spec": spec});
        object["metadata"]["name"] = name.into();
        object["spec"]["scaleTargetRef"] =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let autoscalers: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.client.clone(), NAMESPACE);
        let autoscaler = serde_json::from_value(object)?;
        autoscalers
            .create(&PostParams::default(), &autoscaler)
            .await
            .with_context(|| format!("create autoscaler {name}"))?;
        Ok(())
    }

    fn queue(&self, value: u32) {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/queue");
        let series = json!({"metricName": "queue", "timestamp": "2026-11-21T11:00:00Z", "value": value.to_string()});
        self.metrics.set(&path, &json!({"items": [series]}));
    }

    async fn fast_path(self) -> anyhow::Result<Vec<Measured>> {
        self.queue(60);
        self.create_fast(FAST_PERIOD).await?;
        let controller = tokio::spawn(run_fast_horizontal_pod_autoscaler(
            self.client.clone(),
            FastAutoscalerConfig::default(),
            self.shutdown.clone(),
        ));
        let set = async |value| {
            self.queue(value);
            anyhow::Ok(())
        };
        let median = self.cross(set).await?;
        self.stop(controller).await?;
        let name = "metric crosses its target to /scale written, polled at 250 ms";
        Ok(vec![measured(name, "ms", 300.0, median)])
    }

    /// A Deployment with an autoscaler on the fast path that wants 30 of the queue for each replica.
    async fn create_fast(&self, period: &str) -> anyhow::Result<()> {
        self.create_deployment("web", 2).await?;
        let spec = json!({"minReplicas": 1, "maxReplicas": 1_000,
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue"},
                "target": {"type": "AverageValue", "averageValue": "30"}}}],
            "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1_000, "periodSeconds": 1}]}}});
        let annotations = json!({"annotations": {FAST_SYNC_PERIOD: period}});
        self.create_autoscaler("web", annotations, spec).await
    }

    /// The median of milliseconds from a queue that is set above its target to the written scale.
    async fn cross(&self, set: impl AsyncFn(u32) -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let mut events = watcher(self.deployments(), watcher::Config::default()).boxed();
        let mut took = Vec::new();
        for crossing in 0..CROSSINGS {
            let wanted = 10 + u32::try_from(crossing)?;
            // At any moment of the period, not always right after a look.
            let pause = Duration::from_millis(300 + 37 * u64::try_from(crossing)?);
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            set(30 * wanted).await?;
            until_replicas(&mut events, wanted).await?;
            took.push(millis(began.elapsed()));
            set(60).await?;
            let lower = Patch::Merge(json!({"spec": {"replicas": 2}}));
            self.deployments()
                .patch_scale("web", &PatchParams::default(), &lower)
                .await?;
        }
        took.sort_by(f64::total_cmp);
        Ok(took[took.len() / 2])
    }

    async fn elastic_workload(self) -> anyhow::Result<Vec<Measured>> {
        install_definitions(&self.client).await?;
        self.create_deployment("web", 0).await?;
        let workload = serde_json::from_value(json!({
            "metadata": {"name": "web-ew"},
            "spec": {"replicas": 0,
                "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "min": 0, "max": 1_000},
                "elasticUnit": [{"name": "one", "max": 1_000}, {"name": "two", "max": 1_500}, {"name": "three"}]},
        }))?;
        let workloads: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), NAMESPACE);
        workloads.create(&PostParams::default(), &workload).await?;
        let controller = tokio::spawn(run_elastic_workload(
            self.client.clone(),
            ElasticWorkloadConfig::default(),
            self.shutdown.clone(),
        ));
        let mut events = watcher(self.deployments(), watcher::Config::default()).boxed();
        tokio::time::sleep(QUIET).await;
        let began = Instant::now();
        let raise = Patch::Merge(json!({"spec": {"replicas": REPLICAS}}));
        workloads
            .patch_scale("web-ew", &PatchParams::default(), &raise)
            .await?;
        let (written, writes) = count_writes(&mut events, began).await?;
        drop(events);
        self.stop(controller).await?;
        Ok(vec![
            measured(
                "5,000 replicas distributed",
                "ms",
                1.0,
                distribution_millis(),
            ),
            measured("5,000 replicas, all children written", "ms", 50.0, written),
            measured(
                "writes of one child for one change",
                "",
                1.0,
                f64::from(writes),
            ),
        ])
    }

    async fn autoscalers(self) -> anyhow::Result<Vec<Measured>> {
        let names: Vec<String> = (0..AUTOSCALERS).map(|index| format!("w{index}")).collect();
        stream::iter(&names)
            .map(|name| self.create_autoscaled(name))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        self.answer_pod_metrics(&names);
        let cluster = Cluster::new(self.client.clone(), self.shutdown.clone());
        let config = AutoscalerConfig {
            sync_period: SYNC_PERIOD,
            ..AutoscalerConfig::default()
        };
        horizontal_pod_autoscaler::start(&cluster, config);
        // The first period writes every status once.
        tokio::time::sleep(2 * SYNC_PERIOD).await;
        let process = std::process::id();
        let before = cpu_seconds(process)?;
        tokio::time::sleep(WATCHED).await;
        let used = cpu_seconds(process)? - before;
        let controller = tokio::spawn(async move { cluster.finish().await });
        self.stop(controller).await?;
        let percent = used / WATCHED.as_secs_f64() * CORE_PERCENT;
        let name = "1,000 autoscalers at 15 s, API server included, of a core";
        Ok(vec![measured(name, "%", 10.0, percent)])
    }

    /// A Deployment with one pod at its target, and its autoscaler.
    async fn create_autoscaled(&self, name: &str) -> anyhow::Result<()> {
        self.create_deployment(name, 1).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "bench:1", "resources": {"requests": {"cpu": "100m"}}}]},
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        let long_ago = "2026-01-01T00:00:00Z";
        let status = Patch::Strategic(json!({"status": {"phase": "Running", "startTime": long_ago,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}}));
        pods.patch_status(name, &PatchParams::default(), &status)
            .await?;
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let spec = json!({"maxReplicas": 10, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]});
        self.create_autoscaler(name, json!({}), spec).await
    }

    fn answer_pod_metrics(&self, names: &[String]) {
        let now = jiff::Timestamp::now().to_string();
        let row = |name: &String| {
            json!({"metadata": {"name": name}, "timestamp": now, "window": "15s",
                "containers": [{"name": "main", "usage": {"cpu": "50m", "memory": "20Mi"}}]})
        };
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods");
        let rows: Vec<Value> = names.iter().map(row).collect();
        self.metrics.set(&path, &json!({"items": rows}));
        for name in names {
            let own = format!("{path}?labelSelector=app%3D{name}");
            self.metrics.set(&own, &json!({"items": [row(name)]}));
        }
    }
}

type Events = stream::BoxStream<'static, Result<watcher::Event<Deployment>, watcher::Error>>;

fn size_of(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0)
}

async fn until_replicas(events: &mut Events, wanted: u32) -> anyhow::Result<()> {
    let found = async {
        while let Some(event) = events.try_next().await? {
            if let watcher::Event::Apply(one) | watcher::Event::InitApply(one) = event
                && size_of(&one) == wanted
            {
                return anyhow::Ok(());
            }
        }
        bail!("the watch of deployments ended")
    };
    tokio::time::timeout(TIMEOUT, found)
        .await
        .with_context(|| format!("no {wanted} replicas within {TIMEOUT:?}"))?
}

/// Milliseconds until the children have all replicas, and the most writes that one of them saw.
async fn count_writes(events: &mut Events, began: Instant) -> anyhow::Result<(f64, u32)> {
    let mut sizes: BTreeMap<String, u32> = BTreeMap::new();
    let mut writes: BTreeMap<String, u32> = BTreeMap::new();
    let mut whole = None;
    let mut until = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let event = match tokio::time::timeout_at(until, events.try_next()).await {
            Ok(event) => event?.context("the watch of deployments ended")?,
            Err(_) => break,
        };
        let (watcher::Event::Apply(one) | watcher::Event::InitApply(one)) = event else {
            continue;
        };
        let (name, size) = (one.name_any(), size_of(&one));
        if size > 0 {
            *writes.entry(name.clone()).or_default() += 1;
        }
        sizes.insert(name, size);
        if whole.is_none() && sizes.values().sum::<u32>() == REPLICAS {
            whole = Some(millis(began.elapsed()));
            until = tokio::time::Instant::now() + QUIET;
        }
    }
    let whole =
        whole.with_context(|| format!("children never had {REPLICAS} replicas: {sizes:?}"))?;
    Ok((whole, writes.values().copied().max().unwrap_or(0)))
}

fn distribution_millis() -> f64 {
    let bounds = |max| Bounds { min: 0, max };
    let units = [bounds(Some(1_000)), bounds(Some(1_500)), bounds(None)];
    let began = Instant::now();
    std::hint::black_box(distribute(REPLICAS, bounds(Some(1_000)), &units));
    millis(began.elapsed())
}

//! `cargo xtask bench burst`: the numbers, measured several times, medians printed beside their limits.
//!
//! Nothing here is asserted: a slow machine prints slow numbers and exits zero.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;

use crate::cli::SizeArguments;
use crate::cluster::{Cluster, ClusterConfig};
use crate::data_dir::DataDir;
use crate::demo::latency;
use crate::printer::{self, Step};
use crate::{host, sample};

/// Overflow pods of the scale test.
const PODS: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(120);
/// An idle cluster is looked at after this long.
const SETTLE: Duration = Duration::from_secs(3);

const IDLE_MEMORY: &str = "resident memory, idle, fresh process";

/// One number of one repetition.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) limit: f64,
    pub(super) value: f64,
}

/// Of what is printed for comparison only.
pub(super) const NO_LIMIT: f64 = f64::INFINITY;

/// Measures `repeat` times and prints a table on standard output.
pub async fn run(repeat: u32) -> anyhow::Result<ExitCode> {
    host::check()?;
    let mut all: Vec<Measured> = Vec::new();
    for round in 1..=repeat {
        let step = Step::start(format!("round {round} of {repeat}"));
        // Only a process that has done nothing else yet shows what an idle cluster needs.
        let fresh = round == 1;
        let measured = real(&step).await?;
        all.extend(
            measured
                .into_iter()
                .filter(|one| fresh || one.name != IDLE_MEMORY),
        );
        all.extend(simulated(&step).await?);
        step.done("");
    }
    print_table(&all);
    Ok(ExitCode::SUCCESS)
}

/// Medians beside their limits, in the order in which they were first measured.
pub(super) fn print_table(all: &[Measured]) {
    let mut names: Vec<&str> = Vec::new();
    for one in all {
        if !names.contains(&one.name) {
            names.push(one.name);
        }
    }
    printer::data(format!(
        "{:<58} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "MEASURED", "MEDIAN", "MIN", "MAX", "LIMIT", "OF LIMIT"
    ));
    for name in names {
        let of_name: Vec<&Measured> = all.iter().filter(|one| one.name == name).collect();
        let mut values: Vec<f64> = of_name.iter().map(|one| one.value).collect();
        values.sort_by(f64::total_cmp);
        let (unit, limit) = (of_name[0].unit, of_name[0].limit);
        let show = |value: f64| {
            // What is small against whole numbers would all be zero.
            let digits = if limit < 50.0 { 2 } else { 0 };
            format!("{value:.digits$} {unit}")
        };
        let median = values[values.len() / 2];
        let (shown_limit, of_limit) = if limit.is_finite() {
            (show(limit), format!("{:.2}", median / limit))
        } else {
            ("-".to_owned(), "-".to_owned())
        };
        printer::data(format!(
            "{name:<58} {:>10} {:>10} {:>10} {shown_limit:>10} {of_limit:>9}",
            show(median),
            show(values[0]),
            show(values[values.len() - 1]),
        ));
    }
}

fn size(simulated: bool) -> SizeArguments {
    SizeArguments {
        workers: 2,
        worker_cpu: 1000,
        worker_memory: 1 << 30,
        zones: vec!["cn-hangzhou-k".to_string()],
        simulated,
        simulated_start_delay: Duration::ZERO,
        hpa_sync_period: Duration::from_secs(1),
    }
}

async fn start(folder: &std::path::Path, simulated: bool) -> anyhow::Result<Cluster> {
    let data_dir = DataDir::new(&folder.join("cluster"));
    Cluster::start(ClusterConfig::new(
        data_dir,
        size(simulated),
        ([127, 0, 0, 1], 0).into(),
    ))
    .await
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Start-up, idle memory and the way from a crossed threshold to the first overflow answer, with real containers.
async fn real(step: &Step) -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir().context("create a temporary data directory")?;
    step.update("starting");
    let begin = Instant::now();
    let cluster = start(folder.path(), false).await?;
    let ready = begin.elapsed();
    step.update("idle");
    tokio::time::sleep(SETTLE).await;
    let memory = resident_mebibytes(std::path::Path::new("/proc/self/status"))?;
    step.update("one overflow, real containers");
    sample::image::build(cluster.runtime().images()).await?;
    let overflow = latency::measure(&cluster).await;
    let stamps = cluster.start_stamps();
    cluster.stop().await?;
    let overflow = overflow?;
    Ok(vec![
        Measured {
            name: "start to API ready",
            unit: "ms",
            limit: 1000.0,
            value: millis(stamps.api_ready),
        },
        Measured {
            name: "start to 2 workers and the virtual node Ready",
            unit: "ms",
            limit: 2000.0,
            value: millis(ready),
        },
        Measured {
            name: IDLE_MEMORY,
            unit: "MiB",
            limit: 100.0,
            value: memory,
        },
        Measured {
            name: "threshold crossed to first overflow answer",
            unit: "ms",
            limit: 3000.0,
            value: millis(overflow.crossed_to_served),
        },
        Measured {
            name: "  of that, besides container start and readiness",
            unit: "ms",
            limit: 300.0,
            value: millis(overflow.own_code),
        },
    ])
}

/// Resident memory by a process's `/proc/<pid>/status`.
fn resident_mebibytes(path: &std::path::Path) -> anyhow::Result<f64> {
    let status =
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("find VmRSS")?;
    let kibibytes: f64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .context("parse VmRSS")?;
    Ok(kibibytes / 1024.0)
}

/// 1,000 overflow pods on the simulated backend with no start delay, up and down.
async fn simulated(step: &Step) -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir().context("create a temporary data directory")?;
    let cluster = start(folder.path(), true).await?;
    step.update(format!("{PODS} simulated overflow pods"));
    let result = scale_both_ways(&cluster.client()).await;
    cluster.stop().await?;
    let (up, down) = result?;
    Ok(vec![
        Measured {
            name: "1,000 simulated overflow pods Running after the scale call",
            unit: "ms",
            limit: 2000.0,
            value: millis(up),
        },
        Measured {
            name: "all gone again after the scale call",
            unit: "ms",
            limit: 3000.0,
            value: millis(down),
        },
    ])
}

async fn scale_both_ways(client: &Client) -> anyhow::Result<(Duration, Duration)> {
    let namespace = "default";
    let parameters = PatchParams::apply("springtide-bench").force();
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(client.clone(), namespace);
    let template = json!({
        "metadata": {"labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "main", "image": sample::image::REFERENCE, "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bench"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "bench"}}, "template": template},
    });
    deployments
        .patch("bench", &parameters, &Patch::Apply(deployment))
        .await
        .context("apply the bench Deployment")?;
    let kind = kube::api::GroupVersionKind::gvk(
        "autoscaling.alibabacloud.com",
        "v1beta1",
        "ElasticWorkload",
    );
    let resource = kube::api::ApiResource::from_gvk_with_plural(&kind, "elasticworkloads");
    let workloads: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let workload = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "metadata": {"name": "bench"},
        "spec": {
            "replicas": 0,
            "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "bench", "min": 0, "max": 0},
            "elasticUnit": [{"name": "virtual-kubelet", "labels": {"alibabacloud.com/eci": "true"}}],
        },
    });
    workloads
        .patch("bench", &parameters, &Patch::Apply(workload))
        .await
        .context("apply the bench ElasticWorkload")?;
    wait_for_unit(&deployments).await?;
    let up = scale_and_wait(client, &workloads, PODS).await?;
    let down = scale_and_wait(client, &workloads, 0).await?;
    Ok((up, down))
}

async fn wait_for_unit(
    deployments: &Api<k8s_openapi::api::apps::v1::Deployment>,
) -> anyhow::Result<()> {
    let until = Instant::now() + TIMEOUT;
    while deployments
        .get_opt("bench-unit-virtual-kubelet")
        .await?
        .is_none()
    {
        if Instant::now() > until {
            bail!("the unit's Deployment was not made");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Sets `/scale` and waits until so many pods are Running, or none is left.
async fn scale_and_wait(
    client: &Client,
    workloads: &Api<DynamicObject>,
    replicas: usize,
) -> anyhow::Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let config = watcher::Config::default().labels("app=bench");
    let mut events = watcher(pods, config).boxed();
    let mut running = std::collections::BTreeMap::new();
    let mut begin: Option<Instant> = None;
    let until = Instant::now() + TIMEOUT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(Some(event)) = tokio::time::timeout(left, events.next()).await else {
            bail!(
                "{} of {replicas} pods after {} s",
                running.values().filter(|is_running| **is_running).count(),
                TIMEOUT.as_secs()
            );
        };
        match event.context("watch the bench's pods")? {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                running.insert(
                    pod.metadata.name.clone().unwrap_or_default(),
                    phase == Some("Running"),
                );
            }
            watcher::Event::Delete(pod) => {
                running.remove(&pod.metadata.name.unwrap_or_default());
            }
            watcher::Event::Init => running.clear(),
            watcher::Event::InitDone if begin.is_none() => {
                begin = Some(Instant::now());
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                workloads
                    .patch_scale("bench", &PatchParams::default(), &patch)
                    .await
                    .context("scale the bench ElasticWorkload")?;
            }
            watcher::Event::InitDone => {}
        }
        let done = if replicas == 0 {
            running.is_empty()
        } else {
            running.values().filter(|is_running| **is_running).count() >= replicas
        };
        if let (true, Some(begin)) = (done, begin) {
            return Ok(begin.elapsed());
        }
    }
}

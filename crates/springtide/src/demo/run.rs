//! The demo itself: cluster, shop, load, watching, waiting, report.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use elastic_core::timeline::BurstMoments;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tool_load::{LoadPlan, LoadReport, Target, closed_steps};

use crate::cli::{DemoArguments, SizeArguments};
use crate::cluster::{self, Cluster, ClusterConfig};
use crate::command::{burst, load_balancers, wait_for_signal};
use crate::data_dir::DataDir;
use crate::demo::judge::{self, Promise};
use crate::demo::manifests::{self, NAMESPACE, SHOP, SOURCE_MAX};
use crate::demo::record::{Recorder, Sample, Tier};
use crate::demo::report::{LedgerSummary, Report};
use crate::host;
use crate::printer::{self, Step};
use crate::sample;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const RETURN_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Steps of the users' rise.
const STEPS: u32 = 10;
/// Mean pause of a user at 1,000 users. Fewer users pause less, so that a smaller demo is the same burst.
const THINK_TIME: Duration = Duration::from_secs(2);
const USERS_OF_THINK_TIME: u32 = 1000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// 10⁻⁸ CNY for a second of one owned vCPU with 2 GiB: 298 CNY a month of 720 hours for 2 vCPU and 4 GiB.
const OWNED_UNITS_PER_VCPU_SECOND: f64 = 298e8 / (720.0 * 3600.0) / 2.0;

/// Runs the demo; the exit code is non-zero when a promise was broken.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let DemoArguments {
        users,
        duration,
        report_dir,
        keep,
        data_dir,
    } = arguments;
    host::check()?;
    let temporary = match data_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("create a temporary data directory")?),
    };
    let folder = data_dir.unwrap_or_else(|| {
        temporary
            .as_ref()
            .map_or_else(Default::default, |one| one.path().join("cluster"))
    });
    let data_dir = DataDir::new(&folder);
    let size = size();
    let step = Step::start("starting a local cluster");
    let config = ClusterConfig::new(data_dir.clone(), size.clone(), ([127, 0, 0, 1], 0).into());
    let cluster = Cluster::start(config).await?;
    step.done(format!(
        "{} workers, {} virtual node, API {}",
        size.workers,
        size.zones.len(),
        cluster.status().api.url
    ));

    let shown = show(&cluster, &size, users, duration).await;
    let mut report = match shown {
        Ok(report) => report,
        Err(error) => {
            cluster.stop().await?;
            return Err(error);
        }
    };
    if keep {
        finish(&report, &report_dir)?;
        printer::note(format!(
            "\n    export KUBECONFIG={}\n\nthe cluster stays up; Ctrl-C stops it",
            cluster.status().kubeconfig.display()
        ));
        wait_for_signal().await?;
        cluster.stop().await?;
    } else {
        let step = Step::start("taking the cluster down");
        cluster.stop().await?;
        let left = cluster::leftovers(&data_dir).await;
        step.done("");
        report.promises.push(judge::nothing_left(&left));
        finish(&report, &report_dir)?;
    }
    Ok(if report.all_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Two workers with a core each, one zone.
fn size() -> SizeArguments {
    SizeArguments {
        workers: 2,
        worker_cpu: 1000,
        worker_memory: 1 << 30,
        zones: vec!["cn-hangzhou-k".to_string()],
        simulated: false,
        simulated_start_delay: Duration::ZERO,
        hpa_sync_period: Duration::from_secs(1),
    }
}

fn finish(report: &Report, folder: &std::path::Path) -> anyhow::Result<()> {
    report.write(folder)?;
    let load = &report.load;
    printer::note(format!(
        "\n{} requests, {:.4} % succeeded; response time p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms",
        load.requests,
        load.success_rate * 100.0,
        load.response_time.p50,
        load.response_time.p95,
        load.response_time.p99
    ));
    if let Some(total) = report.timeline.as_array().and_then(|steps| steps.last()) {
        printer::note(format!(
            "first overflow pod ready {} ms after the scale was set",
            total["sinceStartMilliseconds"]
        ));
    }
    for promise in &report.promises {
        printer::note(format!(
            "{} {}: {}",
            if promise.kept { "✓" } else { "✗" },
            promise.name,
            promise.detail
        ));
    }
    printer::note(format!("report: {}", folder.join("report.html").display()));
    Ok(())
}

async fn show(
    cluster: &Cluster,
    size: &SizeArguments,
    users: u32,
    duration: Duration,
) -> anyhow::Result<Report> {
    let client = cluster.client();
    let step = Step::start("building the sample shop's image");
    sample::image::build(cluster.runtime().images()).await?;
    step.done(sample::image::REFERENCE);

    let step = Step::start("deploying the shop");
    let shutdown = CancellationToken::new();
    let recorder = Arc::new(Mutex::new(Recorder::default()));
    manifests::apply(&client).await?;
    let watching = tokio::spawn(follow_pods(
        client.clone(),
        recorder.clone(),
        shutdown.clone(),
    ));
    let url = wait_until_served(&client).await?;
    step.done(&url);

    let started = Timestamp::now();
    let sampling = tokio::spawn(sample_cluster(
        recorder.clone(),
        prices(size),
        shutdown.clone(),
    ));
    let first_burst = tokio::spawn(first_burst(client.clone(), shutdown.clone()));
    let load = put_load(&url, users, duration, &recorder).await?;

    let step = Step::start("waiting until everything serverless is gone");
    let groups_left = wait_for_return(cluster, &recorder, &step).await?;
    step.done(format!("{groups_left} container groups left"));
    shutdown.cancel();
    let timeline = first_burst.await.context("the burst's watching failed")?;
    let samples = sampling.await.context("the cluster's sampling failed")?;
    watching.await.context("the pods' watching failed")?;
    let moments = recorder
        .lock()
        .map(|recorder| recorder.moments.clone())
        .unwrap_or_default();
    let (ledger, ledger_promise) = ledger(cluster).await?;
    let mut promises: Vec<Promise> = vec![
        judge::success(load.requests, load.successes),
        judge::owned_first(&moments, SOURCE_MAX),
        judge::serverless_first_out(&moments),
        judge::nothing_billed(groups_left),
        ledger_promise,
    ];
    promises.insert(1, judge::overflowed(&moments));
    Ok(Report {
        users,
        started: started.to_string(),
        simulated: size.simulated,
        promises,
        load,
        samples,
        moments,
        ledger,
        timeline: serde_json::to_value(timeline)?,
    })
}

async fn follow_pods(client: Client, recorder: Arc<Mutex<Recorder>>, shutdown: CancellationToken) {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let mut events = watcher(pods, watcher::Config::default()).boxed();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let Ok(mut recorder) = recorder.lock() else {
            return;
        };
        match event {
            Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                recorder.applied(&pod, Timestamp::now())
            }
            Some(Ok(watcher::Event::Delete(pod))) => recorder.deleted(&pod, Timestamp::now()),
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(%error, "pod watch broke, starting it again"),
            None => return,
        }
    }
}

/// The shop's address once its source is ready and the balancer answers.
pub(super) async fn wait_until_served(client: &Client) -> anyhow::Result<String> {
    let until = Instant::now() + READY_TIMEOUT;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let mut last = String::from("nothing");
    while Instant::now() < until {
        let status = deployments
            .get(SHOP)
            .await
            .context("get the shop's Deployment")?
            .status
            .unwrap_or_default();
        let balancer = load_balancers(client)
            .await?
            .into_iter()
            .find(|one| one.name == SHOP && one.namespace == NAMESPACE);
        last = format!(
            "{} ready replicas, balancer {balancer:?}",
            status.ready_replicas.unwrap_or(0)
        );
        if let (Some(2..), Some(balancer)) = (status.ready_replicas, balancer)
            && let Some(port) = balancer.ports.first()
            && tokio::net::TcpStream::connect((
                balancer.ip.as_str(),
                u16::try_from(*port).unwrap_or(80),
            ))
            .await
            .is_ok()
        {
            return Ok(format!("http://{}:{port}/", balancer.ip));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
    bail!(
        "the shop was not served within {} s; last seen: {last}",
        READY_TIMEOUT.as_secs()
    )
}

async fn put_load(
    url: &str,
    users: u32,
    duration: Duration,
    recorder: &Arc<Mutex<Recorder>>,
) -> anyhow::Result<LoadReport> {
    let step = Step::start(format!(
        "flash sale: up to {users} users for {} s",
        duration.as_secs()
    ));
    let plan = LoadPlan {
        target: Target::parse(url)?,
        stages: closed_steps(users, STEPS, duration),
        think_time: THINK_TIME
            .mul_f64(f64::from(users.min(USERS_OF_THINK_TIME)) / f64::from(USERS_OF_THINK_TIME)),
        request_timeout: REQUEST_TIMEOUT,
        count_header: Some("x-served-by".to_string()),
        seed: 1,
    };
    let mut run = tool_load::run(plan, CancellationToken::new()).await?;
    while run.live.changed().await.is_ok() {
        let now = run.live.borrow().clone();
        let (owned, serverless) = counts(recorder);
        step.update(format!(
            "{:>3} s  {:>4} users  {:>4} requests/s  {} failed  p95 {:>4.0} ms  pods {owned} owned + {serverless} serverless",
            now.second, now.users, now.requests, now.failures, now.response_time.p95
        ));
    }
    let report = run.report().await.context("the load tester failed")?;
    step.done(format!(
        "{} requests, {} failed",
        report.requests,
        report.requests - report.successes
    ));
    Ok(report)
}

fn counts(recorder: &Arc<Mutex<Recorder>>) -> (u32, u32) {
    recorder
        .lock()
        .map(|recorder| {
            (
                recorder.count(Tier::Owned).0,
                recorder.count(Tier::Serverless).0,
            )
        })
        .unwrap_or_default()
}

/// The steps of the first rise that an overflow pod got through; empty when none did before `shutdown`.
async fn first_burst(
    client: Client,
    shutdown: CancellationToken,
) -> Vec<elastic_core::timeline::Step> {
    let mut first: Option<BurstMoments> = None;
    loop {
        let now = burst(&client, NAMESPACE, SHOP).await.ok();
        let now = now.filter(|burst| burst.pods.iter().any(|pod| pod.ready.is_some()));
        // The next rise begins another timeline; the first one is then as complete as it gets.
        let (known, over) = match (first.take(), now) {
            (Some(known), Some(now)) if now.scaled != known.scaled => (Some(known), true),
            (_, Some(now)) => {
                let over = now.first_served.is_some();
                (Some(now), over)
            }
            (known, None) => (known, false),
        };
        if over || shutdown.is_cancelled() {
            return known
                .as_ref()
                .map(elastic_core::timeline::timeline)
                .unwrap_or_default();
        }
        first = known;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(POLL_PERIOD) => {}
        }
    }
}

/// Until no serverless pod and no billed group is left, or time is up; gives the groups left.
async fn wait_for_return(
    cluster: &Cluster,
    recorder: &Arc<Mutex<Recorder>>,
    step: &Step,
) -> anyhow::Result<usize> {
    let until = Instant::now() + RETURN_TIMEOUT;
    loop {
        let groups = cluster
            .cloud()
            .ledger()
            .await
            .context("read the ledger")?
            .entries
            .iter()
            .filter(|entry| entry.until.is_none())
            .count();
        let (owned, serverless) = counts(recorder);
        step.update(format!(
            "{serverless} serverless pods, {groups} container groups, {owned} owned pods"
        ));
        if groups == 0 && serverless == 0 || Instant::now() > until {
            return Ok(groups);
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// Cost by the hour of the workers and of one serverless pod of the shop.
struct Prices {
    owned_per_hour: f64,
    serverless_pod_per_hour: f64,
}

fn prices(size: &SizeArguments) -> Prices {
    let vcpu = f64::from(size.workers) * size.worker_cpu as f64 / 1000.0;
    let catalog = cloud_api::catalog::PriceList::default();
    // The shop's pod: 0.25 vCPU and 128 MiB, rounded up to 0.25 vCPU and 0.5 GiB.
    let size = cloud_api::catalog::Size {
        vcpu_milli: 250,
        memory_mib: 512,
    };
    let pod = catalog.per_second(size, false, 0).as_cny();
    Prices {
        owned_per_hour: vcpu * OWNED_UNITS_PER_VCPU_SECOND * 3600.0 / 1e8,
        serverless_pod_per_hour: pod * 3600.0,
    }
}

async fn sample_cluster(
    recorder: Arc<Mutex<Recorder>>,
    prices: Prices,
    shutdown: CancellationToken,
) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        if let Ok(recorder) = recorder.lock() {
            let (owned, owned_ready) = recorder.count(Tier::Owned);
            let (serverless, serverless_ready) = recorder.count(Tier::Serverless);
            samples.push(Sample {
                second: start.elapsed().as_secs_f64(),
                owned,
                owned_ready,
                serverless,
                serverless_ready,
                owned_cost_per_hour: prices.owned_per_hour,
                serverless_cost_per_hour: prices.serverless_pod_per_hour * f64::from(serverless),
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return samples,
            _ = second.tick() => {}
        }
    }
}

/// The ledger, and whether its total is what its entries say.
async fn ledger(cluster: &Cluster) -> anyhow::Result<(LedgerSummary, Promise)> {
    let ledger = cluster.cloud().ledger().await.context("read the ledger")?;
    let total = ledger.total.0;
    let prices = cloud_api::catalog::PriceList::default();
    let recomputed: u128 = ledger
        .entries
        .iter()
        .map(|entry| prices.amount(entry.size, entry.seconds).0)
        .sum();
    let summary = LedgerSummary {
        currency: "CNY".to_string(),
        total_units: total.to_string(),
        groups: ledger.entries.len(),
        group_seconds: ledger.entries.iter().map(|entry| entry.seconds).sum(),
    };
    Ok((summary, judge::ledger_adds_up(total, recomputed)))
}

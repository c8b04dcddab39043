//! `cargo xtask bench virtual-node`: the virtual node alone, as the process a cluster's owner runs, between an API server
//! and a cloud that this process plays (container groups on paper, no start delay).
//!
//! Nothing here is asserted: a slow machine prints slow numbers and exits zero.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cloud_api::Credentials;
use elastic_core::names::{POD_MOMENTS_ANNOTATION, PROVIDER_TAINT_KEY};
use elastic_core::timeline::PodMoments;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use local_apiserver::{ApiServer, ApiServerConfig};
use local_cloud::backend::{SimulatedBackend, StartDelay};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig, VSwitchConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::cluster::kubeconfig;
use crate::demo::bench::{Measured, millis, print_table};
use crate::printer::{self, Step};

const ZONE: &str = "cn-hangzhou-h";
pub(super) const NODE: &str = "virtual-kubelet-cn-hangzhou-h";
const NAMESPACE: &str = "default";
/// Pods that come all at once.
const BURST: usize = 1_000;
/// Pods of the steady state.
const STEADY: usize = 5_000;
/// Pace of the latency measurement.
const PODS_PER_SECOND: u32 = 200;
const PACED: usize = 1_000;
/// Pods asked for at the same time.
const IN_FLIGHT: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(180);
/// The steady state begins when no pod has been written for this long.
const QUIET: Duration = Duration::from_secs(5);
/// It is not waited for longer than this.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long the steady state is watched: some complete comparisons with the cloud, leases, a write of the node's status.
const STEADY_WINDOW: Duration = Duration::from_secs(60);

/// Measures `repeat` times and prints a table on standard output.
pub async fn run(repeat: u32) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for round in 1..=repeat {
        let step = Step::start(format!("round {round} of {repeat}"));
        all.extend(one_round(&step).await?);
        step.done("");
    }
    print_table(&all);
    Ok(ExitCode::SUCCESS)
}

/// What this process plays, and the virtual node between.
struct World {
    api: ApiServer,
    _cloud: LocalCloud,
    virtual_node: Child,
    client: Client,
    _folder: tempfile::TempDir,
}

async fn one_round(step: &Step) -> anyhow::Result<Vec<Measured>> {
    step.update("starting");
    let mut world = World::start().await?;
    let measured = world.measure(step).await;
    world
        .virtual_node
        .kill()
        .await
        .context("end the virtual node")?;
    world.api.shutdown().await;
    measured
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a temporary directory")?;
        let api = ApiServer::start(ApiServerConfig::new(folder.path().join("api"))).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        api.serve(listener);
        let access = folder.path().join("kubeconfig");
        let credentials = api.credentials();
        let text = kubeconfig::text(&kubeconfig::Access {
            server: &url,
            ca_pem: &credentials.ca_pem,
            certificate_pem: &credentials.admin_certificate_pem,
            key_pem: &credentials.admin_key_pem,
        })?;
        std::fs::write(&access, text).context("write the kubeconfig")?;

        let cloud = start_cloud(folder.path().join("cloud")).await?;
        let client = api.client();
        give_account(&client).await?;
        let virtual_node = start_virtual_node(&access, &cloud.endpoint())?;
        wait_for_node(&client).await?;
        Ok(Self {
            api,
            _cloud: cloud,
            virtual_node,
            client,
            _folder: folder,
        })
    }

    async fn measure(&self, step: &Step) -> anyhow::Result<Vec<Measured>> {
        let process = self
            .virtual_node
            .id()
            .context("the virtual node has ended")?;
        step.update(format!("{BURST} pods at once"));
        printer::note(format!("without pods: {}", Memory::of(process)?));
        let burst = self.burst("burst", BURST).await?;
        self.clear().await?;
        step.update(format!("{PODS_PER_SECOND} pods a second"));
        let mut latencies = self.paced().await?;
        latencies.sort_by(f64::total_cmp);
        let p99 = latencies[latencies.len() * 99 / 100];
        step.update(format!("{STEADY} pods, steady"));
        self.burst("steady", STEADY - PACED).await?;
        self.settle(process).await?;
        let before = cpu_seconds(process)?;
        tokio::time::sleep(STEADY_WINDOW).await;
        let used = cpu_seconds(process)? - before;
        let memory = Memory::of(process)?;
        printer::note(format!("after {STEADY_WINDOW:?} of rest: {memory}"));
        Ok(vec![
            measured("1,000 bound pods Running", "ms", 2_000.0, millis(burst)),
            measured(
                "pod bound to group created, p99 at 200 pods/s",
                "ms",
                50.0,
                p99,
            ),
            measured(
                "resident memory with 5,000 pods",
                "MB",
                60.0,
                memory.resident(),
            ),
            measured(
                "CPU of a core with 5,000 pods, steady",
                "%",
                2.0,
                used / STEADY_WINDOW.as_secs_f64() * 100.0,
            ),
        ])
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// From the first call until all of them are Running.
    async fn burst(&self, name: &str, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let created = stream::iter(0..count)
            .map(|number| self.create(format!("{name}-{number}")))
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(|_| std::future::ready(Ok(())));
        let (created, running) = tokio::join!(created, self.all_running(name, count));
        created?;
        running?;
        Ok(began.elapsed())
    }

    /// Milliseconds from the acknowledged bound pod to the cloud's acceptance, by the virtual node's own stamps.
    async fn paced(&self) -> anyhow::Result<Vec<f64>> {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / PODS_PER_SECOND);
        let mut creating = tokio::task::JoinSet::new();
        for number in 0..PACED {
            tick.tick().await;
            let (pods, pod) = (self.pods(), pod(&format!("paced-{number}"))?);
            creating.spawn(async move {
                let made = pods.create(&PostParams::default(), &pod).await?;
                anyhow::Ok((made.name_any(), Timestamp::now()))
            });
        }
        let mut bound = BTreeMap::new();
        while let Some(made) = creating.join_next().await {
            let (name, at) = made??;
            bound.insert(name, at);
        }
        self.all_running("paced", PACED).await?;
        let list = self.pods().list(&ListParams::default()).await?;
        let latency = |pod: &Pod| {
            let bound = bound.get(&pod.name_any())?;
            let text = pod.annotations().get(POD_MOMENTS_ANNOTATION)?;
            let moments: PodMoments = serde_json::from_str(text).ok()?;
            let took = moments.accepted?.duration_since(*bound);
            Some((took.as_secs_f64() * 1_000.0).max(0.0))
        };
        let latencies: Vec<f64> = list.iter().filter_map(latency).collect();
        if latencies.len() < PACED {
            bail!(
                "{} of {PACED} pods tell when they were accepted",
                latencies.len()
            );
        }
        Ok(latencies)
    }

    async fn create(&self, name: String) -> anyhow::Result<()> {
        let made = self
            .pods()
            .create(&PostParams::default(), &pod(&name)?)
            .await;
        made.map(drop).with_context(|| format!("create pod {name}"))
    }

    async fn all_running(&self, name: &str, count: usize) -> anyhow::Result<()> {
        let selector = watcher::Config::default().labels(&format!("bench={name}"));
        let mut events = watcher(self.pods(), selector).boxed();
        let mut running = std::collections::BTreeSet::new();
        let deadline = tokio::time::sleep(TIMEOUT);
        tokio::pin!(deadline);
        while running.len() < count {
            let event = tokio::select! {
                () = &mut deadline => bail!("{} of {count} pods are Running after {TIMEOUT:?}", running.len()),
                event = events.try_next() => event?,
            };
            if let Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                if phase == Some("Running") {
                    running.insert(pod.name_any());
                }
            }
        }
        Ok(())
    }

    /// Waits until no pod is written any more, and tells how long that took and what it cost.
    async fn settle(&self, process: u32) -> anyhow::Result<()> {
        let (began, before) = (Instant::now(), cpu_seconds(process)?);
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut changes = watcher(pods, watcher::Config::default()).boxed();
        let mut writes = 0_usize;
        while began.elapsed() < SETTLE_TIMEOUT {
            match tokio::time::timeout(QUIET, changes.try_next()).await {
                Err(_) => break,
                Ok(change) => {
                    let write = matches!(change?, Some(watcher::Event::Apply(_)));
                    writes += usize::from(write);
                }
            }
        }
        let (took, used) = (began.elapsed(), cpu_seconds(process)? - before);
        printer::note(format!(
            "after the last pod was Running, pods were written {writes} times; quiet after {:.0} s, {:.0} % of a core",
            took.as_secs_f64(),
            used / took.as_secs_f64() * 100.0
        ));
        Ok(())
    }

    async fn clear(&self) -> anyhow::Result<()> {
        let (how, all) = (DeleteParams::default(), ListParams::default());
        self.pods().delete_collection(&how, &all).await?;
        let until = Instant::now() + TIMEOUT;
        while !self.pods().list_metadata(&all).await?.items.is_empty() {
            if Instant::now() > until {
                bail!("pods are left {TIMEOUT:?} after their deletion");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

pub(super) fn measured(name: &'static str, unit: &'static str, limit: f64, value: f64) -> Measured {
    Measured {
        name,
        unit,
        limit,
        value,
    }
}

/// A pod as a scheduler would have bound it.
fn pod(name: &str) -> anyhow::Result<Pod> {
    let group = name.split('-').next().unwrap_or_default();
    let pod = json!({
        "metadata": {"name": name, "labels": {"bench": group}},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"key": PROVIDER_TAINT_KEY, "operator": "Exists"}],
            "containers": [{"name": "main", "image": "bench:1", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}],
        },
    });
    serde_json::from_value(pod).context("make a pod")
}

/// Container groups on paper, without a delay, behind the credentials that the virtual node is given.
pub(super) async fn start_cloud(folder: PathBuf) -> anyhow::Result<LocalCloud> {
    let key = Credentials::new("bench", "bench-secret");
    let mut config = LocalCloudConfig::new(folder, key);
    config.v_switches = vec![VSwitchConfig {
        id: "vsw-bench".to_string(),
        zone: ZONE.to_string(),
        cidr: "10.64.0.0/10".to_string(),
    }];
    let now = Arc::new(Timestamp::now);
    let backend = Arc::new(SimulatedBackend::new(StartDelay::default(), now));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    Ok(LocalCloud::start(config, backend, listener, CloudSources::system()).await?)
}

/// This program again, as its own process, so that its memory and CPU are its own.
pub(super) fn start_virtual_node(
    kubeconfig: &std::path::Path,
    cloud: &str,
) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    Command::new(program)
        .args([
            "virtual-node",
            "run",
            "--health-listen",
            "127.0.0.1:0",
            "--kubelet-port",
            "0",
        ])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .env("ECI_ENDPOINT", cloud)
        .env("ECI_REGION", "cn-hangzhou")
        .env("ECI_VSWITCH", "vsw-bench")
        .env("ECI_ACCESS_KEY", "bench")
        .env("ECI_SECRET_KEY", "bench-secret")
        .env("ECI_CALL_LIMITS", "none")
        .env("ALIYUN_CLUSTERID", "c-bench")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start the virtual node")
}

/// What controllers put into every namespace of a real cluster: pods mount its token, and wait for it where it is missing.
async fn give_account(client: &Client) -> anyhow::Result<()> {
    let (accounts, maps) = (
        Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE),
        Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE),
    );
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let authority = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "bench"}});
    let authority = serde_json::from_value(authority)?;
    maps.create(&PostParams::default(), &authority).await?;
    Ok(())
}

async fn wait_for_node(client: &Client) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let until = Instant::now() + TIMEOUT;
    while nodes.get_opt(NODE).await?.is_none() {
        if Instant::now() > until {
            bail!("node {NODE} did not appear within {TIMEOUT:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What a process holds, in megabytes (10⁶ bytes, as limits say it).
struct Memory {
    /// Heap and stacks.
    own: f64,
    /// Pages of the program and its libraries, which the kernel shares and takes back.
    file: f64,
    /// The most it ever held.
    peak: f64,
}

impl Memory {
    fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let megabytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes: f64 = line?.trim().trim_end_matches("kB").trim().parse().ok()?;
            Some(kibibytes * 1024.0 / 1e6)
        };
        let field = |name: &str| megabytes(name).with_context(|| format!("find {name} in {path}"));
        Ok(Self {
            own: field("RssAnon:")?,
            file: field("RssFile:")?,
            peak: field("VmHWM:")?,
        })
    }

    fn resident(&self) -> f64 {
        self.own + self.file
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.1} MB resident ({:.1} of its own, {:.1} of the program's file), {:.1} at most so far",
            self.resident(),
            self.own,
            self.file,
            self.peak
        )
    }
}

/// User and system time so far; the fields of `/proc/<pid>/stat` after the command's name, in ticks.
pub(super) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).context("read stat")?;
    let fields = text.rsplit_once(')').context("read stat")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let sum = ticks(11).zip(ticks(12)).context("read stat")?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok((sum.0 + sum.1) / per_second as f64)
}

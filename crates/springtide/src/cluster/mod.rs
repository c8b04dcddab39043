//! A whole local cluster in this process: composed here, and taken apart here.
//!
//! The order of [`Cluster::start`] is the order of need: API server, network, controllers, workers, cloud, elastic parts.
//! Each part gets a client, listeners and a stop signal; none of them knows the others.

mod addresses;
mod cloud;
mod elastic;
pub(crate) mod kubeconfig;
mod metrics;
mod workers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
pub(crate) use elastic::eci_client;
use elastic_install::built_in;
use local_apiserver::{ApiServer, ApiServerConfig};
use local_cloud::LocalCloud;
use local_controllers::ControllersConfig;
use local_gateway::GatewayConfig;
use local_network::{ClusterNetwork, DnsConfig, NetworkConfig};
use local_node::Worker;
use local_runtime::{Runtime, RuntimeConfig};
pub use metrics::MetricsSources;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::SHIM;
use crate::cli::{CallLimitsChoice, SizeArguments};
use crate::data_dir::{DataDir, Lock, write_private};
use crate::status::{ApiStatus, ClusterStatus};

/// Parts get this long to end before the rest is taken down under them.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a cluster is to be.
pub struct ClusterConfig {
    pub data_dir: DataDir,
    pub size: SizeArguments,
    pub listen: SocketAddr,
    /// Whether the cloud refuses calls beyond the documented limits; measuring and showing go without.
    pub cloud_call_limits: CallLimitsChoice,
    /// Whether the elastic parts run in this process; otherwise they may be installed as an add-on.
    pub elastic_parts: bool,
    /// Where business metrics come from.
    pub metrics: MetricsSources,
}

impl ClusterConfig {
    pub fn new(data_dir: DataDir, size: SizeArguments, listen: SocketAddr) -> Self {
        Self {
            data_dir,
            size,
            listen,
            cloud_call_limits: CallLimitsChoice::None,
            elastic_parts: true,
            metrics: MetricsSources::default(),
        }
    }
}

/// A served cluster.
pub struct Cluster {
    status: ClusterStatus,
    data_dir: DataDir,
    api: ApiServer,
    cloud: LocalCloud,
    workers: Vec<Worker>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    runtime: Runtime,
    stamps: StartStamps,
    _lock: Lock,
}

/// How long parts of the start took.
#[derive(Clone, Copy, Debug)]
pub struct StartStamps {
    /// From the call to an API server that answers.
    pub api_ready: Duration,
}

impl Cluster {
    /// Starts everything; returns when the API answers and all nodes are Ready. On failure nothing is left running.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let lock = config.data_dir.open()?;
        let data_dir = config.data_dir.clone();
        match Self::start_parts(config, lock).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                if let Err(cleanup) = remove_leftovers(&data_dir).await {
                    tracing::warn!(error = %cleanup, "what was started is not removed completely; springtide down does it");
                }
                Err(error)
            }
        }
    }

    async fn start_parts(config: ClusterConfig, lock: Lock) -> anyhow::Result<Self> {
        let ClusterConfig {
            data_dir,
            size,
            listen,
            cloud_call_limits: limits,
            elastic_parts,
            metrics: metrics_sources,
        } = config;
        let begin = Instant::now();
        let cluster_id = data_dir.cluster_id();
        let before = ClusterStatus::read_file(&data_dir.status_file()).unwrap_or_default();
        let before = before.as_ref();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let network = ClusterNetwork::open(NetworkConfig {
            cluster_id: cluster_id.clone(),
        })
        .await
        .context("set up the cluster's network")?;
        let old_api = before.and_then(|status| status.api.url.rsplit(':').next()?.parse().ok());
        let api_listener = addresses::listen(listen, old_api, "API server", "--listen").await?;
        let api_address = api_listener
            .local_addr()
            .context("read the API server's address")?;
        let api = start_api(&data_dir, &network, api_listener).await?;
        let client = api.client();
        let stamps = StartStamps {
            api_ready: begin.elapsed(),
        };

        let runtime = open_runtime(&data_dir, &cluster_id).await?;
        start_controllers(&api, &size, &shutdown, &mut tasks);
        let gateway = GatewayConfig {
            cluster_id: cluster_id.clone(),
            dns: DnsConfig::default().with_host_resolvers(),
        };
        spawn(
            &mut tasks,
            "gateway",
            local_gateway::run(client.clone(), network.clone(), gateway, shutdown.clone()),
        );

        let (workers, cloud) = tokio::try_join!(
            workers::start(&data_dir, &size, &api, &runtime, &network, &shutdown),
            cloud::start(&data_dir, &size, limits, &runtime, &network, before),
        )?;
        let (cloud, cloud_status) = cloud;
        built_in::mark(&client, elastic_parts)
            .await
            .context("say in the cluster who runs the elastic parts")?;
        elastic::start_metrics(&api, &network, &shutdown, &mut tasks).await?;
        if elastic_parts {
            elastic::start(
                &cluster_id,
                &api,
                &network,
                &cloud_status,
                metrics_sources.pushed.pushes(),
                &shutdown,
                &mut tasks,
            )
            .await?;
            metrics::start(&api, &network, metrics_sources, &shutdown, &mut tasks).await?;
        }

        let status = ClusterStatus {
            pid: std::process::id(),
            cluster_id,
            data_dir: data_dir.root().to_path_buf(),
            kubeconfig: data_dir.kubeconfig(),
            api: ApiStatus {
                url: format!("https://{api_address}"),
            },
            cloud: cloud_status,
            load_balancers: Vec::new(),
            nodes: Vec::new(),
        };
        write_kubeconfig(&data_dir, &api, &status.api.url)?;
        status.write(&data_dir)?;
        Ok(Self {
            status,
            data_dir,
            api,
            cloud,
            workers,
            tasks,
            shutdown,
            runtime,
            stamps,
            _lock: lock,
        })
    }

    /// As scripts see it.
    pub fn status(&self) -> &ClusterStatus {
        &self.status
    }

    /// An administrator's client.
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// The cloud, for its ledger.
    pub fn cloud(&self) -> &LocalCloud {
        &self.cloud
    }

    /// How long parts of the start took.
    pub fn start_stamps(&self) -> StartStamps {
        self.stamps
    }

    /// The container runtime, for images.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Ends all parts, removes containers and network; data stays.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let ended = async {
            for worker in self.workers {
                worker.stop().await;
            }
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some parts did not end in time");
        }
        // Nothing is billed for a cluster that nobody serves; the next start replaces the pods.
        if !self.cloud.delete_all(STOP_TIMEOUT).await {
            tracing::warn!("some container groups did not end in time");
        }
        self.cloud.shutdown().await;
        self.api.shutdown().await;
        let sandboxes = self.runtime.sandboxes().await;
        let removals = sandboxes
            .iter()
            .map(|sandbox| self.runtime.remove_sandbox(&sandbox.id));
        for failed in futures::future::join_all(removals)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::warn!(error = %chain(&failed), "sandbox was not removed, trying again");
        }
        let removed = remove_leftovers(&self.data_dir).await;
        let _ = std::fs::remove_file(self.data_dir.status_file());
        removed
    }
}

/// Runs a part as a task whose failure is logged.
fn spawn<E: std::error::Error>(
    tasks: &mut JoinSet<()>,
    part: &'static str,
    run: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tasks.spawn(async move {
        if let Err(error) = run.await {
            tracing::error!(part, error = %anyhow::format_err!("{}", chain(&error)), "part of the cluster ended");
        }
    });
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn open_runtime(data_dir: &DataDir, cluster_id: &str) -> anyhow::Result<Runtime> {
    let program = std::env::current_exe().context("find this program's file")?;
    let config = RuntimeConfig {
        state_dir: data_dir.runtime(),
        cluster_id: cluster_id.to_string(),
        shim_command: vec![program.into_os_string(), SHIM.into()],
    };
    let opened = Runtime::open(config).await;
    opened.context("open the container runtime")
}

async fn start_api(
    data_dir: &DataDir,
    network: &ClusterNetwork,
    listener: TcpListener,
) -> anyhow::Result<ApiServer> {
    let mut config = ApiServerConfig::new(data_dir.api());
    config.dialer = addresses::dialer(network.sockets());
    let api = ApiServer::start(config)
        .await
        .context("start the API server")?;
    let inside = network
        .sockets()
        .tcp_listen(addresses::api_inside())
        .await
        .context("listen for the API server inside the cluster's network")?;
    api.serve(listener);
    api.serve(inside);
    Ok(api)
}

fn start_controllers(
    api: &ApiServer,
    size: &SizeArguments,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let mut config = ControllersConfig {
        ca_pem: Some(api.credentials().ca_pem),
        ..ControllersConfig::default()
    };
    config.autoscaler.sync_period = size.hpa_sync_period;
    tasks.spawn(local_controllers::run(
        api.client(),
        config,
        shutdown.clone(),
    ));
}

fn write_kubeconfig(data_dir: &DataDir, api: &ApiServer, url: &str) -> anyhow::Result<()> {
    let credentials = api.credentials();
    let text = kubeconfig::text(&kubeconfig::Access {
        server: url,
        ca_pem: &credentials.ca_pem,
        certificate_pem: &credentials.admin_certificate_pem,
        key_pem: &credentials.admin_key_pem,
    })?;
    write_private(&data_dir.kubeconfig(), text.as_bytes())
}

/// Ends every container and namespace of the cluster of this data directory.
pub async fn remove_leftovers(data_dir: &DataDir) -> anyhow::Result<()> {
    let cluster_id = data_dir.cluster_id();
    let runtime = Runtime::remove_all(&data_dir.runtime(), &cluster_id).await;
    let network = ClusterNetwork::destroy(&cluster_id).await;
    runtime.context("remove the cluster's containers")?;
    network.context("remove the cluster's network")
}

/// What is still there of the cluster of this data directory; empty when all is gone.
pub async fn leftovers(data_dir: &DataDir) -> Vec<String> {
    let cluster_id = data_dir.cluster_id();
    let runtime = Runtime::leftovers(&data_dir.runtime(), &cluster_id);
    let mut left: Vec<String> = Vec::new();
    left.extend(
        runtime
            .mounts
            .iter()
            .map(|path| format!("mount {}", path.display())),
    );
    left.extend(
        runtime
            .cgroups
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    left.extend(runtime.processes.iter().map(|pid| format!("process {pid}")));
    match ClusterNetwork::leftovers(&cluster_id).await {
        Ok(names) => left.extend(names),
        Err(error) => left.push(format!(
            "the network could not be looked at: {}",
            chain(&error)
        )),
    }
    left
}

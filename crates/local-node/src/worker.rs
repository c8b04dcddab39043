//! One worker: its node object, the watch over its pods, and a task for each of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use kubelet_api::{ClusterReviewer, KubeletServer};
use local_network::{AddressPool, ClusterNetwork, NetworkError};
use local_runtime::{ResourceLimits, Runtime, SandboxStatus};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backend::WorkerBackend;
use crate::config::WorkerConfig;
use crate::events::EventSink;
use crate::node_object::{self, SystemFacts};
use crate::pod_worker::PodWorker;
use crate::setup;
use crate::termination;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The pod range is not usable.
    #[error("pod CIDR {cidr:?} of worker {node}")]
    PodCidr {
        /// The worker.
        node: String,
        /// As configured.
        cidr: String,
        /// What is wrong.
        #[source]
        source: local_network::PoolError,
    },
    /// Its address could not be set up.
    #[error("set up the address of worker {node}")]
    Network {
        /// The worker.
        node: String,
        /// Why.
        #[source]
        source: local_network::NetworkError,
    },
    /// Its kubelet cannot listen.
    #[error("listen on {address} for the kubelet of worker {node}")]
    Listen {
        /// The worker.
        node: String,
        /// Address and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its kubelet's keys are unusable.
    #[error("serve the kubelet API of worker {node}")]
    Kubelet {
        /// The worker.
        node: String,
        /// Why.
        #[source]
        source: kubelet_api::ServeError,
    },
    /// Its limits cannot be enforced.
    #[error("limit worker {node} to its capacity")]
    Limits {
        /// The worker.
        node: String,
        /// Why.
        #[source]
        source: local_runtime::RuntimeError,
    },
    /// The API server did not take the node.
    #[error("register node {node}")]
    Register {
        /// The worker.
        node: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A pod's task and what it listens to.
pub(crate) struct PodHandle {
    pub pod: watch::Sender<Option<Arc<Pod>>>,
    pub wake: Arc<Notify>,
    pub sandbox: String,
}

/// What all pods of a worker share.
pub(crate) struct Shared {
    pub config: WorkerConfig,
    pub client: Client,
    pub runtime: Runtime,
    pub network: ClusterNetwork,
    pub events: EventSink,
    pub pool: Mutex<AddressPool>,
    /// By pod UID.
    pub pods: Mutex<BTreeMap<String, PodHandle>>,
}

impl Shared {
    /// The sandbox of a pod; also the name of its network.
    pub(crate) fn sandbox_id(uid: &str) -> String {
        format!("pod-{uid}")
    }

    /// Gives a pod's address back.
    pub(crate) fn release_address(&self, ip: Option<Ipv4Addr>) {
        if let (Some(ip), Ok(mut pool)) = (ip, self.pool.lock()) {
            pool.release(ip);
        }
    }
}

/// The worker's addresses; those of sandboxes that an earlier life of this program left are taken.
async fn address_pool(
    config: &WorkerConfig,
    runtime: &Runtime,
    network: &ClusterNetwork,
) -> Result<AddressPool, WorkerError> {
    let unusable = |source| WorkerError::PodCidr {
        node: config.name.clone(),
        cidr: config.pod_cidr.clone(),
        source,
    };
    let mut pool = AddressPool::new(&config.pod_cidr).map_err(unusable)?;
    let sandboxes = runtime.sandboxes().await;
    for ip in sandboxes.iter().filter_map(setup::address_of) {
        pool.reserve(ip);
    }
    let detached = detach_abandoned(network, &pool, &sandboxes).await;
    detached.map_err(|source| WorkerError::Network {
        node: config.name.clone(),
        source,
    })?;
    Ok(pool)
}

/// Networks that were made for pods of this worker by a program that was killed before it made their sandboxes.
async fn detach_abandoned(
    network: &ClusterNetwork,
    pool: &AddressPool,
    sandboxes: &[SandboxStatus],
) -> Result<(), NetworkError> {
    let has_sandbox = |name: &str| sandboxes.iter().any(|sandbox| sandbox.id == name);
    for pod in network.attached().await? {
        if pool.contains(pod.ip) && !has_sandbox(&pod.name) {
            network.detach(&pod.name).await?;
        }
    }
    Ok(())
}

/// A running worker.
pub struct Worker {
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Worker {
    /// Sets the worker up, registers its node Ready, and starts watching its pods.
    ///
    /// # Errors
    /// When its address, limits, kubelet or node cannot be set up; nothing is left running then.
    pub async fn start(
        config: WorkerConfig,
        client: Client,
        runtime: Runtime,
        network: ClusterNetwork,
        shutdown: CancellationToken,
    ) -> Result<Self, WorkerError> {
        let node = config.name.clone();
        let pool = address_pool(&config, &runtime, &network).await?;
        network
            .add_address(config.address)
            .await
            .map_err(|source| WorkerError::Network {
                node: node.clone(),
                source,
            })?;
        let limits = ResourceLimits {
            cpu_limit_milli: Some(config.capacity.cpu_milli),
            memory_limit_bytes: Some(config.capacity.memory_bytes),
            ..ResourceLimits::default()
        };
        runtime
            .set_group_limits(&config.name, &limits)
            .await
            .map_err(|source| WorkerError::Limits {
                node: node.clone(),
                source,
            })?;
        let (events, events_task) = EventSink::start(client.clone(), &config.name);
        let shared = Arc::new(Shared {
            config,
            client,
            runtime,
            network,
            events,
            pool: Mutex::new(pool),
            pods: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        serve_kubelet(&shared, &mut tasks, &shutdown).await?;
        let (system, ready_since) = (SystemFacts::read(), Timestamp::now());
        node_object::register(&shared.client, &shared.config, &system, ready_since)
            .await
            .map_err(|source| WorkerError::Register {
                node,
                source: Box::new(source),
            })?;
        let (client, config) = (shared.client.clone(), shared.config.clone());
        tasks.spawn(node_object::keep_alive(
            client,
            config,
            system,
            ready_since,
            shutdown.clone(),
        ));
        tasks.spawn(forward_runtime_events(shared.clone(), shutdown.clone()));
        tasks.spawn(watch_pods(shared, shutdown.clone()));
        tasks.spawn(async move {
            let _ = events_task.await;
        });
        Ok(Self { tasks, shutdown })
    }

    /// Stops watching and serving; containers go on. Waits for every task.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn serve_kubelet(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let node = shared.config.name.clone();
    let address = (shared.config.address, shared.config.kubelet_port).into();
    let listener = shared
        .network
        .sockets()
        .tcp_listen(address)
        .await
        .map_err(|source| WorkerError::Listen {
            node: node.clone(),
            address: address.to_string(),
            source,
        })?;
    let backend = Arc::new(WorkerBackend::new(shared.clone()));
    let reviewer = Arc::new(ClusterReviewer::new(shared.client.clone()));
    let server = KubeletServer::new(&node, backend, &shared.config.tls, reviewer)
        .map_err(|source| WorkerError::Kubelet { node, source })?;
    tasks.spawn(server.serve(listener, shutdown.clone()));
    Ok(())
}

/// Wakes the pod whose sandbox changed, or all when wake-ups were lost.
async fn forward_runtime_events(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut events = shared.runtime.events();
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = events.recv() => changed,
        };
        let sandbox = match changed {
            Ok(sandbox) => Some(sandbox),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if let Ok(pods) = shared.pods.lock() {
            for handle in pods.values() {
                if sandbox
                    .as_ref()
                    .is_none_or(|sandbox| *sandbox == handle.sandbox)
                {
                    handle.wake.notify_one();
                }
            }
        }
    }
}

async fn watch_pods(shared: Arc<Shared>, shutdown: CancellationToken) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let selector =
        watcher::Config::default().fields(&format!("spec.nodeName={}", shared.config.name));
    let mut events = watcher(pods, selector).boxed();
    let mut workers = JoinSet::new();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = workers.join_next(), if !workers.is_empty() => continue,
            event = events.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Apply(pod))) => apply(&shared, pod, &mut workers, &shutdown),
            Some(Ok(watcher::Event::Delete(pod))) => gone(&shared, pod.metadata.uid.as_deref()),
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                apply(&shared, pod, &mut workers, &shutdown);
            }
            Some(Ok(watcher::Event::InitDone)) => forget_unlisted(&shared, &listed).await,
            Some(Err(error)) => {
                tracing::warn!(node = shared.config.name, %error, "pod watch broke, starting it again");
            }
            None => break,
        }
    }
    while workers.join_next().await.is_some() {}
}

fn apply(shared: &Arc<Shared>, pod: Pod, workers: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let Some(uid) = pod.metadata.uid.clone() else {
        return;
    };
    let Ok(mut pods) = shared.pods.lock() else {
        return;
    };
    let pod = Arc::new(pod);
    if let Some(handle) = pods.get(&uid) {
        handle.pod.send_replace(Some(pod));
        return;
    }
    let (sender, receiver) = watch::channel(Some(pod));
    let wake = Arc::new(Notify::new());
    let sandbox = Shared::sandbox_id(&uid);
    let worker = PodWorker::new(shared.clone(), uid.clone(), receiver, wake.clone());
    pods.insert(
        uid,
        PodHandle {
            pod: sender,
            wake,
            sandbox,
        },
    );
    workers.spawn(worker.run(shutdown.clone()));
}

fn gone(shared: &Shared, uid: Option<&str>) {
    if let (Some(uid), Ok(pods)) = (uid, shared.pods.lock())
        && let Some(handle) = pods.get(uid)
    {
        handle.pod.send_replace(None);
    }
}

/// Ends what this worker still runs for pods that no longer exist, after a restart or a broken watch.
async fn forget_unlisted(shared: &Arc<Shared>, listed: &[String]) {
    let known: Vec<String> = match shared.pods.lock() {
        Ok(pods) => pods.keys().cloned().collect(),
        Err(_) => return,
    };
    for uid in known.iter().filter(|uid| !listed.contains(uid)) {
        gone(shared, Some(uid));
    }
    for sandbox in shared.runtime.sandboxes().await {
        let ours = sandbox.labels.get("node") == Some(&shared.config.name);
        let uid = sandbox.labels.get("uid").cloned().unwrap_or_default();
        if !ours || listed.contains(&uid) || known.contains(&uid) {
            continue;
        }
        tracing::info!(
            sandbox = sandbox.id,
            "removing the leftovers of a pod that is gone"
        );
        let volumes = shared.config.volumes_dir.join(&uid);
        for failure in
            termination::release(&sandbox.id, &volumes, &shared.runtime, &shared.network).await
        {
            tracing::warn!(failure, "leftover was not removed");
        }
        shared.release_address(setup::address_of(&sandbox));
    }
}

//! Runs the virtual nodes: watches pods, looks at the cloud, asks `plan` what to do, and does it.
//!
//! All knowledge lives in one [`state::State`] that is rebuilt from both lists at every start. Tasks only bring news into
//! it; one planner decides, under two bounds (calls to the cloud, writes to the API).

mod act;
mod create;
mod events;
mod poll;
mod references;
mod state;
mod watch;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloud_api::EciClient;
use cloud_api::catalog::Catalog;
use kube::Client;
use kubelet_api::{KubeletServer, ServeError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::GroupBackend;
use crate::config::{ClusterSettings, NodeEndpoint, Timing, VSwitch, VirtualNodeConfig, node_name};
use crate::limit::AdaptiveLimit;
use crate::node::{NodeFacts, keep_alive};
pub(crate) use state::State;

/// How long running actions may take to end after the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why the virtual nodes cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing to put groups into.
    #[error("no vSwitch is configured; name at least one")]
    NoVSwitch,
    /// A node whose zone has no vSwitch could never run a pod.
    #[error("zone {0} has a virtual node but no vSwitch; add one or leave the node out")]
    ZoneWithoutVSwitch(String),
    /// The kubelet API cannot be served.
    #[error("serve the kubelet API of node {node}")]
    Kubelet {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: ServeError,
    },
}

/// What one virtual node is known by.
#[derive(Clone, Debug)]
pub(crate) struct NodeIdentity {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) address: String,
}

/// Shared by all tasks.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) cloud: EciClient,
    pub(crate) cluster_id: String,
    pub(crate) v_switches: Vec<VSwitch>,
    pub(crate) settings: ClusterSettings,
    pub(crate) timing: Timing,
    pub(crate) catalog: Catalog,
    pub(crate) nodes: Vec<NodeIdentity>,
    pub(crate) max_api_writes: usize,
    pub(crate) limit: AdaptiveLimit,
    pub(crate) references: references::ReferenceCache,
    pub(crate) events: events::EventSink,
    /// Something changed; the planner looks again.
    pub(crate) wake: Notify,
    /// A group started or stops; the poller looks sooner.
    pub(crate) poke: Notify,
    pub(crate) tracker: TaskTracker,
    state: Mutex<State>,
}

impl Shared {
    /// Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst an outdated entry, which the next lists correct.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the virtual nodes until `shutdown`. Pods go on running in the cloud; the next start finds them again.
pub async fn run_virtual_nodes(
    client: Client,
    cloud: EciClient,
    config: VirtualNodeConfig,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    check(&config)?;
    let (events, posting) = events::EventSink::new(client.clone());
    let identity = |node: &NodeEndpoint| NodeIdentity {
        name: node_name(&node.zone),
        zone: node.zone.clone(),
        address: node.address.to_string(),
    };
    let nodes: Vec<NodeIdentity> = config.nodes.iter().map(identity).collect();
    let shared = Arc::new(Shared {
        references: references::ReferenceCache::new(client.clone()),
        client,
        cloud,
        cluster_id: config.cluster_id,
        v_switches: config.v_switches,
        settings: config.settings,
        timing: config.timing,
        catalog: Catalog::new(config.large_region),
        max_api_writes: config.max_api_writes.max(1),
        limit: AdaptiveLimit::new(config.max_cloud_calls),
        events,
        wake: Notify::new(),
        poke: Notify::new(),
        tracker: TaskTracker::new(),
        state: Mutex::new(State::new(nodes.len())),
        nodes,
    });
    let mut servers = HashMap::new();
    for (index, endpoint) in config.nodes.into_iter().enumerate() {
        let facts = NodeFacts {
            zone: endpoint.zone,
            address: endpoint.address,
            port: endpoint.port,
            capacity: config.capacity.clone(),
            kubelet_version: config.kubelet_version.clone(),
        };
        let beating = keep_alive(
            shared.client.clone(),
            facts,
            shared.timing.clone(),
            shutdown.clone(),
        );
        shared.tracker.spawn(beating);
        shared
            .tracker
            .spawn(watch::watch_pods(shared.clone(), index, shutdown.clone()));
        if let Some((listener, tls)) = endpoint.listener {
            let backend = Arc::new(GroupBackend::new(shared.clone(), index));
            let node = shared.nodes[index].name.clone();
            let server = KubeletServer::new(backend, &tls)
                .map_err(|source| RunError::Kubelet { node, source })?;
            servers.insert(index, (server, listener));
        }
    }
    for (server, listener) in servers.into_values() {
        shared
            .tracker
            .spawn(server.serve(listener, shutdown.clone()));
    }
    shared
        .tracker
        .spawn(poll::look_at_cloud(shared.clone(), shutdown.clone()));
    shared.tracker.spawn(posting.run(shutdown.clone()));
    act::plan_until(shared.clone(), shutdown).await;
    shared.tracker.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, shared.tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "virtual node stopped with actions under way; the next start takes them up from the lists"
        );
    }
    Ok(())
}

fn check(config: &VirtualNodeConfig) -> Result<(), RunError> {
    if config.v_switches.is_empty() {
        return Err(RunError::NoVSwitch);
    }
    let without = config.nodes.iter().find(|node| {
        !config
            .v_switches
            .iter()
            .any(|switch| switch.zone == node.zone)
    });
    without.map_or(Ok(()), |node| {
        Err(RunError::ZoneWithoutVSwitch(node.zone.clone()))
    })
}

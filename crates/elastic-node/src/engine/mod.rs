//! Runs the virtual nodes: watches pods, looks at the cloud, asks `plan` what to do, and does it.
//!
//! All knowledge lives in one [`state::State`] that is rebuilt from both lists at every start. Tasks only bring news into
//! it; one planner decides, under two bounds (calls to the cloud, writes to the API).

mod act;
mod create;
mod events;
mod facts;
mod kept;
mod nodes;
mod poll;
mod profile;
mod references;
mod resting;

#[cfg(test)]
mod simulation;
mod state;
mod tokens;
mod update;
mod waiting;
mod watch;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloud_api::EciClient;
use cloud_api::catalog::Catalog;
use kube::Client;
use kubelet_api::ServeError;
use tokio::sync::{Notify, watch as watching};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::PodDialer;
use crate::config::{Clock, Figures, Timing, TokenPolicy, VirtualNodeConfig};
use crate::limit::AdaptiveLimit;
use nodes::NodeTable;
pub(crate) use profile::Effective;
pub(crate) use state::{PodRecord, State};

/// How long running actions may take to end after the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why the virtual nodes cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
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

/// Shared by all tasks.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) cloud: EciClient,
    pub(crate) cluster_id: String,
    pub(crate) timing: Timing,
    pub(crate) catalog: Catalog,
    pub(crate) nodes: NodeTable,
    pub(crate) max_api_writes: usize,
    pub(crate) pod_dialer: Arc<dyn PodDialer>,
    pub(crate) limit: AdaptiveLimit,
    pub(crate) references: references::ReferenceCache,
    pub(crate) events: events::EventSink,
    /// Something changed; the planner looks again.
    pub(crate) wake: Notify,
    /// A group started or stops; the poller looks sooner.
    pub(crate) poke: Notify,
    pub(crate) tracker: TaskTracker,
    pub(crate) figures: Arc<Figures>,
    pub(crate) tokens: TokenPolicy,
    pub(crate) clock: Clock,
    /// The profile in force; nothing runs before the first.
    profile: watching::Receiver<profile::InForce>,
    state: Mutex<State>,
}

impl Shared {
    /// Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst an outdated entry, which the next lists correct.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration for a pod that is created now.
    pub(crate) fn effective(&self) -> Arc<Effective> {
        self.profile.borrow().effective.clone().unwrap_or_default()
    }
}

/// Runs the virtual nodes until `shutdown`. Pods go on running in the cloud; the next start finds them again.
pub async fn run_virtual_nodes(
    client: Client,
    cloud: EciClient,
    config: VirtualNodeConfig,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (events, posting) = events::EventSink::new(client.clone());
    let (in_force, profile) = watching::channel(profile::InForce::default());
    let shared = Arc::new(Shared {
        references: references::ReferenceCache::new(
            client.clone(),
            config.tokens,
            config.clock.clone(),
        ),
        client,
        cloud,
        cluster_id: config.cluster_id,
        timing: config.timing,
        catalog: Catalog::new(config.large_region),
        nodes: NodeTable::default(),
        max_api_writes: config.max_api_writes.max(1),
        pod_dialer: config.pod_dialer,
        limit: AdaptiveLimit::new(config.max_cloud_calls),
        events,
        wake: Notify::new(),
        poke: Notify::new(),
        tracker: TaskTracker::new(),
        figures: config.figures,
        tokens: config.tokens,
        clock: config.clock,
        profile: profile.clone(),
        state: Mutex::new(State::new(config.tokens)),
    });
    let base = profile::Base {
        v_switches: config.v_switches,
        settings: config.settings,
        initial: config.environment.profile,
        find_zone: config.find_zone,
    };
    let supply = nodes::Supply {
        open: config.nodes,
        opener: config.open_endpoint,
        capacity: config.capacity,
        kubelet_version: config.kubelet_version,
        kubelet_port: config.environment.kubelet_port,
    };
    let stop = shutdown.child_token();
    let tracker = shared.tracker.clone();
    tracker.spawn(poll::look_at_cloud(shared.clone(), stop.clone()));
    tracker.spawn(posting.run(stop.clone()));
    tracker.spawn(profile::follow(
        shared.clone(),
        base,
        in_force,
        stop.clone(),
    ));
    let managing = async {
        let outcome = nodes::manage(shared.clone(), supply, profile, stop.clone()).await;
        stop.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(managing, act::plan_until(shared.clone(), stop.clone()));
    wind_up(&shared).await;
    outcome
}

async fn wind_up(shared: &Shared) {
    shared.tracker.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, shared.tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "virtual node stopped with actions under way; the next start takes them up from the lists"
        );
    }
    shared.figures.set(0, 0);
}

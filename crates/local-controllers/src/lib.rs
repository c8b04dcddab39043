//! What kube-scheduler and kube-controller-manager do upstream, as ordinary clients of the Kubernetes API.
//!
//! Each controller decides in plain functions over what the shared stores hold and acts through the client it was
//! given. [`run`] starts them all; each can also be started alone on a [`shared::Cluster`]. Refuses whatever
//! upstream's control plane does not do, with one exception, which the scheduler names: pods that merely tolerate
//! virtual nodes go to worker nodes first.

pub mod config;
pub mod cron_job;
pub mod deployment;
pub mod endpoints;
pub mod garbage_collector;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_collector;
pub mod replica_set;
pub mod scheduler;
pub mod service_account;
pub mod shared;
pub mod stateful_set;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use config::ControllersConfig;
use shared::Cluster;

/// Runs all controllers until the shutdown and waits for their tasks.
pub async fn run(client: Client, config: ControllersConfig, shutdown: CancellationToken) {
    let cluster = Cluster::new(client, shutdown);
    start_all(&cluster, config);
    cluster.finish().await;
}

/// Starts all controllers on a cluster.
pub fn start_all(cluster: &Cluster, config: ControllersConfig) {
    scheduler::start(cluster);
    replica_set::start(cluster);
    deployment::start(cluster);
    stateful_set::start(cluster);
    job::start(cluster);
    cron_job::start(cluster);
    endpoints::start(cluster);
    garbage_collector::start(cluster);
    namespace::start(cluster);
    service_account::start(cluster, config.ca_pem);
    node_lifecycle::start(cluster, &config.nodes);
    pod_collector::start(cluster, &config.nodes);
    horizontal_pod_autoscaler::start(cluster, config.autoscaler);
}

//! Runs the elastic parts against any cluster until told to stop.
//!
//! Every replica serves the webhook; the one that holds the Lease runs controllers and virtual nodes. Stopping them
//! touches no group: the next leader finds everything again in the two lists.

pub mod credentials;
pub mod election;
mod health;
mod kubelet;
mod lead;
mod metrics;
mod metrics_apis;
pub mod settings;
mod traces;
mod webhook;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use elastic_controllers::JobCounts;
use elastic_metrics::PushedMetrics;
use elastic_node::Timing;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use election::Candidate;
pub use election::ElectionTiming;
use settings::Texts;
pub use webhook::WebhookServing;

/// How one replica runs.
pub struct OperatorConfig {
    /// Differs from replica to replica: the pod's name, or host and process.
    pub identity: String,
    /// `ECI_REGION` and the others.
    pub environment: Texts,
    /// InternalIP of all virtual nodes: where the API server reaches this replica.
    pub node_address: IpAddr,
    /// Address the nodes' kubelet APIs listen on.
    pub kubelet_bind: IpAddr,
    /// Port of the first node's kubelet API; the others follow. 0 takes any.
    pub kubelet_port: u16,
    /// Without it pods are routed by selector, toleration or node name only.
    pub webhook: Option<WebhookServing>,
    /// Where the metrics APIs listen, when `METRICS_APIS` in the environment names them. They need the
    /// webhook's Service, so outside of a cluster there are none.
    pub metrics: Option<std::net::TcpListener>,
    /// For probes and Prometheus.
    pub health: Option<TcpListener>,
    /// The Lease's clock.
    pub election: ElectionTiming,
    /// The virtual nodes' clock.
    pub timing: Timing,
    /// Where a RAM role's keys are had.
    pub metadata_endpoint: String,
}

/// What the replica tells about itself.
pub(crate) struct Status {
    leading: watch::Receiver<bool>,
    /// Why the leader's virtual nodes do not run.
    problem: Mutex<Option<String>>,
    settled: AtomicBool,
    metrics: Arc<metrics::Metrics>,
    jobs: Arc<JobCounts>,
}

impl Status {
    fn new(leading: watch::Receiver<bool>, metrics: metrics::Metrics) -> Self {
        Self {
            leading,
            problem: Mutex::default(),
            settled: AtomicBool::new(false),
            metrics: Arc::new(metrics),
            jobs: Arc::default(),
        }
    }

    fn set_problem(&self, problem: Option<String>) {
        self.settled.store(true, Ordering::Relaxed);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl health::Report for Status {
    fn not_ready(&self) -> Option<String> {
        if !*self.leading.borrow() {
            return None;
        }
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = self.settled.load(Ordering::Relaxed);
        problem
            .clone()
            .or_else(|| (!settled).then(|| "virtual nodes are starting".to_owned()))
    }

    fn metrics(&self) -> String {
        let leading = *self.leading.borrow();
        self.metrics.text(leading) + &self.jobs.text()
    }
}

/// Runs one replica until `shutdown`, or until the add-on is being removed; then it lets go of the Lease, and groups go on
/// running.
pub async fn run(client: Client, config: OperatorConfig, shutdown: CancellationToken) {
    let OperatorConfig {
        identity,
        election,
        webhook,
        health,
        metrics: metrics_listener,
        ..
    } = config;
    // Ends after all that gives spans.
    let ended = CancellationToken::new();
    let (traces, exporting) = traces::open(&config.environment, &identity, ended.clone());
    let mut exporter = JoinSet::new();
    if let Some(exporting) = exporting {
        exporter.spawn(exporting);
    }
    let candidate = Candidate::new(client.clone(), identity.clone(), election);
    let metrics = metrics::Metrics::with_traces(traces);
    let status = Arc::new(Status::new(candidate.watch(), metrics));
    let place = lead::Place {
        environment: config.environment,
        node_address: config.node_address,
        kubelet_bind: config.kubelet_bind,
        kubelet_port: config.kubelet_port,
        timing: config.timing,
        metadata_endpoint: config.metadata_endpoint,
        pushed: PushedMetrics::default(),
    };
    let mut serving = JoinSet::new();
    let shutdown = shutdown.child_token();
    if let Some(listener) = health {
        serving.spawn(health::serve(listener, status.clone(), shutdown.clone()));
    }
    match (webhook.as_ref(), metrics_listener) {
        (Some(webhook), Some(listener)) => {
            let names = webhook::names(&webhook.address);
            serving.spawn(metrics_apis::serve(
                client.clone(),
                listener,
                names,
                (
                    identity.clone(),
                    place.environment.clone(),
                    place.pushed.clone(),
                ),
                status.leading.clone(),
                shutdown.clone(),
            ));
        }
        _ => tracing::debug!("no metrics APIs are served without a Service in the cluster"),
    }
    match webhook {
        Some(webhook) => {
            serving.spawn(webhook::serve(client.clone(), webhook, shutdown.clone()));
        }
        None => tracing::warn!(
            "no admission webhook is served; pods reach virtual nodes by selector and toleration or by node name only"
        ),
    }
    candidate
        .run(shutdown.clone(), |stop| {
            lead::lead(client.clone(), &place, status.clone(), stop)
        })
        .await;
    shutdown.cancel();
    lead::end(serving).await;
    ended.cancel();
    lead::end(exporter).await;
}

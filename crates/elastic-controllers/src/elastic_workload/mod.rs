//! The overflow controller: keeps the source and the unit Deployments of every ElasticWorkload at their shares.
//!
//! Each pass starts from what the API says now; a lost event or a second copy of the controller changes nothing. When an
//! ElasticWorkload is deleted, its units go with it by ownership and the source keeps the replicas it has: taking the
//! policy away never pushes load on to owned nodes, and there is no finalizer that an uninstalled controller would leave
//! behind.

mod children;
mod reconcile;
mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use elastic_core::ElasticWorkload;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

pub(crate) use reconcile::ReconcileError;

/// How the controller behaves in time.
#[derive(Clone, Debug)]
pub struct ElasticWorkloadConfig {
    /// How often to look whether the last serverless pods are gone while the source waits to be lowered.
    pub hold_check_interval: Duration,
    /// Least time between two status writes that only bring newer pod counts.
    pub count_interval: Duration,
    /// First wait after a failure; doubled up to [`Self::retry_most`].
    pub retry_first: Duration,
    /// Longest wait after failures.
    pub retry_most: Duration,
}

impl Default for ElasticWorkloadConfig {
    fn default() -> Self {
        Self {
            hold_check_interval: Duration::from_millis(300),
            count_interval: Duration::from_millis(250),
            retry_first: Duration::from_millis(200),
            retry_most: Duration::from_secs(30),
        }
    }
}

/// Shared by all passes; hints only, never state that a restart would miss.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: ElasticWorkloadConfig,
    hints: Mutex<HashMap<String, Hints>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hints {
    counts_written: Option<Instant>,
    failures: u32,
}

impl Context {
    fn with_hints<R>(&self, uid: &str, change: impl FnOnce(&mut Hints) -> R) -> R {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        change(hints.entry(uid.to_owned()).or_default())
    }

    /// How long to wait before the next write of counts; zero when one is due.
    pub(crate) fn counts_due_in(&self, uid: &str) -> Duration {
        let written = self.with_hints(uid, |hints| hints.counts_written);
        written.map_or(Duration::ZERO, |at| {
            self.config.count_interval.saturating_sub(at.elapsed())
        })
    }

    pub(crate) fn counts_written(&self, uid: &str) {
        self.with_hints(uid, |hints| hints.counts_written = Some(Instant::now()));
    }

    fn succeeded(&self, uid: &str) {
        self.with_hints(uid, |hints| hints.failures = 0);
    }

    fn backoff(&self, uid: &str) -> Duration {
        let failures = self.with_hints(uid, |hints| {
            hints.failures = hints.failures.saturating_add(1);
            hints.failures
        });
        let doubled = self
            .config
            .retry_first
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.config.retry_most)
    }

    /// Forgets workloads that are gone, so that the map stays as small as the cluster.
    fn forget_absent(&self, store: &Store<ElasticWorkload>) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.len() > 2 * store.len() + 16 {
            let living: Vec<_> = store
                .state()
                .iter()
                .filter_map(|workload| workload.uid())
                .collect();
            hints.retain(|uid, _| living.contains(uid));
        }
    }
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_elastic_workload(
    client: Client,
    config: ElasticWorkloadConfig,
    shutdown: CancellationToken,
) {
    let workloads: Api<ElasticWorkload> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    let context = Arc::new(Context {
        client,
        config,
        hints: Mutex::default(),
    });
    let controller = Controller::new(workloads, watcher::Config::default());
    let store = controller.store();
    let lookup = store.clone();
    controller
        .watches(deployments, watcher::Config::default(), move |deployment| {
            concerned(&lookup, &deployment)
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context.clone())
        .for_each(|outcome| {
            context.forget_absent(&store);
            if let Err(error) = outcome {
                tracing::debug!(%error, "elastic workload pass ended with an error");
            }
            std::future::ready(())
        })
        .await;
}

/// The workloads whose source or unit `deployment` is.
fn concerned(
    store: &Store<ElasticWorkload>,
    deployment: &Deployment,
) -> Vec<ObjectRef<ElasticWorkload>> {
    let namespace = deployment.namespace();
    let name = deployment.name_any();
    let owns = |uid: Option<String>| {
        uid.is_some_and(|uid| {
            deployment
                .owner_references()
                .iter()
                .any(|owner| owner.uid == uid)
        })
    };
    store
        .state()
        .iter()
        .filter(|workload| workload.namespace() == namespace)
        .filter(|workload| workload.spec.source_target.name == name || owns(workload.uid()))
        .map(|workload| ObjectRef::from_obj(workload.as_ref()))
        .collect()
}

async fn pass(
    workload: Arc<ElasticWorkload>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    if workload.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let action = reconcile::reconcile(&workload, &context).await?;
    context.succeeded(&workload.uid().unwrap_or_default());
    Ok(action)
}

fn after_failure(
    workload: Arc<ElasticWorkload>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    let wait = context.backoff(&workload.uid().unwrap_or_default());
    tracing::warn!(
        namespace = workload.namespace(), workload = workload.name_any(), %error, cause = ?error.cause(), ?wait,
        "elastic workload could not be brought to its shares, trying again"
    );
    Action::requeue(wait)
}

//! The overflow controller: keeps the source and the units of every ElasticWorkload at their shares.
//!
//! Each pass starts from what the API says now; a lost event or a second copy of the controller changes nothing. When an
//! ElasticWorkload is deleted, its units go with it by ownership, and the source gets their replicas back by the mark it
//! carries: there is no finalizer that an uninstalled controller would leave behind.

mod children;
mod give_back;
mod place_report;
mod reconcile;
mod report;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::SourceKind;
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

pub use give_back::return_replicas;
pub(crate) use reconcile::ReconcileError;

/// How the controller behaves in time.
#[derive(Clone, Debug)]
pub struct ElasticWorkloadConfig {
    /// How often to look whether the last serverless pods are gone while the source waits to be lowered.
    pub hold_check_interval: Duration,
    /// Least time between two status writes that only bring newer pod counts.
    pub count_interval: Duration,
    /// Least time between two looks at all pods for want of capacity.
    pub shortage_interval: Duration,
    /// How long the condition tells of a source that was scaled by hand.
    pub hand_scaled_shown: Duration,
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
            shortage_interval: Duration::from_secs(1),
            hand_scaled_shown: Duration::from_secs(600),
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
    pods_looked_at: Option<Instant>,
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

    /// How long to wait before looking at all pods again; zero when a look is due, which is noted.
    pub(crate) fn pods_due_in(&self, uid: &str) -> Duration {
        let interval = self.config.shortage_interval;
        self.with_hints(uid, |hints| {
            let wait = hints
                .pods_looked_at
                .map_or(Duration::ZERO, |at| interval.saturating_sub(at.elapsed()));
            if wait.is_zero() {
                hints.pods_looked_at = Some(Instant::now());
            }
            wait
        })
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
    let retry = config.retry_first;
    let returning =
        SourceKind::ALL.map(|kind| give_back::run(client.clone(), kind, retry, shutdown.clone()));
    let distributing = distribute_all(client, config, shutdown);
    tokio::join!(distributing, futures::future::join_all(returning));
}

async fn distribute_all(
    client: Client,
    config: ElasticWorkloadConfig,
    shutdown: CancellationToken,
) {
    let workloads: Api<ElasticWorkload> = Api::all(client.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        config,
        hints: Mutex::default(),
    });
    let mut controller = Controller::new(workloads, watcher::Config::default());
    let store = controller.store();
    for kind in SourceKind::ALL {
        let resource = kind.api_resource();
        let children: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let lookup = store.clone();
        let concerned = move |child| concerned(&lookup, kind, &child);
        controller =
            controller.watches_with(children, resource, watcher::Config::default(), concerned);
    }
    controller
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

/// The workloads whose source or unit `child` is.
fn concerned(
    store: &Store<ElasticWorkload>,
    kind: SourceKind,
    child: &DynamicObject,
) -> Vec<ObjectRef<ElasticWorkload>> {
    let namespace = child.namespace();
    let name = child.name_any();
    let owns = |uid: Option<String>| {
        let owners = child.owner_references();
        uid.is_some_and(|uid| owners.iter().any(|owner| owner.uid == uid))
    };
    let is_source = |workload: &ElasticWorkload| {
        let target = &workload.spec.source_target;
        target.name == name && SourceKind::of(target) == Some(kind)
    };
    store
        .state()
        .iter()
        .filter(|workload| workload.namespace() == namespace)
        .filter(|workload| is_source(workload) || owns(workload.uid()))
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

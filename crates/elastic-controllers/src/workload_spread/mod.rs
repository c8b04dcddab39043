//! Keeps the books of every WorkloadSpread: which pods each subset has, which go first, and which subsets have no place.
//!
//! Pods get their subset when they are created (see `desk`). Here they get their deletion cost, pods that nobody gave to a
//! subset are counted where they run, and with the strategy Adaptive pods that find no place are deleted, so that their
//! workload makes new ones for a later subset.

mod reconcile;
pub(crate) mod target;

use std::sync::Arc;
use std::time::Duration;

use elastic_core::workload_spread::{WorkloadSpread, matched};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::pass::{PassError, wait_for_first};

/// How the controller behaves in time.
#[derive(Clone, Debug)]
pub struct WorkloadSpreadConfig {
    /// Changes of pods within this time are looked at together.
    pub together: Duration,
    /// Everything is looked at again after this, also when no pod changes.
    pub again: Duration,
    /// Wait after a failure, and while the workload is not there.
    pub retry: Duration,
}

impl Default for WorkloadSpreadConfig {
    fn default() -> Self {
        Self {
            together: Duration::from_millis(200),
            again: Duration::from_secs(60),
            retry: Duration::from_secs(3),
        }
    }
}

struct Context {
    client: Client,
    config: WorkloadSpreadConfig,
    spreads: Store<WorkloadSpread>,
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_workload_spread(
    client: Client,
    config: WorkloadSpreadConfig,
    shutdown: CancellationToken,
) {
    let spreads: Api<WorkloadSpread> = Api::all(client.clone());
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = wait_for_first(&spreads) => {}
    }
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client.clone());
    let controller = Controller::new(spreads, watcher::Config::default())
        .with_config(Config::default().debounce(config.together));
    let store = controller.store();
    let context = Arc::new(Context {
        client,
        config,
        spreads: store.clone(),
    });
    controller
        .watches(pods, watcher::Config::default(), move |pod| {
            concerned(&store, &pod)
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context)
        .for_each(|outcome| {
            if let Err(error) = outcome {
                tracing::debug!(%error, "workload spread pass ended with an error");
            }
            std::future::ready(())
        })
        .await;
}

/// Those that the pod belongs to; a pod without a mark may belong to any in its namespace.
fn concerned(
    store: &Store<WorkloadSpread>,
    pod: &PartialObjectMeta<Pod>,
) -> Vec<ObjectRef<WorkloadSpread>> {
    let found = matched(pod.annotations());
    let named = |name: &str| found.as_ref().is_none_or(|found| found.name == name);
    store
        .state()
        .iter()
        .filter(|spread| spread.namespace() == pod.namespace() && named(&spread.name_any()))
        .map(|spread| ObjectRef::from_obj(spread.as_ref()))
        .collect()
}

async fn pass(spread: Arc<WorkloadSpread>, context: Arc<Context>) -> Result<Action, PassError> {
    if spread.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    reconcile::reconcile(&spread, &context).await
}

fn after_failure(spread: Arc<WorkloadSpread>, error: &PassError, context: Arc<Context>) -> Action {
    tracing::debug!(
        namespace = spread.namespace(), name = spread.name_any(), %error, cause = ?error.cause(),
        "books of a workload spread could not be kept, trying again"
    );
    Action::requeue(context.config.retry)
}

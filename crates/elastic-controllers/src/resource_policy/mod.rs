//! Keeps the books of every ResourcePolicy: which pods each unit has, which go first, which units have no room, and which
//! waiting pods have a place now.
//!
//! Pods get their unit when they are created, or wait behind a gate (see `desk`). Here they get their deletion cost, waiting
//! ones are let go when a unit takes them, and pods that find no room in their unit are deleted, so that their workload makes
//! new ones for a later unit. Pods whose policy is gone wait no longer.

mod forgotten;
mod members;
#[cfg(test)]
mod passing_on;
mod reconcile;
mod shortage;

use std::sync::Arc;
use std::time::Duration;

use elastic_core::resource_policy::{ResourcePolicy, matched};
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
pub struct ResourcePolicyConfig {
    /// Changes of pods within this time are looked at together.
    pub together: Duration,
    /// Everything is looked at again after this, also when no pod changes.
    pub again: Duration,
    /// Wait after a failure.
    pub retry: Duration,
    /// Pods that wait for a policy that is gone are looked for this often.
    pub forgotten: Duration,
}

impl Default for ResourcePolicyConfig {
    fn default() -> Self {
        Self {
            together: Duration::from_millis(200),
            again: Duration::from_secs(60),
            retry: Duration::from_secs(3),
            forgotten: Duration::from_secs(10),
        }
    }
}

struct Context {
    client: Client,
    config: ResourcePolicyConfig,
    policies: Store<ResourcePolicy>,
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_resource_policy(
    client: Client,
    config: ResourcePolicyConfig,
    shutdown: CancellationToken,
) {
    let policies: Api<ResourcePolicy> = Api::all(client.clone());
    let letting_go = forgotten::let_go(&client, config.forgotten);
    let working = async {
        wait_for_first(&policies).await;
        run(client.clone(), config.clone(), shutdown.clone()).await;
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = letting_go => {}
        () = working => {}
    }
}

async fn run(client: Client, config: ResourcePolicyConfig, shutdown: CancellationToken) {
    let policies: Api<ResourcePolicy> = Api::all(client.clone());
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client.clone());
    let controller = Controller::new(policies, watcher::Config::default())
        .with_config(Config::default().debounce(config.together));
    let store = controller.store();
    let context = Arc::new(Context {
        client,
        config,
        policies: store.clone(),
    });
    controller
        .watches(pods, watcher::Config::default(), move |pod| {
            concerned(&store, &pod)
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context)
        .for_each(|outcome| {
            if let Err(error) = outcome {
                tracing::debug!(%error, "resource policy pass ended with an error");
            }
            std::future::ready(())
        })
        .await;
}

/// Those that the pod belongs to; a pod without a mark may belong to any that selects it.
fn concerned(
    store: &Store<ResourcePolicy>,
    pod: &PartialObjectMeta<Pod>,
) -> Vec<ObjectRef<ResourcePolicy>> {
    let found = matched(pod.annotations());
    let state = store.state();
    let here = state.iter().filter(|policy| {
        policy.namespace() == pod.namespace()
            && match &found {
                Some(found) => found.name == policy.name_any(),
                None => policy.spec.selects(pod.labels()),
            }
    });
    here.map(|policy| ObjectRef::from_obj(policy.as_ref()))
        .collect()
}

async fn pass(policy: Arc<ResourcePolicy>, context: Arc<Context>) -> Result<Action, PassError> {
    if policy.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    reconcile::reconcile(&policy, &context).await
}

fn after_failure(policy: Arc<ResourcePolicy>, error: &PassError, context: Arc<Context>) -> Action {
    tracing::debug!(
        namespace = policy.namespace(), name = policy.name_any(), %error, cause = ?error.cause(),
        "books of a resource policy could not be kept, trying again"
    );
    Action::requeue(context.config.retry)
}

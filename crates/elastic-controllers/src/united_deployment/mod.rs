//! Keeps the child workloads of every UnitedDeployment at their shares.
//!
//! Each pass starts from what the API says now. Children go with their owner by ownership. On the way down the last subset
//! empties first, and the first is lowered only when the pods that go before its own are really gone.

mod children;
mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use elastic_core::united_deployment::UnitedDeployment;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::pass::PassError;

/// How the controller behaves in time.
#[derive(Clone, Debug)]
pub struct UnitedDeploymentConfig {
    /// How often to look whether pods are gone while the first subset waits to be lowered.
    pub hold_check_interval: Duration,
    /// How often to look at pods that are not ready, with the strategy Adaptive.
    pub pod_check_interval: Duration,
    /// Wait after a failure.
    pub retry: Duration,
}

impl Default for UnitedDeploymentConfig {
    fn default() -> Self {
        Self {
            hold_check_interval: Duration::from_millis(300),
            pod_check_interval: Duration::from_secs(1),
            retry: Duration::from_secs(3),
        }
    }
}

struct Context {
    client: Client,
    config: UnitedDeploymentConfig,
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_united_deployment(
    client: Client,
    config: UnitedDeploymentConfig,
    shutdown: CancellationToken,
) {
    let owners: Api<UnitedDeployment> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    let stateful_sets: Api<StatefulSet> = Api::all(client.clone());
    let context = Arc::new(Context { client, config });
    Controller::new(owners, watcher::Config::default())
        .owns(deployments, watcher::Config::default())
        .owns(stateful_sets, watcher::Config::default())
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context)
        .for_each(|outcome| {
            if let Err(error) = outcome {
                tracing::debug!(%error, "united deployment pass ended with an error");
            }
            std::future::ready(())
        })
        .await;
}

async fn pass(owner: Arc<UnitedDeployment>, context: Arc<Context>) -> Result<Action, PassError> {
    if owner.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    reconcile::reconcile(&owner, &context).await
}

fn after_failure(owner: Arc<UnitedDeployment>, error: &PassError, context: Arc<Context>) -> Action {
    tracing::warn!(
        namespace = owner.namespace(), name = owner.name_any(), %error, cause = ?error.cause(),
        "united deployment could not be brought to its shares, trying again"
    );
    Action::requeue(context.config.retry)
}

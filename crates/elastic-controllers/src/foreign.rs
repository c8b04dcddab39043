//! Keeps a controller off kinds that another product serves on this cluster.
//!
//! A kind of another product's group is ours only where its definition says so. When somebody installs that product later,
//! our controller for the kind ends; when the definition becomes ours, it starts.

use std::time::Duration;

use elastic_core::definitions::is_ours;
use elastic_core::events::EventKind;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;

use crate::pass::post_event;

const COMPONENT: &str = "springtide";
/// Between two looks at the definition.
const LOOK: Duration = Duration::from_secs(15);

/// Runs `run` until `shutdown`, while the definition `name` is there and ours. That it is not is told once.
pub(crate) async fn run_while_ours<F>(
    client: Client,
    name: &str,
    shutdown: CancellationToken,
    run: impl Fn(CancellationToken) -> F,
) where
    F: Future<Output = ()>,
{
    let mut told = false;
    while !shutdown.is_cancelled() {
        match owned(&client, name).await {
            Some(true) => {
                told = false;
                let stop = shutdown.child_token();
                let lost = async {
                    // What cannot be read now is no reason to stop.
                    while owned(&client, name).await != Some(false) {
                        tokio::time::sleep(LOOK).await;
                    }
                    stop.cancel();
                };
                let running = run(stop.clone());
                tokio::pin!(running);
                tokio::select! {
                    () = running.as_mut() => continue,
                    () = lost => running.await,
                }
            }
            Some(false) if !told => {
                told = true;
                tell(&client, name).await;
            }
            _ => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whether the definition is ours; `None` when there is none or it cannot be read.
pub(crate) async fn owned(client: &Client, name: &str) -> Option<bool> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    match definitions.get_opt(name).await {
        Ok(found) => found.as_ref().map(is_ours),
        Err(error) => {
            tracing::debug!(definition = name, %error, "definition cannot be read");
            None
        }
    }
}

async fn tell(client: &Client, name: &str) {
    tracing::info!(
        definition = name,
        "another product serves this kind here, springtide stays off it"
    );
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    if let Ok(Some(found)) = definitions.get_opt(name).await {
        let message = "another product installed this kind, springtide stays off its objects";
        let about = found.object_ref(&());
        post_event(
            client,
            &about,
            COMPONENT,
            EventKind::Normal,
            "KindOfAnotherProduct",
            message,
        )
        .await;
    }
}

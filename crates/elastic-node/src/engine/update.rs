//! Bringing a pod's new images into its group without giving up its address.

use std::time::Duration;

use cloud_api::EciError;
use cloud_api::model::manage::UpdateContainerGroupRequest;
use elastic_core::events::EventKind;
use elastic_core::names::APPLIED_IMAGES_ANNOTATION;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use super::{Shared, create, facts, write};
use crate::status::pod_key;

/// Wait after a refused update.
const RETRY: Duration = Duration::from_secs(5);
/// The cloud's word for an update that is in force already.
const NOTHING_TO_DO: &str = "NoNeedUpdate";

/// Sends the containers as the pod has them now; the cloud restarts those that differ.
pub(super) async fn images(shared: &Shared, uid: &str, id: &str) {
    let found = shared
        .state()
        .pods
        .get(uid)
        .map(|record| (record.pod(), record.node));
    let Some((pod, node)) = found else { return };
    let images = facts::images(&pod);
    let outcome = match create::prepare(shared, &shared.effective(), &pod, node).await {
        Ok(prepared) => {
            let update = UpdateContainerGroupRequest {
                container_group_id: id.to_owned(),
                update_type: Some("IncrementalUpdate".to_owned()),
                container: prepared.request.container,
                client_token: Some(token(uid, &images)),
                ..UpdateContainerGroupRequest::default()
            };
            shared
                .cloud
                .call(&update)
                .await
                .map(drop)
                .or_else(accept)
                .map_err(|error| error.to_string())
        }
        Err(failure) => Err(failure.message()),
    };
    match outcome {
        Ok(()) => done(shared, &pod, node, uid, &images).await,
        Err(message) => {
            tracing::warn!(
                pod = pod_key(&pod),
                group = id,
                message,
                "images could not be updated, trying again"
            );
            let news = {
                let mut state = shared.state();
                let notes = state.notes(uid);
                notes.memory.retry_at = Some(Instant::now() + RETRY);
                let news = notes.last_problem != message;
                notes.last_problem.clone_from(&message);
                news
            };
            if news {
                shared
                    .events
                    .tell(&pod, EventKind::Warning, "ProviderUpdateFailed", &message);
            }
        }
    }
    shared.poke.notify_one();
}

fn accept(error: EciError) -> Result<(), EciError> {
    if error.code() == NOTHING_TO_DO {
        Ok(())
    } else {
        Err(error)
    }
}

async fn done(shared: &Shared, pod: &Pod, node: usize, uid: &str, images: &str) {
    let message = format!("the container group is brought to {images}");
    shared
        .events
        .tell(pod, EventKind::Normal, "ProviderUpdateSuccess", &message);
    let annotations = json!({APPLIED_IMAGES_ANNOTATION: images});
    let body = json!({"metadata": {"uid": uid, "annotations": annotations}});
    write::patch(shared, pod, node, uid, body).await;
}

/// The same images again are the same call.
fn token(uid: &str, images: &str) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    format!("u-{uid}-{:016x}", images.bytes().fold(OFFSET, mix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_images_apart_and_is_short_enough() {
        let uid = "8a2d2b6e-7a54-4f0e-9a0e-2f1f6c3f8b11";
        assert_eq!(token(uid, "web=shop:1"), token(uid, "web=shop:1"));
        assert_ne!(token(uid, "web=shop:1"), token(uid, "web=shop:2"));
        assert!(token(uid, "web=shop:1").len() <= 64);
    }
}

//! Brings new service account tokens into the files of a running group.
//!
//! A list in an update replaces the whole list, so all volumes are sent again, with the content that ConfigMaps and
//! Secrets have by now. Nothing else of the group is named, and no container is started anew for it.

use cloud_api::model::manage::UpdateContainerGroupRequest;
use elastic_core::events::EventKind;
use elastic_core::names::TOKEN_LIFE_ANNOTATION;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::Instant;

use super::{Shared, create, write};
use crate::status::pod_key;
use crate::tokens::{self, TokenLife};

pub(super) async fn renew(shared: &Shared, uid: &str, id: &str) {
    let found = shared
        .state()
        .pods
        .get(uid)
        .map(|record| (record.pod(), record.node));
    let Some((pod, node)) = found else { return };
    if let Some(reason) = tokens::lasting(&pod, &shared.tokens) {
        return warn(shared, &pod, uid, reason);
    }
    match bring(shared, &pod, node, uid, id).await {
        Ok(None) => shared.state().put_off_tokens(uid, None),
        Ok(Some(life)) => {
            tracing::debug!(pod = pod_key(&pod), group = id, %life, "service account tokens renewed");
            // Should the note get lost, the renewal is repeated; until then this process knows.
            let next = life.renew_at(tokens::spread(uid));
            shared.state().put_off_tokens(uid, Some(next));
            let annotations = json!({TOKEN_LIFE_ANNOTATION: life.to_string()});
            let body = json!({"metadata": {"uid": uid, "annotations": annotations}});
            write::patch(shared, &pod, node, uid, body).await;
        }
        Err(message) => again(shared, &pod, uid, &message),
    }
}

/// The life of the new tokens; `None` when the cluster issues none any more.
async fn bring(
    shared: &Shared,
    pod: &Pod,
    node: usize,
    uid: &str,
    id: &str,
) -> Result<Option<TokenLife>, String> {
    let prepared = create::prepare(shared, &shared.effective(), pod, node)
        .await
        .map_err(create::Failure::message)?;
    let Some(life) = prepared.token_life else {
        return Ok(None);
    };
    let update = UpdateContainerGroupRequest {
        container_group_id: id.to_owned(),
        update_type: Some("IncrementalUpdate".to_owned()),
        volume: prepared.request.volume,
        // Other tokens are another call, however soon it comes.
        client_token: Some(format!("t-{uid}-{:x}", life.begin.as_millisecond())),
        ..UpdateContainerGroupRequest::default()
    };
    let outcome = shared.cloud.call(&update).await;
    shared.poke.notify_one();
    match outcome {
        Ok(_) => Ok(Some(life)),
        Err(error) => {
            if error.is_throttling() {
                shared.limit.throttled(Instant::now());
            }
            Err(error.to_string())
        }
    }
}

/// Said once in the life of this process; afterwards the tokens end.
fn warn(shared: &Shared, pod: &Pod, uid: &str, reason: &str) {
    let noted = pod.annotations().get(TOKEN_LIFE_ANNOTATION);
    let life = noted.and_then(|text| text.parse::<TokenLife>().ok());
    let end = life.map_or_else(|| "soon".to_owned(), |life| format!("at {:.0}", life.end));
    let message = format!(
        "the service account tokens in this pod's files end {end} and are not renewed: {reason}; replace the pod before"
    );
    shared
        .events
        .tell(pod, EventKind::Warning, "TokenExpiresSoon", &message);
    shared.state().put_off_tokens(uid, None);
}

fn again(shared: &Shared, pod: &Pod, uid: &str, message: &str) {
    tracing::warn!(
        pod = pod_key(pod),
        message,
        "service account tokens could not be renewed, trying again"
    );
    let now = (shared.clock)();
    let noted = pod.annotations().get(TOKEN_LIFE_ANNOTATION);
    let life = noted.and_then(|text| text.parse::<TokenLife>().ok());
    let next = life.unwrap_or(TokenLife::of(now, 0)).retry_at(now);
    let news = {
        let mut state = shared.state();
        state.put_off_tokens(uid, Some(next));
        let notes = state.notes(uid);
        let news = notes.last_problem != message;
        message.clone_into(&mut notes.last_problem);
        news
    };
    if news {
        let message =
            format!("service account tokens could not be renewed, trying again: {message}");
        shared
            .events
            .tell(pod, EventKind::Warning, "TokenRenewalFailed", &message);
    }
}

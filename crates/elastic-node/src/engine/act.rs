//! The planner: decides about every pod that has news, and starts actions under the bounds.

use std::sync::Arc;
use std::time::Duration;

use cloud_api::model::manage::DeleteContainerGroupRequest;
use elastic_core::events::EventKind;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kept::Packer;
use super::{Shared, State, create, resting, tokens, update, write};
use crate::plan::{Action, Policy};

/// What waits for time to pass is decided anew at this interval; the rest when there is news, and with every complete look
/// at the cloud.
const TICK: Duration = Duration::from_millis(250);
/// Wait after a group without a pod turned out to have one after all.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Wait after a failed deletion or write.
const RETRY: Duration = Duration::from_millis(500);

pub(super) async fn plan_until(shared: Arc<Shared>, shutdown: CancellationToken) {
    let policy = Policy {
        lost_after: shared.timing.lost_after,
        orphan_after: shared.timing.orphan_after,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut packer = Packer::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            // Before the news, which may never cease.
            _ = tick.tick() => {
                shared.state().touch_waiting();
                shared.state().touch_ending_tokens((shared.clock)());
                write::tell_waiting_pods(&shared);
                resting::pack_resting(&shared, &mut packer);
            }
            () = shared.wake.notified() => {}
        }
        decide(&mut shared.state(), policy, Instant::now());
        start(&shared, policy);
    }
}

/// Decides about every pod that has news.
pub(super) fn decide(state: &mut State, policy: Policy, at: Instant) {
    // In an order of its own, so that the same news always leads to the same calls.
    let mut news: Vec<String> = state.take_dirty().into_iter().collect();
    news.sort_unstable();
    for uid in news {
        let actions = state.decide(&uid, policy, at);
        // One action at a time per pod; the rest is decided again when it has ended.
        let Some(action) = actions.into_iter().next() else {
            continue;
        };
        state.notes(&uid).memory.busy = true;
        if is_for_cloud(&action) {
            state.for_cloud.push_back(action);
        } else {
            state.for_api.push_back(action);
        }
    }
}

/// The next action that has a place and is still right; news may have come while it waited.
pub(super) fn next(
    state: &mut State,
    most_calls: usize,
    most_writes: usize,
    policy: Policy,
    at: Instant,
) -> Option<Action> {
    loop {
        let action = if state.api_writes < most_writes && !state.for_api.is_empty() {
            state.api_writes += 1;
            state.for_api.pop_front()
        } else if state.cloud_calls < most_calls && !state.for_cloud.is_empty() {
            state.cloud_calls += 1;
            state.for_cloud.pop_front()
        } else {
            None
        }?;
        let uid = uid_of(&action);
        state.notes(uid).memory.busy = false;
        if state.decide(uid, policy, at).contains(&action) {
            state.notes(uid).memory.busy = true;
            return Some(action);
        }
        // Decided again at the next wake-up, with what is known now.
        ended(state, &action);
    }
}

fn start(shared: &Arc<Shared>, policy: Policy) {
    loop {
        let calls = shared.limit.current();
        let writes = shared.max_api_writes;
        let (action, more) = {
            let mut state = shared.state();
            let action = next(&mut state, calls, writes, policy, Instant::now());
            (action, state.has_news())
        };
        if more {
            shared.wake.notify_one();
        }
        let Some(action) = action else { return };
        let shared = shared.clone();
        let tracker = shared.tracker.clone();
        tracker.spawn(async move {
            carry_out(&shared, &action).await;
            let mut state = shared.state();
            ended(&mut state, &action);
            drop(state);
            shared.wake.notify_one();
        });
    }
}

fn is_for_cloud(action: &Action) -> bool {
    matches!(
        action,
        Action::Create { .. }
            | Action::Delete { .. }
            | Action::UpdateImages { .. }
            | Action::RenewTokens { .. }
    )
}

/// Frees the place of an action.
pub(super) fn ended(state: &mut State, action: &Action) {
    if is_for_cloud(action) {
        state.cloud_calls -= 1;
    } else {
        state.api_writes -= 1;
    }
    state.settle(uid_of(action));
}

pub(super) fn uid_of(action: &Action) -> &str {
    match action {
        Action::Create { uid }
        | Action::Delete { uid, .. }
        | Action::UpdateImages { uid, .. }
        | Action::RenewTokens { uid, .. }
        | Action::WriteStatus { uid }
        | Action::Finish { uid }
        | Action::Lost { uid } => uid,
    }
}

async fn carry_out(shared: &Shared, action: &Action) {
    match action {
        Action::Create { uid } => create::create(shared, uid).await,
        Action::Delete { uid, id } => delete(shared, uid, id).await,
        Action::UpdateImages { uid, id } => update::images(shared, uid, id).await,
        Action::RenewTokens { uid, id } => tokens::renew(shared, uid, id).await,
        Action::WriteStatus { uid } => write::status(shared, uid).await,
        Action::Finish { uid } => write::finish(shared, uid).await,
        Action::Lost { uid } => write::lost(shared, uid).await,
    }
}

async fn delete(shared: &Shared, uid: &str, id: &str) {
    let request = DeleteContainerGroupRequest {
        container_group_id: id.to_owned(),
        client_token: Some(format!("delete-{id}")),
        ..DeleteContainerGroupRequest::default()
    };
    let orphan = !shared.state().pods.contains_key(uid);
    if orphan && is_still_there(shared, uid, id).await {
        shared.state().notes(uid).memory.retry_at = Some(Instant::now() + ASK_AGAIN);
        return;
    }
    let asked = Instant::now();
    let outcome = shared.cloud.call(&request).await;
    let mut state = shared.state();
    match outcome {
        Ok(_) => {
            shared.limit.succeeded();
            if orphan {
                tell_swept(shared, &state, uid, id);
            }
            state.deletion_accepted(id, Instant::now());
        }
        Err(error) if error.is_not_found() => state.remove_group(id, asked),
        Err(error) => {
            if error.is_throttling() {
                shared.limit.throttled(Instant::now());
            }
            tracing::warn!(group = id, uid, %error, "container group could not be deleted, trying again");
            state.notes(uid).memory.retry_at = Some(Instant::now() + RETRY);
        }
    }
    drop(state);
    shared.poke.notify_one();
}

/// Whether the pod of a group that seems to have none is in the API after all: on a node that is not watched, for example.
/// Money is lost by asking once too often less than by deleting the group of a living pod.
async fn is_still_there(shared: &Shared, uid: &str, id: &str) -> bool {
    let owner = {
        let state = shared.state();
        state
            .groups
            .get(id)
            .and_then(|group| group.facts.owner.clone())
    };
    let Some((namespace, name)) = owner else {
        return false;
    };
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
    match api.get_opt(&name).await {
        Ok(found) => found.is_some_and(|pod| pod.uid().as_deref() == Some(uid)),
        Err(error) => {
            tracing::warn!(group = id, uid, %error, "the API does not say whether a group's pod is there");
            true
        }
    }
}

/// An event for each group the sweeper takes away, on the pod it was made for.
fn tell_swept(shared: &Shared, state: &State, uid: &str, id: &str) {
    tracing::info!(
        group = id,
        uid,
        "deleted a container group without a living pod"
    );
    let owner = state
        .groups
        .get(id)
        .and_then(|group| group.facts.owner.clone());
    let Some((namespace, name)) = owner else {
        return;
    };
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace),
        name: Some(name),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    let message = format!("container group {id} had no living pod and is deleted");
    shared
        .events
        .tell_about(&about, EventKind::Normal, "OrphanDeleted", &message);
}

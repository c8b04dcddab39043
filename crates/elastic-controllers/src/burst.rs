//! Lets waiting pods on to virtual nodes: those that prefer own nodes when these have no room, and those that should have
//! been routed when they were created while the webhook was away.
//!
//! All that can be changed in a pod that waits is that tolerations are added, so that is all this does; what else a burst
//! means for a pod is the virtual node's work, when the pod has really come to it.

use std::pin::pin;
use std::time::Duration;

use elastic_core::events::{EventKind, event};
use elastic_core::routing::{Burst, burst, tolerate_virtual_nodes};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::routing::RoutingView;

const COMPONENT: &str = "springtide-burst";
/// Pods patched at the same time.
const MAX_PATCHES: usize = 32;
/// All waiting pods are looked at again after this, for patches that failed and profiles that changed.
const AGAIN: Duration = Duration::from_secs(15);

/// Runs until `shutdown`; several of them at the same time do no harm.
pub async fn run_burst(client: Client, view: RoutingView, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = watch_waiting(&client, &view) => {}
        }
    }
}

/// Watches pods without a node until it is time to look at all of them again.
async fn watch_waiting(client: &Client, view: &RoutingView) {
    let mut changes = view.changes();
    changes.mark_unchanged();
    let waiting = watcher::Config::default().fields("spec.nodeName=,status.phase=Pending");
    let pods = watcher(Api::<Pod>::all(client.clone()), waiting)
        .default_backoff()
        .applied_objects();
    let work = pods.for_each_concurrent(MAX_PATCHES, async |pod| match pod {
        Ok(pod) => look(client, view, &pod).await,
        Err(error) => {
            tracing::warn!(%error, "watch of waiting pods broke off, it is taken up again")
        }
    });
    let work = pin!(work);
    tokio::select! {
        () = work => {}
        () = tokio::time::sleep(AGAIN) => {}
        _ = changes.changed() => {}
    }
}

async fn look(client: &Client, view: &RoutingView, pod: &Pod) {
    let namespace = pod.namespace().unwrap_or_default();
    let labels = view.namespace_labels(&namespace);
    let Some(burst) = burst(pod, labels.as_ref(), &view.profile()) else {
        return;
    };
    let mut spec = pod.spec.clone().unwrap_or_default();
    tolerate_virtual_nodes(&mut spec);
    let patch = json!({
        // Made from this very version, so that nothing another one added is lost.
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.resource_version()},
        "spec": {"tolerations": spec.tolerations}
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api
        .patch(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
    {
        Ok(_) => tell(client, pod, burst).await,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            tracing::debug!(
                pod = pod.name_any(),
                namespace,
                "pod has changed meanwhile, it is looked at again"
            );
        }
        Err(error) => {
            tracing::warn!(pod = pod.name_any(), namespace, %error, "waiting pod could not be let on to virtual nodes");
        }
    }
}

async fn tell(client: &Client, pod: &Pod, burst: Burst) {
    let (kind, reason, message) = match burst {
        Burst::Overflow(_) => (
            EventKind::Normal,
            "BurstToVirtualNode",
            "own nodes have no room for the pod, it may run on virtual nodes now",
        ),
        Burst::Repair(_) => (
            EventKind::Warning,
            "RoutingRepaired",
            "the admission webhook did not see this pod; it may run on virtual nodes now, but also on own nodes",
        ),
    };
    let event = event(
        &pod.object_ref(&()),
        COMPONENT,
        kind,
        reason,
        message,
        Timestamp::now(),
    );
    let events: Api<Event> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::debug!(pod = pod.name_any(), %error, "event could not be posted");
    }
}

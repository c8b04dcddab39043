//! Brings the pods of one node into the state.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::Shared;

pub(super) async fn watch_pods(shared: Arc<Shared>, node: usize, shutdown: CancellationToken) {
    let name = shared.nodes[node].name.clone();
    let api: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => match event {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            Ok(event) => apply(&shared, node, event, &mut listed),
            Err(error) => {
                tracing::warn!(node = name, %error, "watch of the node's pods broke off, it is taken up again")
            }
        }
    }
}

fn apply(shared: &Shared, node: usize, event: watcher::Event<Pod>, listed: &mut HashSet<String>) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(mut pod) => {
            listed.extend(pod.uid());
            pod.metadata.managed_fields = None;
            shared.state().put_pod(pod, node);
        }
        watcher::Event::InitDone => shared.state().keep_pods(node, &std::mem::take(listed)),
        watcher::Event::Apply(mut pod) => {
            // Never looked at, and a large part of the object.
            pod.metadata.managed_fields = None;
            shared.state().put_pod(pod, node);
        }
        watcher::Event::Delete(pod) => {
            if let Some(uid) = pod.uid() {
                shared.state().remove_pod(&uid);
            }
        }
    }
    shared.wake.notify_one();
}

//! Brings the pods of one node into the state.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::Shared;

/// Before a watch that broke off is taken up again the first time; doubled from there.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// Longest wait before that: a pod that is deleted while the API is away costs money until the watch is back.
const AGAIN_MOST: Duration = Duration::from_secs(8);

/// How long to wait before a watch is taken up again. Without chance: a handful of watches is no crowd, and what the
/// virtual node does can be replayed.
#[derive(Default)]
pub(super) struct Again(u32);

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let doubled = AGAIN_FIRST.saturating_mul(1 << self.0.min(16));
        self.0 = self.0.saturating_add(1);
        Some(doubled.min(AGAIN_MOST))
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

pub(super) async fn watch_pods(shared: Arc<Shared>, node: usize, shutdown: CancellationToken) {
    let name = shared.nodes[node].name.clone();
    let api: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let mut stream = pin!(watcher(api, config).backoff(Again::default()));
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            biased;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_breaks_off_again_and_again_is_taken_up_more_slowly_up_to_a_bound() {
        let mut again = Again::default();
        let waits: Vec<u128> = again
            .by_ref()
            .take(8)
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        again.reset();
        assert_eq!(again.next(), Some(AGAIN_FIRST));
    }
}

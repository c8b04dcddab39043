//! The pods of one target, watched by its selector while somebody asks for them.

use std::time::Duration;

use elastic_autoscaler::PodSource;
use elastic_core::horizontal_pod_autoscaler::PodView;
use elastic_core::label_query::LabelQuery;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{Store, store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a look waits for the first list of pods.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);

/// A watch of pods, which ends when it is dropped.
struct Watched {
    selector: String,
    store: Store<Pod>,
    _stop: DropGuard,
}

/// The pods of the target that was looked at last.
#[derive(Default)]
pub(super) struct FollowedPods {
    watched: Option<Watched>,
}

impl FollowedPods {
    /// Watches what a selector selects, unless it is watched already; returns when the list is complete.
    pub(super) async fn follow(&mut self, client: &Client, namespace: &str, query: &LabelQuery) {
        let selector = query.to_string();
        if self
            .watched
            .as_ref()
            .is_none_or(|known| known.selector != selector)
        {
            self.watched = Some(watch(client, namespace, selector));
        }
        if let Some(watched) = &self.watched {
            // Without an answer the look goes on without pods, and says so.
            let _ = tokio::time::timeout(SYNC_PATIENCE, watched.store.wait_until_ready()).await;
        }
    }
}

impl PodSource for FollowedPods {
    fn pods(&self, _: &str, query: &LabelQuery) -> Vec<PodView> {
        let Some(watched) = &self.watched else {
            return Vec::new();
        };
        let mut pods = watched.store.state();
        pods.retain(|pod| query.matches(pod.metadata.labels.as_ref()));
        pods.sort_by_key(|pod| pod.name_any());
        pods.iter().map(|pod| PodView::from(pod.as_ref())).collect()
    }
}

fn watch(client: &Client, namespace: &str, selector: String) -> Watched {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (store, writer) = store();
    let stop = CancellationToken::new();
    let changes = watcher(pods, watcher::Config::default().labels(&selector))
        .default_backoff()
        .modify(|pod| pod.managed_fields_mut().clear());
    let stopped = stop.clone();
    // The drop guard owns the task: it ends with the follower that asked.
    tokio::spawn(async move {
        let run = reflector(writer, changes).for_each(|_| std::future::ready(()));
        tokio::select! {
            () = stopped.cancelled() => {}
            () = run => {}
        }
    });
    Watched {
        selector,
        store,
        _stop: stop.drop_guard(),
    }
}

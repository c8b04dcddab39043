//! Events on pods, posted in the background so that a burst of a thousand pods is not slowed by telling about it.
//!
//! The queue is bounded; when it is full, further events are dropped and counted in the log. Events are posted at a
//! bounded rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elastic_core::events::{EventKind, event};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const COMPONENT: &str = "virtual-kubelet/pod-controller";
const MAX_QUEUED: usize = 4_096;
/// Between two events, when there is nothing wrong to tell.
const PACE: Duration = Duration::from_millis(20);

/// Takes events; never waits.
pub(crate) struct EventSink {
    queue: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// Posts them.
pub(crate) struct EventPoster {
    queue: mpsc::Receiver<Event>,
    dropped: Arc<AtomicU64>,
    client: Client,
}

impl EventSink {
    pub(crate) fn new(client: Client) -> (Self, EventPoster) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let dropped = Arc::new(AtomicU64::new(0));
        (
            Self {
                queue: sender,
                dropped: dropped.clone(),
            },
            EventPoster {
                queue: receiver,
                dropped,
                client,
            },
        )
    }

    pub(crate) fn tell(&self, pod: &Pod, kind: EventKind, reason: &str, message: &str) {
        self.tell_about(&pod.object_ref(&()), kind, reason, message);
    }

    /// About any object.
    pub(crate) fn tell_about(
        &self,
        about: &ObjectReference,
        kind: EventKind,
        reason: &str,
        message: &str,
    ) {
        let event = event(about, COMPONENT, kind, reason, message, Timestamp::now());
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EventPoster {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = self.queue.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
            };
            let normal = event.type_.as_deref() == Some("Normal");
            self.post(&event).await;
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "events on pods were dropped, the queue was full");
            }
            if normal {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(PACE) => {}
                }
            }
        }
    }

    async fn post(&self, event: &Event) {
        let namespace = event.namespace().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), event).await {
            // A namespace that is being deleted takes no events; nobody would see them there.
            tracing::debug!(event = event.name_any(), %error, "event could not be posted");
        }
    }
}

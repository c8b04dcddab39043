//! Events on pods, posted in the background so that a burst of a thousand pods is not slowed by telling about it.
//!
//! The queue is bounded; when it is full, further events are dropped and counted in the log. Events are posted at a
//! bounded rate: slowly while groups start, quickly when there is nothing else to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
/// Between two events while groups start, when there is nothing wrong to tell.
const PACE_BUSY: Duration = Duration::from_millis(20);
/// Between two events otherwise.
const PACE: Duration = Duration::from_millis(2);

/// What is told, until it is posted; an event made of it is several times larger.
struct Told {
    about: ObjectReference,
    kind: EventKind,
    reason: Box<str>,
    message: Box<str>,
    at: Timestamp,
}

/// Takes events; never waits.
pub(crate) struct EventSink {
    queue: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
    busy: Arc<AtomicBool>,
}

/// Posts them.
pub(crate) struct EventPoster {
    queue: mpsc::Receiver<Told>,
    dropped: Arc<AtomicU64>,
    busy: Arc<AtomicBool>,
    client: Client,
}

impl EventSink {
    pub(crate) fn new(client: Client) -> (Self, EventPoster) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let (dropped, busy) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        (
            Self {
                queue: sender,
                dropped: dropped.clone(),
                busy: busy.clone(),
            },
            EventPoster {
                queue: receiver,
                dropped,
                busy,
                client,
            },
        )
    }

    /// Whether groups are starting, which comes first.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
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
        let told = Told {
            about: about.clone(),
            kind,
            reason: reason.into(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.queue.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EventPoster {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let told = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                told = self.queue.recv() => match told {
                    Some(told) => told,
                    None => return,
                },
            };
            let normal = matches!(told.kind, EventKind::Normal);
            let (about, reason, message) = (&told.about, &*told.reason, &*told.message);
            self.post(&event(
                about, COMPONENT, told.kind, reason, message, told.at,
            ))
            .await;
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "events on pods were dropped, the queue was full");
            }
            if normal {
                let busy = self.busy.load(Ordering::Relaxed);
                let pause = if busy { PACE_BUSY } else { PACE };
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
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

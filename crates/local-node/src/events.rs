//! Events of a pod, published without making the pod wait for them.

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

/// Events waiting to be written; further ones are dropped with a log line.
const QUEUE_MAX: usize = 1024;

/// Hands events to one task that writes them.
#[derive(Clone)]
pub(crate) struct EventSink {
    queue: mpsc::Sender<(Event, k8s_openapi::api::core::v1::ObjectReference)>,
}

impl EventSink {
    /// Starts the writing task; it ends when the last sink is dropped.
    pub(crate) fn start(client: Client, node: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let reporter = Reporter {
            controller: "kubelet".to_string(),
            instance: Some(node.to_string()),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut events) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(async move {
            while let Some((event, reference)) = events.recv().await {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    tracing::debug!(%error, "event was not written");
                }
            }
        });
        (Self { queue }, task)
    }

    pub(crate) fn normal(&self, pod: &Pod, reason: &str, note: String) {
        self.send(pod, EventType::Normal, reason, note);
    }

    pub(crate) fn warning(&self, pod: &Pod, reason: &str, note: String) {
        self.send(pod, EventType::Warning, reason, note);
    }

    fn send(&self, pod: &Pod, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_string(),
            note: Some(note),
            action: reason.to_string(),
            secondary: None,
        };
        if self.queue.try_send((event, pod.object_ref(&()))).is_err() {
            tracing::warn!(reason, "event dropped, too many are waiting");
        }
    }
}

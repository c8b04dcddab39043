//! Watches pods and nodes, decides pod by pod, binds many at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::Semaphore;

use super::board::{self, Board};
use super::plan::choose;
use super::queue::{Aside, PodQueue};
use crate::shared::objects::{
    is_finished, name, namespace, node_name, pod_condition, uid, whole_seconds,
};
use crate::shared::recorder::reference;
use crate::shared::requests::{merge_strategic, path_of, send};
use crate::shared::{Cache, Cluster, ControllerError, ObjectKey};

const COMPONENT: &str = "default-scheduler";
/// So many bindings and status writes are under way at once.
const REQUESTS_MAX: usize = 256;

struct Scheduler {
    cluster: Cluster,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    namespaces: Arc<Cache<Namespace>>,
    board: Mutex<Board>,
    queue: PodQueue,
    requests: Arc<Semaphore>,
}

/// Starts the scheduler.
pub fn start(cluster: &Cluster) {
    let scheduler = Arc::new(Scheduler {
        cluster: cluster.clone(),
        pods: cluster.pods(),
        nodes: cluster.nodes(),
        namespaces: cluster.namespaces(),
        board: Mutex::default(),
        queue: PodQueue::default(),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
    });
    let task = Arc::clone(&scheduler);
    cluster.spawn(async move {
        let shutdown = task.cluster.shutdown().clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = task.run() => {}
        }
    });
}

impl Scheduler {
    async fn run(self: &Arc<Self>) {
        tokio::join!(
            self.pods.wait_synced(),
            self.nodes.wait_synced(),
            self.namespaces.wait_synced()
        );
        self.subscribe();
        loop {
            let (key, mark) = self.queue.next().await;
            let Some(pod) = self.pods.get(&key).filter(|pod| is_waiting(pod)) else {
                self.queue.remove(&key);
                continue;
            };
            let decision = {
                let mut board = self.board();
                if board.is_placed(uid(&pod.metadata)) {
                    continue;
                }
                let decision = choose(&board, &pod);
                if let Ok(node) = &decision {
                    board.place(Arc::clone(&pod), node);
                }
                decision
            };
            match decision {
                Ok(node) => self.start_binding(pod, node).await,
                Err(error) => {
                    let minds_neighbours = super::affinity::minds_neighbours(&pod);
                    let aside = Aside {
                        priority: priority(&pod),
                        minds_neighbours,
                    };
                    self.queue.set_aside(key, aside, mark);
                    self.start_report(pod, error.to_string()).await;
                }
            }
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(self: &Arc<Self>) {
        let scheduler = Arc::downgrade(self);
        self.namespaces.subscribe(move |_, new| {
            if let (Some(scheduler), Some(namespace)) = (scheduler.upgrade(), new) {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                scheduler
                    .board()
                    .namespaces
                    .insert(name(&namespace.metadata).to_owned(), labels);
            }
        });
        let scheduler = Arc::downgrade(self);
        self.nodes.subscribe(move |old, new| {
            if let Some(scheduler) = scheduler.upgrade() {
                scheduler.node_changed(old, new);
            }
        });
        let scheduler = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let Some(scheduler) = scheduler.upgrade() {
                scheduler.pod_changed(old, new);
            }
        });
    }

    fn node_changed(&self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) {
        match new {
            Some(node) => {
                self.board().set_node(Arc::clone(node));
                if old.is_none_or(|old| board::is_relevant(old, node)) {
                    self.queue.wake();
                }
            }
            None => {
                if let Some(node) = old {
                    self.board().remove_node(name(&node.metadata));
                }
            }
        }
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let Some(old) = old
            && new.is_none_or(|new| uid(&new.metadata) != uid(&old.metadata))
        {
            self.release(old);
        }
        let Some(pod) = new else { return };
        if is_finished(pod) {
            return self.release(pod);
        }
        match node_name(pod) {
            Some(node) => {
                let was_placed = old.and_then(|old| node_name(old)) == Some(node);
                if was_placed
                    && old.is_some_and(|old| {
                        old.metadata.labels == pod.metadata.labels && old.spec == pod.spec
                    })
                {
                    return;
                }
                self.board().place(Arc::clone(pod), node);
                self.queue.remove(&ObjectKey::of(pod.as_ref()));
                self.queue.wake_neighbours();
            }
            None if is_waiting(pod) => {
                let is_same = old.is_some_and(|old| {
                    old.spec == pod.spec && old.metadata.labels == pod.metadata.labels
                });
                if !is_same {
                    self.queue.add(ObjectKey::of(pod.as_ref()), priority(pod));
                }
            }
            None => self.queue.remove(&ObjectKey::of(pod.as_ref())),
        }
    }

    fn release(&self, pod: &Pod) {
        self.queue.remove(&ObjectKey::of(pod));
        let was_placed = {
            let mut board = self.board();
            let was_placed = board.is_placed(uid(&pod.metadata));
            board.unplace(uid(&pod.metadata));
            was_placed
        };
        if was_placed {
            self.queue.wake();
        }
    }

    async fn start_binding(self: &Arc<Self>, pod: Arc<Pod>, node: String) {
        let Ok(permit) = Arc::clone(&self.requests).acquire_owned().await else {
            return;
        };
        let scheduler = Arc::clone(self);
        self.cluster.spawn(async move {
            let _permit = permit;
            match scheduler.bind(&pod, &node).await {
                Ok(()) => {
                    let (namespace, name) = (namespace(&pod.metadata), name(&pod.metadata));
                    let message = format!("Successfully assigned {namespace}/{name} to {node}");
                    scheduler.record(&pod, false, "Scheduled", message, "Binding");
                }
                Err(error) => scheduler.binding_failed(&pod, &error),
            }
        });
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), ControllerError> {
        let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "binding");
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let body = body.to_string().into_bytes();
        send::<IgnoredAny>(
            self.cluster.client(),
            Method::POST,
            &path,
            "application/json",
            body,
        )
        .await
        .map(|_| ())
    }

    fn binding_failed(&self, pod: &Pod, error: &ControllerError) {
        let key = ObjectKey::of(pod);
        let still_waits = self
            .pods
            .get(&key)
            .is_some_and(|now| is_waiting(&now) && now.metadata.uid == pod.metadata.uid);
        if !still_waits {
            return;
        }
        self.board().unplace(uid(&pod.metadata));
        if error.is_not_found() {
            // The deletion is on its way.
            return;
        }
        tracing::debug!(pod = %key, error = error as &dyn std::error::Error, "binding failed");
        self.record(
            pod,
            true,
            "FailedScheduling",
            format!("binding rejected: {}", error.api_message()),
            "Scheduling",
        );
        self.queue.retry(key, priority(pod));
    }

    async fn start_report(self: &Arc<Self>, pod: Arc<Pod>, message: String) {
        let is_told = pod_condition(&pod, "PodScheduled").is_some_and(|known| {
            known.status == "False"
                && known.reason.as_deref() == Some("Unschedulable")
                && known.message.as_deref() == Some(message.as_str())
        });
        if is_told {
            // A full cluster is tried again with every change; only what is new is worth a write.
            return;
        }
        self.record(
            &pod,
            true,
            "FailedScheduling",
            message.clone(),
            "Scheduling",
        );
        let Ok(permit) = Arc::clone(&self.requests).acquire_owned().await else {
            return;
        };
        let scheduler = Arc::clone(self);
        self.cluster.spawn(async move {
            let _permit = permit;
            let since = pod_condition(&pod, "PodScheduled")
                .filter(|known| known.status == "False")
                .and_then(|known| known.last_transition_time.clone())
                .unwrap_or_else(|| whole_seconds(Timestamp::now()));
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastProbeTime": null, "lastTransitionTime": since,
            });
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "status");
            if let Err(error) = merge_strategic(scheduler.cluster.client(), &path, &patch).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "pod condition not written");
            }
        });
    }

    fn record(
        &self,
        pod: &Pod,
        is_warning: bool,
        reason: &str,
        message: String,
        action: &'static str,
    ) {
        let recorder = self.cluster.recorder();
        recorder.record_action(
            COMPONENT,
            reference(pod),
            is_warning,
            reason,
            message,
            Some(action),
        );
    }
}

/// Whether a pod waits for this scheduler.
fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_ours = spec
        .scheduler_name
        .as_deref()
        .is_none_or(|name| name == COMPONENT);
    let is_gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    is_ours
        && !is_gated
        && node_name(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !is_finished(pod)
}

fn priority(pod: &Pod) -> i32 {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.priority)
        .unwrap_or(0)
}

//! Listens for signs of life and carries out the plans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::eviction::{Stay, driving_taints, stay};
use super::health::{is_unready, plan};
use crate::config::NodesConfig;
use crate::shared::cache::on_node;
use crate::shared::objects::{is_finished, name, namespace, node_name, whole_seconds};
use crate::shared::recorder::reference;
use crate::shared::requests::{delete, merge, merge_strategic, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const HEALTH: &str = "node-controller";
const EVICTION: &str = "taint-eviction-controller";
const WORKERS: usize = 4;

struct Controller {
    cluster: Cluster,
    grace: SignedDuration,
    nodes: Arc<Cache<Node>>,
    leases: Arc<Cache<Lease>>,
    pods: Arc<Cache<Pod>>,
    health_queue: Arc<WorkQueue<ObjectKey>>,
    eviction_queue: Arc<WorkQueue<ObjectKey>>,
    heard: Mutex<HashMap<ObjectKey, Timestamp>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster, config: &NodesConfig) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        grace: SignedDuration::try_from(config.grace_period).unwrap_or(SignedDuration::MAX),
        nodes: cluster.nodes(),
        leases: cluster.node_leases(),
        pods: cluster.pods(),
        health_queue: Arc::default(),
        eviction_queue: Arc::default(),
        heard: Mutex::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.nodes.wait_synced(),
                controller.leases.wait_synced(),
                controller.pods.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        controller.subscribe();
        let health = Arc::clone(&controller);
        controller
            .health_queue
            .start_workers(HEALTH, WORKERS, &starter, move |key| {
                let controller = Arc::clone(&health);
                async move { controller.look_after(key).await }
            });
        let queue = Arc::clone(&controller.eviction_queue);
        queue.start_workers(EVICTION, WORKERS, &starter, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.evict(key).await }
        });
    });
}

impl Controller {
    fn subscribe(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.nodes.subscribe(move |old, new| {
            if let Some(controller) = weak.upgrade() {
                controller.node_changed(old, new);
            }
        });
        let weak = Arc::downgrade(self);
        self.leases.subscribe(move |old, new| {
            let renewed =
                |lease: &Arc<Lease>| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            if let (Some(controller), Some(lease)) = (weak.upgrade(), new)
                && old.is_none_or(|old| renewed(old) != renewed(lease))
            {
                controller.hear(ObjectKey::new("", name(&lease.metadata)));
            }
        });
        let weak = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let (Some(controller), Some(pod)) = (weak.upgrade(), new)
                && let Some(node) = node_name(pod)
                && old.and_then(|old| node_name(old)) != Some(node)
                && controller
                    .nodes
                    .named("", node)
                    .is_some_and(|node| !driving_taints(&node).is_empty())
            {
                controller.eviction_queue.add(ObjectKey::new("", node));
            }
        });
    }

    fn node_changed(&self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) {
        let Some(node) = new else {
            if let Some(node) = old {
                self.heard().remove(&ObjectKey::of(node.as_ref()));
            }
            return;
        };
        let key = ObjectKey::of(node.as_ref());
        let beat = |node: &Node| {
            let conditions = node
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_deref())
                .unwrap_or_default();
            conditions
                .iter()
                .filter_map(|condition| condition.last_heartbeat_time.clone())
                .max()
        };
        if old.is_none_or(|old| beat(old) != beat(node)) {
            self.hear(key.clone());
        }
        let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
        if old.is_none_or(|old| taints(old) != taints(node)) && !driving_taints(node).is_empty() {
            self.eviction_queue.add(key.clone());
        }
        self.health_queue.add(key);
    }

    /// Notes a sign of life; a node that is tainted as silent is looked at again when it speaks for itself.
    fn hear(&self, node: ObjectKey) {
        self.heard().insert(node, Timestamp::now());
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<ObjectKey, Timestamp>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_after(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(node) = self.nodes.get(&key) else {
            return Ok(Next::Wait);
        };
        let now = Timestamp::now();
        let heard = *self.heard().entry(key.clone()).or_insert(now);
        let plan = plan(&node, heard, self.grace, now);
        let client = self.cluster.client();
        if let Some(conditions) = &plan.conditions {
            let path = path_of::<Node>("", &key.name, "status");
            merge_strategic(
                client,
                &path,
                &json!({"status": {"conditions": conditions}}),
            )
            .await?;
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            self.cluster.recorder().record(
                HEALTH,
                reference(node.as_ref()),
                false,
                "NodeNotReady",
                message,
            );
        }
        if let Some(taints) = &plan.taints {
            // Others edit the list too, so the version must be the one that was judged, unless only the status moved.
            let version = plan
                .conditions
                .is_none()
                .then(|| node.metadata.resource_version.clone())
                .flatten();
            let mut patch = json!({"spec": {"taints": (!taints.is_empty()).then_some(taints)}});
            if let Some(version) = version {
                patch["metadata"] = json!({"resourceVersion": version});
            }
            let written: Node = merge(client, &path_of::<Node>("", &key.name, ""), &patch).await?;
            self.nodes.write_through(written);
        }
        if plan.conditions.is_some() || is_unready(&node) {
            self.mark_pods(&key).await?;
        }
        Ok(plan.next_look.map_or(Next::Wait, Next::After))
    }

    /// Pods of a node that is not ready are not either.
    async fn mark_pods(&self, node: &ObjectKey) -> Result<(), ControllerError> {
        for pod in self.pods.indexed(&on_node(&node.name)) {
            if !crate::shared::objects::is_ready(&pod) {
                continue;
            }
            let condition = json!({
                "type": "Ready", "status": "False", "lastTransitionTime": whole_seconds(Timestamp::now()),
            });
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "status");
            match merge_strategic(self.cluster.client(), &path, &patch).await {
                Err(error) if !error.is_race() => return Err(error),
                _ => {}
            }
            let recorder = self.cluster.recorder();
            recorder.record(
                HEALTH,
                reference(pod.as_ref()),
                true,
                "NodeNotReady",
                "Node is not ready",
            );
        }
        Ok(())
    }

    async fn evict(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(node) = self.nodes.get(&key) else {
            return Ok(Next::Wait);
        };
        let taints = driving_taints(&node);
        if taints.is_empty() {
            return Ok(Next::Wait);
        }
        let now = Timestamp::now();
        let mut next: Option<Duration> = None;
        for pod in self.pods.indexed(&on_node(&key.name)) {
            if pod.metadata.deletion_timestamp.is_some() || is_finished(&pod) {
                continue;
            }
            match stay(&pod, &taints, now) {
                Stay::Forever => {}
                Stay::For(left) => next = Some(next.map_or(left, |known| known.min(left))),
                Stay::Over => self.drive_out(&pod).await?,
            }
        }
        Ok(next.map_or(Next::Wait, Next::After))
    }

    async fn drive_out(&self, pod: &Pod) -> Result<(), ControllerError> {
        let (home, name) = (namespace(&pod.metadata), name(&pod.metadata));
        let message = format!("Marking for deletion Pod {home}/{name}");
        self.cluster.recorder().record(
            EVICTION,
            reference(pod),
            false,
            "TaintManagerEviction",
            message,
        );
        let options = json!({"preconditions": {"uid": pod.metadata.uid}});
        delete(
            self.cluster.client(),
            &path_of::<Pod>(home, name, ""),
            &options,
        )
        .await
    }
}

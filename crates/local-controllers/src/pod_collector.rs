//! Removes pods of nodes that do not exist any more, after a while. Refuses everything else: finished pods stay.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::config::NodesConfig;
use crate::shared::cache::on_node;
use crate::shared::objects::{is_finished, name, namespace, node_name, whole_seconds};
use crate::shared::requests::{delete, get, merge_strategic, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "pod-garbage-collector";

struct Controller {
    cluster: Cluster,
    quarantine: Duration,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster, config: &NodesConfig) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        quarantine: config.orphan_quarantine,
        pods: cluster.pods(),
        nodes: cluster.nodes(),
        queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.pods.wait_synced(),
                controller.nodes.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        let weak = Arc::downgrade(&controller);
        controller.nodes.subscribe(move |old, new| {
            if let (Some(controller), Some(node), None) = (weak.upgrade(), old, new) {
                controller
                    .queue
                    .add_after(ObjectKey::of(node.as_ref()), controller.quarantine);
            }
        });
        let weak = Arc::downgrade(&controller);
        controller.pods.subscribe(move |_, new| {
            if let (Some(controller), Some(node)) =
                (weak.upgrade(), new.and_then(|pod| node_name(pod)))
                && controller.nodes.named("", node).is_none()
            {
                controller
                    .queue
                    .add_after(ObjectKey::new("", node), controller.quarantine);
            }
        });
        let queue = Arc::clone(&controller.queue);
        queue.start_workers(COMPONENT, 1, &starter, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.collect(key).await }
        });
    });
}

impl Controller {
    async fn collect(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        if self.nodes.get(&key).is_some() {
            return Ok(Next::Wait);
        }
        match get::<IgnoredAny>(self.cluster.client(), &path_of::<Node>("", &key.name, "")).await {
            Ok(_) => return Ok(Next::Wait),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        for pod in self.pods.indexed(&on_node(&key.name)) {
            self.remove(&pod).await?;
        }
        Ok(Next::Wait)
    }

    async fn remove(&self, pod: &Pod) -> Result<(), ControllerError> {
        let client = self.cluster.client();
        let (home, name) = (namespace(&pod.metadata), name(&pod.metadata));
        if !is_finished(pod) {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": whole_seconds(Timestamp::now()),
            });
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"phase": "Failed", "conditions": [condition]},
            });
            match merge_strategic(client, &path_of::<Pod>(home, name, "status"), &patch).await {
                Err(error) if !error.is_race() => return Err(error),
                _ => {}
            }
        }
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}});
        delete(client, &path_of::<Pod>(home, name, ""), &options).await
    }
}

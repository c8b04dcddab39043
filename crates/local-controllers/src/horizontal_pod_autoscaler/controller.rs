//! One look at each autoscaler per period, and at once when it is new or changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elastic_autoscaler::{Autoscaler, AutoscalerSettings, PodSource, Subject};
use elastic_core::horizontal_pod_autoscaler::{EventText, Memory, PodView, scalings_of};
use elastic_core::label_query::LabelQuery;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use crate::config::AutoscalerConfig;
use crate::shared::cache::in_namespace;
use crate::shared::recorder::reference;
use crate::shared::requests::{FIELD_MANAGER, merge, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "horizontal-pod-autoscaler";
const WORKERS: usize = 5;
/// An answer of a metrics API serves other autoscalers for this part of a period, and no longer than a second.
const FRESH_PART: u32 = 4;
const FRESH_MAX: Duration = Duration::from_secs(1);

struct Controller {
    cluster: Cluster,
    sync_period: Duration,
    autoscaler: Autoscaler,
    autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    pods: CachedPods,
    queue: Arc<WorkQueue<ObjectKey>>,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
}

struct CachedPods(Arc<Cache<Pod>>);

impl PodSource for CachedPods {
    fn pods(&self, namespace: &str, query: &LabelQuery) -> Vec<PodView> {
        let mut pods = self.0.indexed(&in_namespace(namespace));
        pods.retain(|pod| query.matches(pod.metadata.labels.as_ref()));
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        pods.iter().map(|pod| PodView::from(pod.as_ref())).collect()
    }
}

/// Starts the controller.
pub fn start(cluster: &Cluster, config: AutoscalerConfig) {
    let settings = AutoscalerSettings {
        flags: config.flags,
        metrics_freshness: (config.sync_period / FRESH_PART).min(FRESH_MAX),
        field_manager: FIELD_MANAGER,
    };
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        sync_period: config.sync_period,
        autoscaler: Autoscaler::new(cluster.client().clone(), settings),
        autoscalers: cluster.autoscalers(),
        pods: CachedPods(cluster.pods()),
        queue: Arc::default(),
        memories: Mutex::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.autoscalers.wait_synced(),
                controller.pods.0.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        let weak = Arc::downgrade(&controller);
        controller.autoscalers.subscribe(move |old, new| {
            if let (Some(controller), Some(autoscaler)) = (weak.upgrade(), new.or(old)) {
                let spec = |autoscaler: &HorizontalPodAutoscaler| autoscaler.spec.clone();
                let is_status_only = old.zip(new).is_some_and(|(old, new)| {
                    spec(old) == spec(new) && old.metadata.uid == new.metadata.uid
                });
                if !is_status_only {
                    controller.queue.add(ObjectKey::of(autoscaler.as_ref()));
                }
            }
        });
        let queue = Arc::clone(&controller.queue);
        queue.start_workers(COMPONENT, WORKERS, &starter, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.cycle(key).await }
        });
    });
}

impl Controller {
    async fn cycle(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let started = Instant::now();
        let Some(autoscaler) = self.autoscalers.get(&key) else {
            self.memories().remove(&key);
            self.autoscaler.forget(&key.namespace, &key.name);
            return Ok(Next::Wait);
        };
        if let Err(error) = self.look(&key, &autoscaler).await {
            tracing::debug!(autoscaler = %key, error = &error as &dyn std::error::Error, "cycle failed");
        }
        Ok(Next::After(
            self.sync_period.saturating_sub(started.elapsed()),
        ))
    }

    async fn look(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
    ) -> Result<(), ControllerError> {
        let Some(spec) = &autoscaler.spec else {
            return Ok(());
        };
        let previous = autoscaler.status.clone().unwrap_or_default();
        let subject = Subject {
            namespace: &key.namespace,
            name: &key.name,
            spec,
            status: &previous,
        };
        let mut memory = self.memories().get(key).cloned().unwrap_or_default();
        // What the fast path did counts here too, so that the two do not undo each other's work.
        let others = scalings_of(autoscaler.metadata.annotations.as_ref());
        memory.learn(spec.behavior.as_ref(), &others, Timestamp::now());
        let cycle = self
            .autoscaler
            .cycle(subject, &self.pods, &mut memory, Timestamp::now)
            .await;
        self.memories().insert(key.clone(), memory);
        for event in &cycle.events {
            self.record(autoscaler, event);
        }
        self.write_status(key, &previous, &cycle.status).await
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        previous: &HorizontalPodAutoscalerStatus,
        status: &HorizontalPodAutoscalerStatus,
    ) -> Result<(), ControllerError> {
        if is_same(previous, status) {
            return Ok(());
        }
        let patch = json!({"status": {
            "conditions": status.conditions,
            "currentMetrics": status.current_metrics,
            "currentReplicas": status.current_replicas,
            "desiredReplicas": status.desired_replicas,
            "lastScaleTime": status.last_scale_time,
        }});
        let path = path_of::<HorizontalPodAutoscaler>(&key.namespace, &key.name, "status");
        match merge::<HorizontalPodAutoscaler>(self.cluster.client(), &path, &patch).await {
            Ok(written) => self.autoscalers.write_through(written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn record(&self, autoscaler: &HorizontalPodAutoscaler, event: &EventText) {
        let recorder = self.cluster.recorder();
        recorder.record(
            COMPONENT,
            reference(autoscaler),
            event.is_warning,
            event.reason,
            event.message.clone(),
        );
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two statuses say the same, whichever way zero and nothing are written.
fn is_same(one: &HorizontalPodAutoscalerStatus, other: &HorizontalPodAutoscalerStatus) -> bool {
    let plain = |status: &HorizontalPodAutoscalerStatus| {
        let mut status = status.clone();
        status.current_replicas = status.current_replicas.filter(|count| *count != 0);
        status.current_metrics = status.current_metrics.filter(|metrics| !metrics.is_empty());
        status
    };
    plain(one) == plain(other)
}

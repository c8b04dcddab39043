//! One look at each autoscaler per period, and at once when it is new or changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elastic_core::horizontal_pod_autoscaler::{
    Decision, EventText, Memory, Observed, Outcome, PodView, SelectorFault, decide, needs_metrics,
    next_status, scale_outcome_events, scale_read_failed,
};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use super::label_query::LabelQuery;
use super::metrics::PodUsage;
use super::scale::{Scale, Scales};
use crate::config::AutoscalerConfig;
use crate::shared::cache::in_namespace;
use crate::shared::recorder::reference;
use crate::shared::requests::{merge, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "horizontal-pod-autoscaler";
const WORKERS: usize = 5;

struct Controller {
    cluster: Cluster,
    config: AutoscalerConfig,
    autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    scales: Scales,
    memories: Mutex<HashMap<ObjectKey, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    memory: Memory,
    query: Option<LabelQuery>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster, config: AutoscalerConfig) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        config,
        autoscalers: cluster.autoscalers(),
        pods: cluster.pods(),
        queue: Arc::default(),
        scales: Scales::default(),
        memories: Mutex::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.autoscalers.wait_synced(),
                controller.pods.wait_synced()
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
            return Ok(Next::Wait);
        };
        if let Some(spec) = &autoscaler.spec
            && let Err(error) = self.decide_and_act(&key, &autoscaler, spec).await
        {
            tracing::debug!(autoscaler = %key, error = &error as &dyn std::error::Error, "cycle failed");
        }
        Ok(Next::After(
            self.config.sync_period.saturating_sub(started.elapsed()),
        ))
    }

    async fn decide_and_act(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<(), ControllerError> {
        let client = self.cluster.client();
        let previous = autoscaler.status.clone().unwrap_or_default();
        let scale = match self
            .scales
            .read(client, &key.namespace, &spec.scale_target_ref)
            .await
        {
            Ok(scale) => scale,
            Err(error) => {
                let (status, event) =
                    scale_read_failed(&previous, &error.api_message(), Timestamp::now());
                self.record(autoscaler, &event);
                return self.write_status(key, &previous, &status).await;
            }
        };
        let mut memory = self
            .memories()
            .get(key)
            .map(|known| known.memory.clone())
            .unwrap_or_default();
        let decision = self
            .observe_and_decide(key, spec, &scale, &mut memory)
            .await;
        let outcome = self.act(key, spec, &scale, &decision, &mut memory).await;
        self.memories().entry(key.clone()).or_default().memory = memory;
        for event in decision
            .events
            .iter()
            .chain(&scale_outcome_events(&decision, &outcome))
        {
            self.record(autoscaler, event);
        }
        let status = next_status(
            &previous,
            scale.replicas(),
            &decision,
            &outcome,
            Timestamp::now(),
        );
        self.write_status(key, &previous, &status).await
    }

    async fn observe_and_decide(
        &self,
        key: &ObjectKey,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        memory: &mut Memory,
    ) -> Decision {
        let mut pods = Vec::new();
        let mut readings = Vec::new();
        let mut selector = Ok(());
        if needs_metrics(spec, scale.replicas()) {
            match self.select(key, scale.selector()) {
                Ok(selected) => {
                    pods = selected;
                    let usage =
                        PodUsage::read(self.cluster.client(), &key.namespace, scale.selector())
                            .await;
                    let metrics = spec.metrics.as_deref().unwrap_or_default();
                    readings = metrics.iter().map(|metric| usage.samples(metric)).collect();
                }
                Err(fault) => selector = Err(fault),
            }
        }
        let observed = Observed {
            spec_replicas: scale.replicas(),
            selector,
            pods: &pods,
            readings,
        };
        decide(
            spec,
            &observed,
            memory,
            &self.config.flags,
            Timestamp::now(),
        )
    }

    /// The pods of the target, unless another autoscaler selects them too.
    fn select(&self, key: &ObjectKey, text: &str) -> Result<Vec<PodView>, SelectorFault> {
        if text.is_empty() {
            return Err(SelectorFault::Missing);
        }
        let query = LabelQuery::parse(text).map_err(SelectorFault::Invalid)?;
        let mut pods = self.pods.indexed(&in_namespace(&key.namespace));
        pods.retain(|pod| query.matches(pod.metadata.labels.as_ref()));
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        let mut memories = self.memories();
        memories.entry(key.clone()).or_default().query = Some(query);
        let mut rivals: Vec<String> = memories
            .iter()
            .filter(|(other, known)| {
                let selects_any = |query: &LabelQuery| {
                    pods.iter()
                        .any(|pod| query.matches(pod.metadata.labels.as_ref()))
                };
                other.namespace == key.namespace && known.query.as_ref().is_some_and(selects_any)
            })
            .map(|(other, _)| other.to_string())
            .collect();
        if rivals.len() > 1 {
            rivals.sort();
            let rivals = rivals.join(" ");
            let text =
                format!("pods by selector {text} are controlled by multiple HPAs: [{rivals}]");
            return Err(SelectorFault::Ambiguous(text));
        }
        Ok(pods.iter().map(|pod| PodView::from(pod.as_ref())).collect())
    }

    async fn act(
        &self,
        key: &ObjectKey,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        decision: &Decision,
        memory: &mut Memory,
    ) -> Outcome {
        let Some(rescale) = &decision.rescale else {
            return Outcome::Unneeded;
        };
        let (client, target) = (self.cluster.client(), &spec.scale_target_ref);
        match self
            .scales
            .write(client, &key.namespace, target, rescale.replicas)
            .await
        {
            Ok(()) => {
                memory.rescaled(
                    spec.behavior.as_ref(),
                    scale.replicas(),
                    rescale.replicas,
                    Timestamp::now(),
                );
                Outcome::Scaled
            }
            Err(error) => Outcome::Failed(error.api_message()),
        }
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

    fn memories(&self) -> MutexGuard<'_, HashMap<ObjectKey, Remembered>> {
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

//! One look at one autoscaler: read, decide, act, and say what came of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elastic_core::horizontal_pod_autoscaler::{
    Decision, EventText, Flags, Memory, Observed, Outcome, PodView, Reading, Rescale,
    SelectorFault, Selectors, decide, is_scaled_to_zero, needs_metrics, next_status,
    scale_outcome_events, scale_read_failed,
};
use elastic_core::label_query::LabelQuery;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use kube::Client;

use crate::kinds::Kinds;
use crate::metrics::{Asked, Metrics};
use crate::scale::{self, Scale};

/// Where pods come from; a store that somebody keeps, never a request for each autoscaler.
pub trait PodSource: Send + Sync {
    /// The pods of a namespace that match, ordered by name.
    fn pods(&self, namespace: &str, query: &LabelQuery) -> Vec<PodView>;
}

/// How autoscalers are looked at.
#[derive(Clone, Debug)]
pub struct AutoscalerSettings {
    /// What decisions take into account.
    pub flags: Flags,
    /// How long an answer of a metrics API serves everybody who asks the same.
    pub metrics_freshness: Duration,
    /// Who scales, in the target's managed fields.
    pub field_manager: &'static str,
}

/// The autoscaler that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What it asks for.
    pub spec: &'a HorizontalPodAutoscalerSpec,
    /// What was said of it before.
    pub status: &'a HorizontalPodAutoscalerStatus,
}

/// What was read for one autoscaler.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The target's scale.
    pub scale: Scale,
    /// Whether the selector can be used.
    pub selector: Result<(), SelectorFault>,
    /// The target's pods.
    pub pods: Vec<PodView>,
    /// What was read of each metric.
    pub readings: Vec<Result<Reading, String>>,
}

/// What one look came to.
#[derive(Clone, Debug)]
pub struct Cycle {
    /// The new status.
    pub status: HorizontalPodAutoscalerStatus,
    /// The events to record, in order.
    pub events: Vec<EventText>,
}

/// Looks at autoscalers. Holds nothing that a restart would miss: caches of answers, and who selects what.
pub struct Autoscaler {
    client: Client,
    settings: AutoscalerSettings,
    kinds: Kinds,
    metrics: Metrics,
    selectors: Mutex<Selectors>,
}

impl Autoscaler {
    /// One that works through a client.
    pub fn new(client: Client, settings: AutoscalerSettings) -> Self {
        Autoscaler {
            metrics: Metrics::new(client.clone(), settings.metrics_freshness),
            client,
            settings,
            kinds: Kinds::default(),
            selectors: Mutex::default(),
        }
    }

    /// What decisions take into account.
    pub fn flags(&self) -> &Flags {
        &self.settings.flags
    }

    /// Forgets an autoscaler that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.selectors().forget(namespace, name);
    }

    /// Looks, decides and acts. `now` is asked for when there is something to be dated.
    pub async fn cycle(
        &self,
        subject: Subject<'_>,
        pods: &dyn PodSource,
        memory: &mut Memory,
        now: impl Fn() -> Timestamp,
    ) -> Cycle {
        let scale = match self.read_scale(subject).await {
            Ok(scale) => scale,
            Err(error) => {
                let (status, event) = scale_read_failed(subject.status, &error, now());
                let events = vec![event];
                return Cycle { status, events };
            }
        };
        let observation = self.observe(subject, scale, pods).await;
        let decision = self.decide(subject, &observation, memory, now());
        let outcome = match &decision.rescale {
            Some(rescale) => {
                let scale = &observation.scale;
                self.act(subject, scale, rescale, memory, &now).await
            }
            None => Outcome::Unneeded,
        };
        let spec_replicas = observation.scale.view.spec_replicas;
        let status = next_status(subject.status, spec_replicas, &decision, &outcome, now());
        let follow = scale_outcome_events(&decision, &outcome);
        let mut events = decision.events;
        events.extend(follow);
        Cycle { status, events }
    }

    /// Reads the target's scale.
    ///
    /// # Errors
    /// The sentence why there is none.
    pub async fn read_scale(&self, subject: Subject<'_>) -> Result<Scale, String> {
        let target = &subject.spec.scale_target_ref;
        scale::read(&self.client, &self.kinds, subject.namespace, target).await
    }

    /// Reads pods and metrics, as far as a target of this size needs them.
    pub async fn observe(
        &self,
        subject: Subject<'_>,
        scale: Scale,
        pods: &dyn PodSource,
    ) -> Observation {
        let Subject {
            namespace, spec, ..
        } = subject;
        let mut observation = Observation {
            scale,
            selector: Ok(()),
            pods: Vec::new(),
            readings: Vec::new(),
        };
        let view = &observation.scale.view;
        if !needs_metrics(spec, view.spec_replicas) {
            return observation;
        }
        let Some(query) = &view.query else {
            observation.selector = Err(SelectorFault::Missing);
            return observation;
        };
        observation.pods = pods.pods(namespace, query);
        observation.selector = {
            let mut selectors = self.selectors();
            selectors.note(namespace, subject.name, query.clone());
            selectors.check(namespace, &view.selector, &observation.pods)
        };
        if observation.selector.is_ok() {
            let asked = Asked {
                namespace,
                query,
                pods: &observation.pods,
            };
            for metric in spec.metrics.iter().flatten() {
                let reading = self.metrics.read(&self.kinds, metric, &asked).await;
                observation.readings.push(reading);
            }
        }
        observation
    }

    /// Decides on what was read.
    pub fn decide(
        &self,
        subject: Subject<'_>,
        observation: &Observation,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Decision {
        let view = &observation.scale.view;
        let observed = Observed {
            namespace: subject.namespace,
            spec_replicas: view.spec_replicas,
            status_replicas: view.status_replicas,
            is_scaled_to_zero: is_scaled_to_zero(subject.status),
            selector: observation.selector.clone(),
            pods: &observation.pods,
            readings: observation.readings.clone(),
        };
        decide(subject.spec, &observed, memory, &self.settings.flags, now)
    }

    /// Makes a scale call.
    pub async fn act(
        &self,
        subject: Subject<'_>,
        scale: &Scale,
        rescale: &Rescale,
        memory: &mut Memory,
        now: impl Fn() -> Timestamp,
    ) -> Outcome {
        let manager = self.settings.field_manager;
        match scale::write(&self.client, scale, rescale.replicas, manager).await {
            Ok(()) => {
                let behavior = subject.spec.behavior.as_ref();
                let from = scale.view.spec_replicas;
                memory.rescaled(behavior, from, rescale.replicas, now());
                Outcome::Scaled
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    fn selectors(&self) -> MutexGuard<'_, Selectors> {
        self.selectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

//! One autoscaler on the fast path: looks at its metrics, and decides when they have changed.

use std::sync::Arc;
use std::time::Duration;

use elastic_autoscaler::{Observation, Scale, Subject};
use elastic_core::events::EventKind;
use elastic_core::horizontal_pod_autoscaler::{
    Decision, FastPath, Memory, Outcome, Reading, Scaling, scale_outcome_events, scalings_of,
    with_scaling,
};
use elastic_core::names::FAST_SCALINGS;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::pods::FollowedPods;

/// The values of one metric, by which a change is known; times alone are none.
type Values = Result<Vec<(String, i64)>, String>;

/// What the last full look saw.
struct Seen {
    scale: Scale,
    scale_read: Instant,
    generation: Option<String>,
    values: Vec<Values>,
}

/// What a follower waits for.
pub(super) struct Wakes {
    /// The autoscaler as it is now.
    pub(super) newest: watch::Receiver<Arc<HorizontalPodAutoscaler>>,
    /// One of its metrics was pushed.
    pub(super) pushed: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

/// Follows one autoscaler.
pub(super) struct Follower {
    context: Arc<Context>,
    wakes: Wakes,
    pods: FollowedPods,
    memory: Memory,
    /// Scale calls that were made here.
    record: Vec<Scaling>,
    seen: Option<Seen>,
    /// The target's size when it was last read or set.
    size: Option<i32>,
    complaint: Option<String>,
}

impl Follower {
    pub(super) fn new(context: Arc<Context>, wakes: Wakes) -> Self {
        Follower {
            context,
            wakes,
            pods: FollowedPods::default(),
            memory: Memory::default(),
            record: Vec::new(),
            seen: None,
            size: None,
            complaint: None,
        }
    }

    /// Looks until it is stopped.
    pub(super) async fn run(mut self) {
        let stop = self.wakes.stop.clone();
        loop {
            let started = Instant::now();
            let autoscaler = Arc::clone(&self.wakes.newest.borrow_and_update());
            // What is no fast path any more is stopped by who saw it change.
            let path = FastPath::of(autoscaler.metadata.annotations.as_ref());
            let path = path.ok().flatten();
            let period = path.map_or(Some(Duration::from_secs(1)), |path| path.period);
            let look = async {
                if let Some(path) = path {
                    self.look(&autoscaler, path).await;
                }
                self.wait(started, period).await;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = look => {}
            }
        }
        let autoscaler = Arc::clone(&self.wakes.newest.borrow());
        let namespace = autoscaler.namespace().unwrap_or_default();
        self.context
            .autoscaler
            .forget(&namespace, &autoscaler.name_any());
    }

    /// Until the next look is due.
    async fn wait(&mut self, started: Instant, period: Option<Duration>) {
        let config = &self.context.config;
        let next = started + period.unwrap_or(config.resync_period);
        let Wakes { newest, pushed, .. } = &mut self.wakes;
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            // An answer from before the push may be shared for a moment; and what else is pushed meanwhile counts too.
            () = pushed.notified() => tokio::time::sleep(config.metrics_freshness).await,
            // Who looks often sees it soon enough.
            Ok(()) = newest.changed(), if period.is_none() => {}
        }
    }

    async fn look(&mut self, autoscaler: &Arc<HorizontalPodAutoscaler>, path: FastPath) {
        let (Some(namespace), Some(spec)) = (autoscaler.namespace(), &autoscaler.spec) else {
            return;
        };
        let status = autoscaler.status.clone().unwrap_or_default();
        let name = autoscaler.name_any();
        let subject = Subject {
            namespace: &namespace,
            name: &name,
            spec,
            status: &status,
        };
        if is_refused(&status) {
            // The ordinary controller has said so on the object.
            return;
        }
        match self.look_at(subject, autoscaler).await {
            Ok(Some(observation)) => {
                self.decide_and_act(subject, autoscaler, path, &observation)
                    .await;
            }
            Ok(None) => {}
            Err(error) => self.complain(autoscaler, error).await,
        }
    }

    /// Reads what there is to decide on; nothing when nothing has changed since the last look.
    async fn look_at(
        &mut self,
        subject: Subject<'_>,
        autoscaler: &HorizontalPodAutoscaler,
    ) -> Result<Option<Observation>, String> {
        let context = Arc::clone(&self.context);
        let generation = spec_version(autoscaler);
        let freshness = context.config.scale_freshness;
        let known = self
            .seen
            .take()
            .filter(|seen| seen.generation == generation && seen.scale_read.elapsed() < freshness);
        if let Some(seen) = known {
            let observation = context
                .autoscaler
                .observe(subject, seen.scale.clone(), &self.pods)
                .await;
            if values_of(&observation) == seen.values {
                self.seen = Some(seen);
                return Ok(None);
            }
            // Decided on is the size there is now, not the one of some seconds ago.
            let scale = context.autoscaler.read_scale(subject).await?;
            return Ok(Some(
                self.note(subject, generation, scale, Some(observation))
                    .await,
            ));
        }
        let scale = context.autoscaler.read_scale(subject).await?;
        Ok(Some(self.note(subject, generation, scale, None).await))
    }

    async fn note(
        &mut self,
        subject: Subject<'_>,
        generation: Option<String>,
        scale: Scale,
        read: Option<Observation>,
    ) -> Observation {
        self.see_size(subject, scale.view.spec_replicas);
        let observation = match read {
            Some(mut read) if read.scale.view == scale.view => {
                read.scale = scale;
                read
            }
            _ => {
                if let Some(query) = &scale.view.query {
                    let client = &self.context.client;
                    self.pods.follow(client, subject.namespace, query).await;
                }
                let autoscaler = &self.context.autoscaler;
                autoscaler.observe(subject, scale, &self.pods).await
            }
        };
        self.seen = Some(Seen {
            scale: observation.scale.clone(),
            scale_read: Instant::now(),
            generation,
            values: values_of(&observation),
        });
        observation
    }

    /// Counts what others did to the target, so that rate policies hold for all of them together.
    fn see_size(&mut self, subject: Subject<'_>, size: i32) {
        if let Some(before) = self.size.replace(size)
            && before != size
        {
            let behavior = subject.spec.behavior.as_ref();
            let now = Timestamp::now();
            self.memory.rescaled(behavior, before, size, now);
        }
    }

    async fn decide_and_act(
        &mut self,
        subject: Subject<'_>,
        about: &HorizontalPodAutoscaler,
        path: FastPath,
        observation: &Observation,
    ) {
        let context = Arc::clone(&self.context);
        let behavior = subject.spec.behavior.as_ref();
        let known = scalings_of(about.metadata.annotations.as_ref());
        self.memory.learn(behavior, &known, Timestamp::now());
        let (memory, scale) = (&mut self.memory, &observation.scale);
        let current = scale.view.spec_replicas;
        let decided = context
            .autoscaler
            .decide(subject, observation, memory, Timestamp::now());
        let failure = decided.events.iter().find(|event| event.is_warning);
        match failure.map(|event| event.message.clone()) {
            Some(message) => self.complain(about, message).await,
            None => self.complaint = None,
        }
        let Some(rescale) = path.allows(current, &decided) else {
            return;
        };
        let outcome = context
            .autoscaler
            .act(subject, scale, rescale, &mut self.memory, Timestamp::now)
            .await;
        // Whatever came of it, the size that was seen is no longer sure.
        self.seen = None;
        if outcome == Outcome::Scaled {
            self.size = Some(rescale.replicas);
            self.put_on_record(about, current, rescale.replicas).await;
        }
        self.tell(about, &decided, &outcome).await;
    }

    /// For who decides next, should it not be this follower.
    async fn put_on_record(&mut self, about: &HorizontalPodAutoscaler, from: i32, to: i32) {
        let at = Timestamp::now();
        self.memory.has_learnt(at);
        let mut known = scalings_of(about.metadata.annotations.as_ref());
        // What was written a moment ago may not have come back yet.
        known.extend(self.record.iter().copied());
        known.sort_by_key(|scaling| scaling.at);
        known.dedup();
        self.record = with_scaling(known, Scaling { at, from, to });
        let text = json!(self.record).to_string();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {FAST_SCALINGS: text}}}));
        let (namespace, name) = (about.namespace().unwrap_or_default(), about.name_any());
        let autoscalers: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let params = PatchParams::default();
        if let Err(error) = autoscalers.patch(&name, &params, &patch).await {
            tracing::warn!(namespace, name, %error, "a scale call could not be put on record");
        }
    }

    async fn tell(&self, about: &HorizontalPodAutoscaler, decided: &Decision, outcome: &Outcome) {
        for event in scale_outcome_events(decided, outcome) {
            let kind = match event.is_warning {
                true => EventKind::Warning,
                false => EventKind::Normal,
            };
            let (reason, message) = (event.reason, &event.message);
            self.context.post(about, kind, reason, message).await;
        }
    }

    /// Says once why the fast path is blind; the ordinary controller says it at every look of its own.
    async fn complain(&mut self, about: &HorizontalPodAutoscaler, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            let kind = EventKind::Warning;
            self.context
                .post(about, kind, "FastPathBlind", &complaint)
                .await;
            self.complaint = Some(complaint);
        }
    }
}

/// Whether the ordinary controller refuses to act on this autoscaler for a reason that only it can know.
fn is_refused(status: &HorizontalPodAutoscalerStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.reason.as_deref() == Some("AmbiguousSelector"))
}

/// Changes when what is asked for changes, but not with the status.
fn spec_version(autoscaler: &HorizontalPodAutoscaler) -> Option<String> {
    serde_json::to_string(&autoscaler.spec).ok()
}

fn values_of(observation: &Observation) -> Vec<Values> {
    let of_one = |reading: &Result<Reading, String>| match reading {
        Ok(Reading::PerPod(samples)) => Ok(samples
            .iter()
            .map(|(name, sample)| (name.clone(), sample.milli))
            .collect()),
        Ok(Reading::Whole(milli)) => Ok(vec![(String::new(), *milli)]),
        Err(error) => Err(error.clone()),
    };
    observation.readings.iter().map(of_one).collect()
}

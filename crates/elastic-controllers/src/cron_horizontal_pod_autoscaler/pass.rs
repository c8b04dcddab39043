//! One pass over one object: plan, write the status, act, write what came of it, until nothing is left to do now.

use std::sync::Arc;
use std::time::Duration;

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::{
    Activity, CronHorizontalPodAutoscalerStatus, EventText, Floor, HPA_KIND, Outcome, Plan, Run,
    Situation, floor_failed, floor_held, floor_released, hold, plan, record, release,
    restored_message, retries_exhausted, scaled_message,
};
use elastic_core::events::EventKind;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Context;
use super::memory::Memory;
use super::report::Written;
use super::rush::Running;
use super::target::{Scaled, TargetError};

/// Steps of one pass; what is left then is done in the next one.
const STEPS_MOST: usize = 32;
/// Times a run reads its target anew at once because somebody else wrote to it.
const CONFLICTS_MOST: u32 = 20;
/// Wait before windows that could not be held or released are tried again.
const RETRY_FLOOR_SECONDS: i64 = 30;

/// How a pass ended.
pub(super) struct Ended {
    /// The object as it was last written or read.
    pub(super) object: Arc<CronHorizontalPodAutoscaler>,
    /// When to look again.
    pub(super) wake: Option<Timestamp>,
    pub(super) gone: bool,
}

/// A pass under way.
pub(super) struct Pass<'c> {
    context: &'c Context,
    /// Versions this pass has written, so that they are known again when the watch brings them.
    pub(super) versions: Vec<String>,
    pub(super) memory: Memory,
    place: Option<SemaphorePermit<'c>>,
    /// While a run that is due now has not written its target.
    running: Option<Running<'c>>,
}

/// What follows a step.
enum Next {
    /// Plan again from this.
    Again(Arc<CronHorizontalPodAutoscaler>),
    /// Wait; the moment is asked for besides the planned one.
    Rest(Option<Timestamp>),
    Gone,
}

impl<'c> Pass<'c> {
    pub(super) fn new(context: &'c Context, memory: Memory) -> Self {
        Self {
            context,
            versions: Vec::new(),
            memory,
            place: None,
            running: None,
        }
    }

    pub(super) async fn run(
        &mut self,
        mut object: Arc<CronHorizontalPodAutoscaler>,
    ) -> Result<Ended, kube::Error> {
        let now = self.context.config.clock.now();
        if self.memory.ahead().is_some_and(|run| run.scheduled <= now) {
            self.running = Some(self.context.rush.enter());
            self.take_turn(&self.context.places_of_due).await;
        } else {
            self.take_turn(&self.context.places).await;
        }
        for _ in 0..STEPS_MOST {
            let now = self.context.config.clock.now();
            let status = object.status.clone().unwrap_or_default();
            let plan = self.plan(&object, &status, now);
            if !matches!(plan.activity, Some(Activity::Scale(_))) {
                self.running = None;
            }
            if matches!(plan.activity, Some(Activity::Prepare(_))) {
                self.context.rush.let_pass().await;
            }
            if plan.status != status {
                match self.write(&object, plan.status).await? {
                    Written::Done(written) => object = written,
                    Written::Other(found) => {
                        object = found;
                        continue;
                    }
                    Written::Gone => return Ok(ended(object, None, true)),
                }
            }
            self.post(&object, plan.events, now).await;
            self.warn_of_rival(&object, &status, now).await;
            let next = match plan.activity {
                None => Next::Rest(None),
                Some(Activity::Scale(run)) => self.scale(object.clone(), &run).await?,
                Some(Activity::Prepare(run)) => {
                    self.prepare(&object, run).await;
                    Next::Rest(None)
                }
                Some(Activity::HoldFloor { floor, opening }) => {
                    self.hold_floor(object.clone(), &floor, &opening).await?
                }
                Some(Activity::ReleaseFloor(floor)) => {
                    self.release_floor(object.clone(), &floor).await?
                }
            };
            match next {
                Next::Again(found) => object = found,
                Next::Rest(other) => {
                    let wake = plan.wake.into_iter().chain(other).min();
                    return Ok(ended(object, wake, false));
                }
                Next::Gone => return Ok(ended(object, None, true)),
            }
        }
        let wake = Some(self.context.config.clock.now());
        Ok(ended(object, wake, false))
    }

    fn plan(
        &mut self,
        object: &CronHorizontalPodAutoscaler,
        status: &CronHorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) -> Plan {
        let default_zone = &self.context.config.default_time_zone;
        let schedules = self.memory.schedules(object, default_zone);
        let situation = Situation {
            spec: &object.spec,
            schedules: &schedules,
            status,
            generation: object.metadata.generation,
            created: object.creation_timestamp().map_or(now, |at| at.0),
            now,
            holder: &self.context.holder,
            ahead: self.memory.ahead(),
            default_zone,
        };
        plan(&situation, &mut || uuid::Uuid::new_v4().to_string())
    }

    /// Goes to the end of those who wait for a place.
    async fn take_turn(&mut self, places: &'c Semaphore) {
        self.place = None;
        // The semaphores are never closed.
        self.place = places.acquire().await.ok();
    }

    async fn write(
        &mut self,
        object: &CronHorizontalPodAutoscaler,
        status: CronHorizontalPodAutoscalerStatus,
    ) -> Result<Written, kube::Error> {
        let reporter = &self.context.reporter;
        reporter.write(object, status, &mut self.versions).await
    }

    async fn post(
        &self,
        object: &CronHorizontalPodAutoscaler,
        events: Vec<EventText>,
        now: Timestamp,
    ) {
        self.context.reporter.post(object, events, now).await;
    }

    /// When an object is taken up anew: an autoscaler on the same workload would undo what the schedule sets.
    async fn warn_of_rival(
        &self,
        object: &CronHorizontalPodAutoscaler,
        before: &CronHorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) {
        let target = &object.spec.scale_target_ref;
        if target.kind == HPA_KIND || before.scale_target_ref.as_ref() == Some(target) {
            return;
        }
        let namespace = object.namespace().unwrap_or_default();
        // What cannot be found out is not worth failing for.
        let Ok(Some(rival)) = self.context.targets.rival(&namespace, target).await else {
            return;
        };
        let (kind, name) = (&target.kind, &target.name);
        let event = EventText {
            kind: EventKind::Warning,
            reason: "ScaledByAutoscaler",
            message: format!(
                "HorizontalPodAutoscaler {rival} scales {kind} {name} too and undoes what schedules set; point scaleTargetRef at {rival} instead"
            ),
        };
        self.post(object, vec![event], now).await;
    }

    /// Gets ready for a run that is claimed and due soon: its target is looked at already.
    async fn prepare(&mut self, object: &CronHorizontalPodAutoscaler, run: Run) {
        let namespace = object.namespace().unwrap_or_default();
        let target = &object.spec.scale_target_ref;
        let scaled = if target.kind == HPA_KIND {
            None
        } else {
            // What does not work now is told when it does not work at the moment itself.
            self.context.targets.scaled(&namespace, target).await.ok()
        };
        self.memory.prepare(run, scaled);
    }

    /// Does a claimed run and writes its outcome.
    async fn scale(
        &mut self,
        object: Arc<CronHorizontalPodAutoscaler>,
        run: &Run,
    ) -> Result<Next, kube::Error> {
        let prepared = self.memory.begin(run);
        let running = self.running.take();
        let running = running.unwrap_or_else(|| self.context.rush.enter());
        let outcome = with_retries(self.context, &object, run.size, prepared, running).await;
        // Many runs may be due in the same second: others scale before this one tells what it did.
        self.take_turn(&self.context.places).await;
        self.context.rush.let_pass().await;
        let change = |status: &mut _, now| record(status, run, &outcome, now).into_iter().collect();
        self.settle(object, change).await
    }

    /// Changes the status by `change`, again on what others wrote in between, and posts what it says.
    async fn settle(
        &mut self,
        mut object: Arc<CronHorizontalPodAutoscaler>,
        change: impl Fn(&mut CronHorizontalPodAutoscalerStatus, Timestamp) -> Vec<EventText>,
    ) -> Result<Next, kube::Error> {
        let now = self.context.config.clock.now();
        for _ in 0..STEPS_MOST {
            let old = object.status.clone().unwrap_or_default();
            let mut status = old.clone();
            let events = change(&mut status, now);
            if status == old {
                break;
            }
            match self.write(&object, status).await? {
                Written::Done(written) => {
                    self.post(&written, events, now).await;
                    return Ok(Next::Again(written));
                }
                Written::Other(found) => object = found,
                Written::Gone => return Ok(Next::Gone),
            }
        }
        Ok(Next::Again(object))
    }

    async fn hold_floor(
        &mut self,
        mut object: Arc<CronHorizontalPodAutoscaler>,
        floor: &Floor,
        opening: &[(String, Timestamp)],
    ) -> Result<Next, kube::Error> {
        let namespace = object.namespace().unwrap_or_default();
        let (targets, target) = (&self.context.targets, &floor.scale_target_ref);
        let size = match targets.size(&namespace, target).await {
            Ok(size) => size,
            Err(error) => return self.floor_trouble(object, floor, &error).await,
        };
        if let Some(step) = hold(floor, size) {
            // What will be restored is on record before it is overwritten.
            let mut status = object.status.clone().unwrap_or_default();
            status.floor = Some(step.floor);
            if Some(&status) != object.status.as_ref() {
                match self.write(&object, status).await? {
                    Written::Done(written) => object = written,
                    Written::Other(found) => return Ok(Next::Again(found)),
                    Written::Gone => return Ok(Next::Gone),
                }
            }
            if let Err(error) = targets.write(&namespace, target, step.write).await {
                return self.floor_trouble(object, floor, &error).await;
            }
        }
        if opening.is_empty() {
            return Ok(Next::Rest(None));
        }
        let what = scaled_message(size.replicas, size.replicas.max(floor.target_size));
        let change = |status: &mut _, now| floor_held(status, opening, &what, now);
        self.settle(object, change).await
    }

    async fn release_floor(
        &mut self,
        object: Arc<CronHorizontalPodAutoscaler>,
        floor: &Floor,
    ) -> Result<Next, kube::Error> {
        let namespace = object.namespace().unwrap_or_default();
        let what = match self.give_back(&namespace, floor).await {
            Ok(what) => what,
            Err(error) if error.is_gone() => "its target is gone.".to_owned(),
            Err(error) => return self.floor_trouble(object, floor, &error).await,
        };
        self.settle(object, |status, now| floor_released(status, &what, now))
            .await
    }

    async fn give_back(&self, namespace: &str, floor: &Floor) -> Result<String, TargetError> {
        let (targets, target) = (&self.context.targets, &floor.scale_target_ref);
        let size = targets.size(namespace, target).await?;
        let numbers = release(floor, size);
        targets.write(namespace, target, numbers).await?;
        Ok(restored_message(numbers))
    }

    /// Windows are held and released until it works; why it does not is said once for each reason.
    async fn floor_trouble(
        &mut self,
        object: Arc<CronHorizontalPodAutoscaler>,
        floor: &Floor,
        error: &TargetError,
    ) -> Result<Next, kube::Error> {
        let why = error.text();
        let change = |status: &mut _, now| floor_failed(status, &floor.jobs, &why, now);
        if matches!(self.settle(object, change).await?, Next::Gone) {
            return Ok(Next::Gone);
        }
        let now = self.context.config.clock.now();
        let again = now.checked_add(jiff::Span::new().seconds(RETRY_FLOOR_SECONDS));
        Ok(Next::Rest(again.ok()))
    }
}

fn ended(object: Arc<CronHorizontalPodAutoscaler>, wake: Option<Timestamp>, gone: bool) -> Ended {
    Ended { object, wake, gone }
}

/// Tries every few seconds for a while, as the original does.
async fn with_retries(
    context: &Context,
    object: &CronHorizontalPodAutoscaler,
    size: i32,
    prepared: Option<Scaled>,
    running: Running<'_>,
) -> Outcome {
    let mut running = Some(running);
    let (config, target) = (&context.config, &object.spec.scale_target_ref);
    let namespace = object.namespace().unwrap_or_default();
    let started = tokio::time::Instant::now();
    if let Some(what) = write_prepared(prepared, size, config.run_timeout).await {
        return Ok(what);
    }
    let (mut retries, mut conflicts) = (0, 0);
    loop {
        let left = config.run_timeout.saturating_sub(started.elapsed());
        let scaling = context.targets.scale(&namespace, target, size);
        let why = match tokio::time::timeout(left, scaling).await {
            Ok(Ok(what)) => return Ok(what),
            Ok(Err(error)) if error.is_conflict() && conflicts < CONFLICTS_MOST => {
                conflicts += 1;
                continue;
            }
            Ok(Err(error)) => error.text(),
            Err(_) => "the API did not answer in time".to_owned(),
        };
        // What does not work at once holds nobody up.
        drop(running.take());
        tokio::time::sleep(config.retry_interval).await;
        retries += 1;
        if started.elapsed() > config.retry_window {
            let (kind, name) = (&target.kind, &target.name);
            return Err(retries_exhausted(
                kind, name, &namespace, size, retries, &why,
            ));
        }
    }
}

/// Writes to a target that was looked at before. None: it is not what it was, or need not be written; look again.
async fn write_prepared(prepared: Option<Scaled>, size: i32, timeout: Duration) -> Option<String> {
    let scaled = prepared?;
    let old = scaled.replicas();
    if old == size {
        return None;
    }
    let written = tokio::time::timeout(timeout, scaled.write(size)).await;
    matches!(written, Ok(Ok(()))).then(|| scaled_message(old, size))
}

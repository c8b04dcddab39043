//! What a pass tells the user: status, conditions and events on the ElasticWorkload, written only when they differ.

use std::time::Duration;

use super::{Context, ReconcileError};
use crate::pass::status_patch;
use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{
    ConditionStatus, ElasticWorkloadStatus, ScaleMoments, Shortage, SourceKind, set_condition,
};
use elastic_core::events::{EventKind, event};
use elastic_core::timeline::{BurstMoments, PodMoments, SampleMoments, sample_behind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

const COMPONENT: &str = "ElasticWorkload";
const HAND_SCALED: &str = "HandScaled";

/// Something a user can act on.
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// How a pass ended.
pub(super) enum Outcome {
    Done {
        kind: SourceKind,
        held: Option<u32>,
        kept: u32,
    },
    Invalid(String),
    SourceMissing(SourceKind),
    Finished(SourceKind),
    Failed(Problem),
}

/// Something that was done.
pub(super) enum Happening {
    Created { name: String, replicas: u32 },
    Scaled { name: String, replicas: u32 },
    Followed(String),
    Paused { name: String, until: String },
    Removed(String),
}

/// Collects what a pass finds and does.
pub(super) struct Report<'a> {
    pub(super) workload: &'a ElasticWorkload,
    seen: Timestamp,
    pub(super) next: ElasticWorkloadStatus,
    /// What was short before this pass, the source without a name.
    pub(super) shortages: Vec<(String, Shortage)>,
    pub(super) events: Vec<(EventKind, &'static str, String)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(workload: &'a ElasticWorkload, seen: Timestamp) -> Self {
        let next = workload.status.clone().unwrap_or_default();
        let source = next.source_target.iter();
        let source = source.filter_map(|source| Some((String::new(), source.shortage.clone()?)));
        let units = next.elastic_units_status.iter();
        let units = units.filter_map(|unit| Some((unit.name.clone(), unit.shortage.clone()?)));
        Self {
            workload,
            seen,
            shortages: source.chain(units).collect(),
            next,
            events: Vec::new(),
        }
    }

    /// When the pass began.
    pub(super) fn now(&self) -> Timestamp {
        self.seen
    }

    pub(super) fn counts<'d>(
        &mut self,
        kind: SourceKind,
        children: impl Iterator<Item = &'d DynamicObject>,
    ) {
        let (mut pods, mut ready) = (0, 0);
        for child in children {
            let (child_pods, child_ready) = kind.counts(child);
            pods += child_pods;
            ready += child_ready;
        }
        self.next.replicas = i32::try_from(pods).unwrap_or(i32::MAX);
        self.next.ready_replicas = i32::try_from(ready).unwrap_or(i32::MAX);
    }

    /// The source was scaled past the ElasticWorkload.
    pub(super) fn hand_scaled(&mut self, kind: SourceKind, from: u32, to: u32, by: Option<&str>) {
        let noun = kind.noun();
        let name = &self.workload.spec.source_target.name;
        let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
        let message = format!(
            "{noun} {name} was scaled from {from} to {to}{by}; it gets its share again. Scale ElasticWorkload {} instead, and point autoscalers at it",
            self.workload.name_any()
        );
        let known = self
            .next
            .conditions
            .iter()
            .any(|condition| condition.type_ == HAND_SCALED && condition.message == message);
        // The condition tells of the last time, so its time moves with every one.
        self.next
            .conditions
            .retain(|condition| condition.type_ != HAND_SCALED);
        self.condition(HAND_SCALED, true, "SourceScaled", &message);
        if !known {
            self.events
                .push((EventKind::Warning, "HandScaled", message));
        }
    }

    pub(super) fn not_hand_scaled(&mut self) {
        let known = self
            .next
            .conditions
            .iter()
            .any(|condition| condition.type_ == HAND_SCALED);
        if !known {
            let message = "nobody has scaled the source past the ElasticWorkload";
            self.condition(HAND_SCALED, false, "AsAsked", message);
        }
    }

    /// How long the condition about hand-scaling is still shown; one that is over is taken back.
    pub(super) fn hand_scaled_until(&mut self, shown: Duration) -> Option<Duration> {
        let condition = self
            .next
            .conditions
            .iter()
            .find(|condition| condition.type_ == HAND_SCALED && condition.status == "True")?;
        let age = self.seen.duration_since(condition.last_transition_time.0);
        let left = shown.checked_sub(Duration::try_from(age).unwrap_or(Duration::ZERO));
        if left.is_none_or(|left| left.is_zero()) {
            let message = "nobody has scaled the source lately";
            self.condition(HAND_SCALED, false, "AsAsked", message);
            return None;
        }
        left
    }

    pub(super) fn selector(&mut self, text: String) {
        self.next.selector = text;
    }

    pub(super) fn happened(&mut self, kind: SourceKind, happening: Happening) {
        let noun = kind.noun();
        let (reason, message) = match happening {
            Happening::Created { name, replicas } => (
                "UnitCreation",
                format!("created {noun} {name} with {replicas} replicas"),
            ),
            Happening::Scaled { name, replicas } => {
                ("UnitUpdate", format!("scaled {noun} {name} to {replicas}"))
            }
            Happening::Followed(name) => {
                ("UnitUpdate", format!("{noun} {name} follows its source"))
            }
            Happening::Paused { name, until } => (
                "UnitUpdate",
                format!("the rollout of {noun} {name} stands still until {until}"),
            ),
            Happening::Removed(name) => ("UnitUpdate", format!("removed {noun} {name}")),
        };
        self.events.push((EventKind::Normal, reason, message));
    }

    /// A new number of replicas is stamped once, when its shares have been written.
    pub(super) fn moments(&mut self, shares: &str) {
        let Some(to) = self.workload.spec.replicas else {
            return;
        };
        let last = self.next.last_scale.as_ref();
        if last.is_some_and(|last| last.to == to) {
            return;
        }
        let from = last.map_or(0, |last| last.to);
        self.next.last_scale = Some(ScaleMoments {
            from,
            to,
            seen_at: Some(MicroTime(self.seen)),
            written_at: Some(MicroTime(Timestamp::now())),
            ..ScaleMoments::default()
        });
        self.events.push((
            EventKind::Normal,
            "ElasticWorkloadUpdate",
            format!("replicas from {from} to {to}: {shares}"),
        ));
    }

    /// Whether this pass saw a rise, whose cause is worth asking for.
    pub(super) fn rises_now(&self) -> bool {
        let last = self.next.last_scale.as_ref();
        last.is_some_and(|last| {
            last.to > last.from && last.seen_at.as_ref().is_some_and(|at| at.0 == self.seen)
        })
    }

    /// What the metrics API shows of the workload's pods right after a rise.
    pub(super) fn samples(&mut self, samples: &[SampleMoments]) {
        let behind = sample_behind(samples, self.seen);
        if let (Some(behind), Some(last)) = (behind, self.next.last_scale.as_mut()) {
            last.sampled_at = Some(MicroTime(behind.sampled));
            last.reported_at = Some(MicroTime(behind.reported));
        }
    }

    /// When the last rise was seen, unless its moments are kept already.
    pub(super) fn unrecorded_rise(&self) -> Option<Timestamp> {
        let last = self
            .next
            .last_scale
            .as_ref()
            .filter(|last| last.to > last.from)?;
        let seen = last.seen_at.as_ref()?.0;
        let kept = self.next.last_burst.as_ref().and_then(|burst| burst.scaled);
        (kept != Some(seen)).then_some(seen)
    }

    /// Keeps the moments of the last rise; a rise that needed no new serverless pods is none.
    pub(super) fn burst(&mut self, pods: Vec<PodMoments>) {
        let Some(last) = self.next.last_scale.as_ref().filter(|_| !pods.is_empty()) else {
            return;
        };
        let burst = BurstMoments {
            crossed: last.sampled_at.as_ref().map(|at| at.0),
            reported: last.reported_at.as_ref().map(|at| at.0),
            scaled: last.seen_at.as_ref().map(|at| at.0),
            distributed: last.written_at.as_ref().map(|at| at.0),
            pods,
            ..BurstMoments::default()
        };
        self.next.last_burst = Some(burst.condensed());
    }

    pub(super) fn outcome(&mut self, outcome: Outcome) {
        let target = &self.workload.spec.source_target.name;
        let namespace = self.workload.namespace().unwrap_or_default();
        match outcome {
            Outcome::Done { kind, held, kept } => {
                self.found(kind);
                let (reason, message) = match (held, kept) {
                    (Some(pods), _) => (
                        "WaitingForServerless",
                        format!(
                            "the source keeps its replicas until {pods} serverless pods are gone"
                        ),
                    ),
                    (None, 0) => (
                        "Reconciled",
                        "source and units have been asked for their shares".to_owned(),
                    ),
                    (None, kept) => (
                        "WaitingForReady",
                        format!("{kept} replicas stay until others are ready in their place"),
                    ),
                };
                self.condition("Ready", true, reason, &message);
                self.next.observed_generation = self.workload.meta().generation;
            }
            Outcome::Finished(kind) => {
                self.found(kind);
                let message = format!(
                    "{} {target} has finished; nothing is scaled any more",
                    kind.noun()
                );
                self.condition("Ready", true, "SourceFinished", &message);
                self.next.observed_generation = self.workload.meta().generation;
            }
            Outcome::Invalid(message) => {
                let message = format!("{message}; the last valid spec stays in force");
                self.failure("Valid", "Invalid", &message);
            }
            Outcome::SourceMissing(kind) => {
                let message = format!(
                    "{} {target} does not exist in namespace {namespace}; create it or correct spec.sourceTarget.name",
                    kind.noun()
                );
                self.failure("SourceFound", "SourceMissing", &message);
            }
            Outcome::Failed(problem) => self.failure("Ready", problem.reason, &problem.message),
        }
    }

    fn found(&mut self, kind: SourceKind) {
        let message = format!(
            "{} {} found",
            kind.noun(),
            self.workload.spec.source_target.name
        );
        self.condition("Valid", true, "Valid", "the spec is valid");
        self.condition("SourceFound", true, "Found", &message);
    }

    fn failure(&mut self, type_: &str, reason: &'static str, message: &str) {
        let changed = self.condition(type_, false, reason, message);
        if type_ != "Ready" {
            self.condition("Ready", false, reason, message);
        }
        if changed {
            self.events
                .push((EventKind::Warning, reason, message.to_owned()));
        }
    }

    pub(super) fn condition(
        &mut self,
        type_: &str,
        holds: bool,
        reason: &str,
        message: &str,
    ) -> bool {
        let generation = self.workload.meta().generation;
        let status = ConditionStatus::from(holds);
        let message_or_reason_differs = !self.next.conditions.iter().any(|condition| {
            condition.type_ == type_ && condition.reason == reason && condition.message == message
        });
        set_condition(
            &mut self.next.conditions,
            type_,
            status,
            reason,
            message,
            generation,
            self.seen,
        ) || (message_or_reason_differs && !holds)
    }

    /// As [`Self::publish_in`], when nothing else is to be waited for.
    pub(super) async fn publish(self, context: &Context) -> Result<Action, ReconcileError> {
        let wait = self.publish_in(context).await?;
        Ok(wait.map_or_else(Action::await_change, Action::requeue))
    }

    /// Writes the status when it differs and posts the events. Newer counts alone can wait; then it says how long.
    pub(super) async fn publish_in(
        self,
        context: &Context,
    ) -> Result<Option<Duration>, ReconcileError> {
        let name = self.workload.name_any();
        let namespace = self.workload.namespace().unwrap_or_default();
        let uid = self.workload.uid().unwrap_or_default();
        let old = self.workload.status.clone().unwrap_or_default();
        let mut later = None;
        if self.next != old {
            let wait = context.counts_due_in(&uid);
            if only_counts_differ(&old, &self.next) && !wait.is_zero() {
                later = Some(wait);
            } else {
                let api: Api<ElasticWorkload> = Api::namespaced(context.client.clone(), &namespace);
                let patch = Patch::Merge(status_patch(&old, &self.next));
                let written = api
                    .patch_status(&name, &PatchParams::default(), &patch)
                    .await;
                written.map_err(ReconcileError::about("write status of", &name))?;
                context.counts_written(&uid);
            }
        }
        let events: Api<Event> = Api::namespaced(context.client.clone(), &namespace);
        let about = self.workload.object_ref(&());
        for (kind, reason, message) in self.events {
            tracing::info!(
                namespace,
                workload = name,
                reason,
                message,
                "elastic workload"
            );
            let object = event(&about, COMPONENT, kind, reason, &message, Timestamp::now());
            if let Err(error) = events.create(&PostParams::default(), &object).await {
                // An event that cannot be posted must not stop the work it tells about.
                tracing::warn!(namespace, workload = name, reason, %error, "event could not be posted");
            }
        }
        Ok(later)
    }
}

fn only_counts_differ(old: &ElasticWorkloadStatus, next: &ElasticWorkloadStatus) -> bool {
    without_counts(old) == without_counts(next)
}

/// What a place's condition says follows from its counts and from what is compared anyway.
fn without_counts(status: &ElasticWorkloadStatus) -> ElasticWorkloadStatus {
    let mut status = status.clone();
    (status.replicas, status.ready_replicas) = (0, 0);
    if let Some(source) = &mut status.source_target {
        (source.replicas, source.ready_replicas) = (0, 0);
        source.conditions.clear();
    }
    for unit in &mut status.elastic_units_status {
        (unit.replicas, unit.ready_replicas) = (0, 0);
        unit.conditions.clear();
    }
    status
}

#[cfg(test)]
mod tests {
    use elastic_core::elastic_workload::ElasticUnitStatus;
    use serde_json::Value;

    use super::*;

    fn status(units: &[&str]) -> ElasticWorkloadStatus {
        let unit = |name: &&str| ElasticUnitStatus {
            name: (*name).to_owned(),
            ..ElasticUnitStatus::default()
        };
        ElasticWorkloadStatus {
            elastic_units_status: units.iter().map(unit).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_member_that_went_is_taken_away() {
        let patch = status_patch(&status(&["vk"]), &status(&[]))["status"].clone();
        assert_eq!(patch["elasticUnitsStatus"], Value::Null);
        assert!(
            patch
                .as_object()
                .unwrap()
                .contains_key("elasticUnitsStatus")
        );
        assert_eq!(
            status_patch(&status(&[]), &status(&["vk"]))["status"]["elasticUnitsStatus"][0]["name"],
            "vk"
        );
    }

    #[test]
    fn newer_counts_alone_can_wait() {
        let old = status(&["vk"]);
        let counted = ElasticWorkloadStatus {
            replicas: 7,
            ready_replicas: 3,
            ..old.clone()
        };
        assert!(only_counts_differ(&old, &counted));
        assert!(!only_counts_differ(
            &old,
            &ElasticWorkloadStatus {
                selector: "app=web".into(),
                ..counted
            }
        ));
    }
}

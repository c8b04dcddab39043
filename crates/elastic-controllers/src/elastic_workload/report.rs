//! What a pass tells the user: status, conditions and events on the ElasticWorkload, written only when they differ.

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{
    ConditionStatus, ElasticUnitStatus, ElasticWorkloadStatus, ScaleMoments, SourceTargetStatus,
    set_condition,
};
use elastic_core::events::{EventKind, event};
use elastic_core::timeline::{BurstMoments, PodMoments, SampleMoments, sample_behind};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{Context, ReconcileError};

const COMPONENT: &str = "ElasticWorkload";

/// Something a user can act on.
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// How a pass ended.
pub(super) enum Outcome {
    Done { held: Option<u32> },
    Invalid(String),
    SourceMissing,
    Failed(Problem),
}

/// Something that was done.
pub(super) enum Happening {
    Created { name: String, replicas: u32 },
    Scaled { name: String, replicas: u32 },
    Followed(String),
    Removed(String),
}

/// Collects what a pass finds and does.
pub(super) struct Report<'a> {
    workload: &'a ElasticWorkload,
    seen: Timestamp,
    next: ElasticWorkloadStatus,
    events: Vec<(EventKind, &'static str, String)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(workload: &'a ElasticWorkload, seen: Timestamp) -> Self {
        let next = workload.status.clone().unwrap_or_default();
        Self {
            workload,
            seen,
            next,
            events: Vec::new(),
        }
    }

    pub(super) fn counts<'d>(
        &mut self,
        source: &'d Deployment,
        units: impl Iterator<Item = &'d Deployment>,
    ) {
        let statuses: Vec<&DeploymentStatus> = std::iter::once(source)
            .chain(units)
            .filter_map(|child| child.status.as_ref())
            .collect();
        self.next.replicas = statuses.iter().filter_map(|status| status.replicas).sum();
        self.next.ready_replicas = statuses
            .iter()
            .filter_map(|status| status.ready_replicas)
            .sum();
    }

    pub(super) fn selector(&mut self, text: String) {
        self.next.selector = text;
    }

    pub(super) fn happened(&mut self, happening: Happening) {
        let (reason, message) = match happening {
            Happening::Created { name, replicas } => (
                "UnitCreation",
                format!("created deployment {name} with {replicas} replicas"),
            ),
            Happening::Scaled { name, replicas } => (
                "UnitUpdate",
                format!("scaled deployment {name} to {replicas}"),
            ),
            Happening::Followed(name) => (
                "UnitUpdate",
                format!("deployment {name} follows its source's template"),
            ),
            Happening::Removed(name) => ("UnitUpdate", format!("removed deployment {name}")),
        };
        self.events.push((EventKind::Normal, reason, message));
    }

    /// What was asked of whom; `unplaced` replicas found no place.
    pub(super) fn shares(&mut self, source: u32, units: Vec<(String, u32)>, unplaced: u32) {
        let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let now = self.seen;
        let old = self.next.clone();
        let stamp = |before: Option<(i32, Option<Time>)>, wanted: i32| match before {
            Some((replicas, at)) if replicas == wanted => at.or(Some(Time(now))),
            _ => Some(Time(now)),
        };
        let target = &self.workload.spec.source_target;
        let before = old
            .source_target
            .map(|source| (source.desired_replicas, source.update_timestamp));
        self.next.source_target = Some(SourceTargetStatus {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
            desired_replicas: count(source),
            update_timestamp: stamp(before, count(source)),
        });
        let summary: Vec<String> = units
            .iter()
            .map(|(name, wanted)| format!("{name} {wanted}"))
            .collect();
        self.next.elastic_units_status = units
            .into_iter()
            .map(|(name, wanted)| {
                let before = old
                    .elastic_units_status
                    .iter()
                    .find(|unit| unit.name == name);
                let before =
                    before.map(|unit| (unit.desired_replicas, unit.update_timestamp.clone()));
                let update_timestamp = stamp(before, count(wanted));
                ElasticUnitStatus {
                    name,
                    desired_replicas: count(wanted),
                    update_timestamp,
                }
            })
            .collect();
        self.moments(&format!("source {source}, units [{}]", summary.join(", ")));
        let message = if unplaced == 0 {
            "every replica has a place".to_owned()
        } else {
            format!(
                "{unplaced} replicas find no place: source and units are at their max; raise a max or add a unit"
            )
        };
        let reason = if unplaced == 0 {
            "Placed"
        } else {
            "AllPlacesFull"
        };
        self.condition("Placed", unplaced == 0, reason, &message);
    }

    /// A new number of replicas is stamped once, when its shares have been written.
    fn moments(&mut self, shares: &str) {
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
            Outcome::Done { held } => {
                self.condition("Valid", true, "Valid", "the spec is valid");
                self.condition(
                    "SourceFound",
                    true,
                    "Found",
                    &format!("deployment {target} found"),
                );
                let (reason, message) = match held {
                    Some(pods) => (
                        "WaitingForServerless",
                        format!(
                            "the source keeps its replicas until {pods} serverless pods are gone"
                        ),
                    ),
                    None => (
                        "Reconciled",
                        "source and units have been asked for their shares".to_owned(),
                    ),
                };
                self.condition("Ready", true, reason, &message);
                self.next.observed_generation = self.workload.meta().generation;
            }
            Outcome::Invalid(message) => {
                let message = format!("{message}; the last valid spec stays in force");
                self.failure("Valid", "Invalid", &message);
            }
            Outcome::SourceMissing => {
                let message = format!(
                    "deployment {target} does not exist in namespace {namespace}; create it or correct spec.sourceTarget.name"
                );
                self.failure("SourceFound", "SourceMissing", &message);
            }
            Outcome::Failed(problem) => self.failure("Ready", problem.reason, &problem.message),
        }
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

    fn condition(&mut self, type_: &str, holds: bool, reason: &str, message: &str) -> bool {
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

    /// Writes the status when it differs and posts the events.
    pub(super) async fn publish(self, context: &Context) -> Result<Action, ReconcileError> {
        let name = self.workload.name_any();
        let namespace = self.workload.namespace().unwrap_or_default();
        let uid = self.workload.uid().unwrap_or_default();
        let old = self.workload.status.clone().unwrap_or_default();
        let mut action = Action::await_change();
        if self.next != old {
            let wait = context.counts_due_in(&uid);
            if only_counts_differ(&old, &self.next) && !wait.is_zero() {
                action = Action::requeue(wait);
            } else {
                let api: Api<ElasticWorkload> = Api::namespaced(context.client.clone(), &namespace);
                let patch = Patch::Merge(json!({"status": difference(&old, &self.next)}));
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
        Ok(action)
    }
}

/// The new status as a merge patch: members that are no longer there are taken away by `null`.
fn difference(old: &ElasticWorkloadStatus, next: &ElasticWorkloadStatus) -> Value {
    let mut patch = json!(next);
    if let (Some(patch), Value::Object(old)) = (patch.as_object_mut(), json!(old)) {
        for (key, _) in old {
            patch.entry(key).or_insert(Value::Null);
        }
    }
    patch
}

fn only_counts_differ(old: &ElasticWorkloadStatus, next: &ElasticWorkloadStatus) -> bool {
    let same_counts = ElasticWorkloadStatus {
        replicas: old.replicas,
        ready_replicas: old.ready_replicas,
        ..next.clone()
    };
    same_counts == *old
}

#[cfg(test)]
mod tests {
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
        let patch = difference(&status(&["vk"]), &status(&[]));
        assert_eq!(patch["elasticUnitsStatus"], Value::Null);
        assert!(
            patch
                .as_object()
                .unwrap()
                .contains_key("elasticUnitsStatus")
        );
        assert_eq!(
            difference(&status(&[]), &status(&["vk"]))["elasticUnitsStatus"][0]["name"],
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

//! What the status says of the source and of each unit: what was wanted, what is, and why.

use elastic_core::elastic_workload::{
    ChildState, Decision, ElasticUnitStatus, PlaceFacts, RolloutStep, Shortage, SourceKind,
    SourceTargetStatus, explain, set_condition, until,
};
use elastic_core::events::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::DynamicObject;

use super::reconcile::Unit;
use super::report::Report;

/// The numbers of a pass.
pub(super) struct PlaceNumbers<'a> {
    pub(super) kind: SourceKind,
    pub(super) source: &'a DynamicObject,
    pub(super) units: &'a [Unit<'a>],
    pub(super) decision: &'a Decision,
    pub(super) steps: &'a [RolloutStep],
    /// What everybody has been asked for, the source first.
    pub(super) asked: &'a [u32],
    pub(super) recover_after: Option<SignedDuration>,
}

impl PlaceNumbers<'_> {
    fn names(&self) -> Vec<&str> {
        self.units
            .iter()
            .map(|unit| unit.spec.name.as_str())
            .collect()
    }

    /// The entry of the place at `index`, the source being 0, as it was `before`.
    fn entry(&self, index: usize, before: ElasticUnitStatus, now: Timestamp) -> ElasticUnitStatus {
        let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let shares = &self.decision.shares;
        let (state, share, step) = match index.checked_sub(1) {
            None => (
                self.kind.state(self.source),
                shares.source,
                RolloutStep::Leave,
            ),
            Some(unit) => (
                self.units[unit].state(self.kind),
                shares.units[unit],
                self.steps[unit],
            ),
        };
        let ChildState { pods, ready, .. } = state;
        let asked = self.asked[index];
        let shortage = self.decision.shortages[index].clone();
        let hold = self.decision.plan.hold.filter(|_| index == 0);
        let facts = PlaceFacts {
            share,
            asked,
            pods,
            ready,
            held_by_serverless: hold.map(|hold| hold.serverless_pods),
            shortage: shortage.as_ref(),
            recover_after: self.recover_after,
            rollout: step,
        };
        let (status, reason, message) = explain(&facts, &self.names());
        let mut conditions = before.conditions;
        set_condition(
            &mut conditions,
            "Ready",
            status,
            reason,
            &message,
            None,
            now,
        );
        let same = before.update_timestamp.is_some() && before.desired_replicas == count(asked);
        ElasticUnitStatus {
            name: before.name,
            desired_replicas: count(asked),
            update_timestamp: if same {
                before.update_timestamp
            } else {
                Some(Time(now))
            },
            wanted_replicas: count(share),
            replicas: count(pods),
            ready_replicas: count(ready),
            shortage,
            conditions,
        }
    }

    /// Who waits for whom with a new template; empty when nobody does.
    fn rollouts(&self) -> Vec<String> {
        let names = self.names();
        let mut texts = Vec::new();
        let source = self.kind.rollout(self.source);
        if source.updated < source.pods {
            texts.push("the source rolls out".to_owned());
        }
        for (step, name) in self.steps.iter().zip(&names) {
            match *step {
                RolloutStep::Leave => {}
                RolloutStep::Follow(share) | RolloutStep::Resume(share) => texts.push(format!(
                    "unit {name} rolls out with at most {} pods more and {} less",
                    share.surge, share.unavailable
                )),
                RolloutStep::Hold(by) | RolloutStep::Pause(by) => {
                    texts.push(format!("unit {name} waits until {}", until(by, &names)));
                }
            }
        }
        texts
    }
}

impl Report<'_> {
    /// What was asked of whom, and what everybody has.
    pub(super) fn shares(&mut self, numbers: &PlaceNumbers<'_>) {
        let target = &self.workload.spec.source_target;
        let now = self.now();
        let before = self.next.source_target.take();
        let known = before.filter(|before| before.name == target.name);
        let entry = numbers.entry(0, known.map(as_unit).unwrap_or_default(), now);
        let source_asked = entry.desired_replicas;
        let mut summary = String::new();
        self.tell_of_shortage(
            "the source",
            before_of(&self.shortages, ""),
            entry.shortage.as_ref(),
        );
        self.next.source_target = Some(SourceTargetStatus {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
            desired_replicas: entry.desired_replicas,
            update_timestamp: entry.update_timestamp,
            wanted_replicas: entry.wanted_replicas,
            replicas: entry.replicas,
            ready_replicas: entry.ready_replicas,
            shortage: entry.shortage,
            conditions: entry.conditions,
        });
        let old = std::mem::take(&mut self.next.elastic_units_status);
        for (index, name) in numbers.names().into_iter().enumerate() {
            let known = old.iter().find(|unit| unit.name == name).cloned();
            let known = known.unwrap_or_else(|| ElasticUnitStatus {
                name: name.to_owned(),
                ..ElasticUnitStatus::default()
            });
            let entry = numbers.entry(index + 1, known, now);
            let before = before_of(&self.shortages, name);
            self.tell_of_shortage(&format!("unit {name}"), before, entry.shortage.as_ref());
            let separator = if index == 0 { "" } else { ", " };
            summary += &format!("{separator}{name} {}", entry.desired_replicas);
            self.next.elastic_units_status.push(entry);
        }
        self.moments(&format!("source {source_asked}, units [{summary}]"));
        self.next.unit_summary = summary;
        self.placed(numbers.decision.shares.unplaced);
        self.capacity();
        let rollouts = numbers.rollouts();
        let (reason, message) = if rollouts.is_empty() {
            (
                "RolledOut",
                "source and units have the same template".to_owned(),
            )
        } else {
            ("RollingOut", rollouts.join("; "))
        };
        self.condition("RolledOut", rollouts.is_empty(), reason, &message);
    }

    fn placed(&mut self, unplaced: u32) {
        let (reason, message) = if unplaced == 0 {
            ("Placed", "every replica has a place".to_owned())
        } else {
            let message = format!(
                "{unplaced} replicas find no place: source and units are at their max; raise a max or add a unit"
            );
            ("AllPlacesFull", message)
        };
        self.condition("Placed", unplaced == 0, reason, &message);
    }

    /// One condition for all places, next to the one of each place.
    fn capacity(&mut self) {
        let short = |conditions: &[Condition]| {
            let found = conditions
                .iter()
                .find(|condition| condition.reason == "NoCapacity");
            found.map(|condition| condition.message.clone())
        };
        let source = self.next.source_target.iter();
        let source = source.filter_map(|source| Some(("source", short(&source.conditions)?)));
        let units = self.next.elastic_units_status.iter();
        let units = units.filter_map(|unit| Some((unit.name.as_str(), short(&unit.conditions)?)));
        let texts: Vec<String> = source
            .chain(units)
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        if texts.is_empty() {
            self.condition("Capacity", true, "Enough", "no place is known to be short");
        } else {
            self.condition("Capacity", false, "Short", &texts.join("; "));
        }
    }

    fn tell_of_shortage(&mut self, place: &str, before: Option<Shortage>, now: Option<&Shortage>) {
        let was = before.as_ref().and_then(Shortage::limit);
        let is = now.and_then(Shortage::limit);
        match (was, is, now) {
            (None, Some(capacity), Some(now)) => self.events.push((
                EventKind::Warning,
                "CapacityShort",
                format!(
                    "{place} can get {capacity} replicas only ({}); the others go on to the next place",
                    now.reason
                ),
            )),
            (Some(_), None, _) => self.events.push((
                EventKind::Normal,
                "CapacityTriedAgain",
                format!("{place} takes its share back"),
            )),
            _ => {}
        }
    }
}

fn before_of(shortages: &[(String, Shortage)], name: &str) -> Option<Shortage> {
    let found = shortages.iter().find(|(place, _)| place == name);
    found.map(|(_, shortage)| shortage.clone())
}

fn as_unit(source: SourceTargetStatus) -> ElasticUnitStatus {
    ElasticUnitStatus {
        name: source.name,
        desired_replicas: source.desired_replicas,
        update_timestamp: source.update_timestamp,
        wanted_replicas: source.wanted_replicas,
        replicas: source.replicas,
        ready_replicas: source.ready_replicas,
        shortage: source.shortage,
        conditions: source.conditions,
    }
}

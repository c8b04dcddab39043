//! Writes a decision: at most one write for the source and for every unit.

use elastic_core::elastic_workload::{
    ChildAction, Decision, HeldBy, RolloutStep, SourceMark, UnitWrite, unit_write, until,
};
use elastic_core::names::SOURCE_LABEL;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::ReconcileError;
use super::children::Children;
use super::reconcile::Unit;
use super::report::{Happening, Report};

/// A decision and what it is about.
pub(super) struct Writes<'a> {
    pub(super) children: &'a Children<'a>,
    pub(super) source: &'a DynamicObject,
    pub(super) units: &'a [Unit<'a>],
    pub(super) removed: &'a [DynamicObject],
    pub(super) decision: &'a Decision,
    pub(super) steps: &'a [RolloutStep],
    pub(super) total: u32,
}

impl Writes<'_> {
    /// Writes what differs, in the order of the plan, and returns what everybody has been asked for, the source first.
    pub(super) async fn apply(&self, report: &mut Report<'_>) -> Result<Vec<u32>, ReconcileError> {
        let kind = self.children.kind;
        let before = kind.wanted(self.source);
        let mut source = before;
        let states = self.units.iter().map(|unit| unit.state(kind).wanted);
        let mut asked: Vec<u32> = states.collect();
        let mut order = Vec::with_capacity(self.units.len());
        for action in &self.decision.plan.actions {
            match *action {
                ChildAction::SetSource(replicas) => source = replicas,
                ChildAction::SetUnit(index, replicas) => {
                    asked[index] = replicas;
                    order.push(index);
                }
            }
        }
        let others = (0..self.units.len()).filter(|index| !order.contains(index));
        let others: Vec<usize> = others.collect();
        if source > before {
            self.ask_source(source).await?;
        }
        for index in order.into_iter().chain(others) {
            self.write_unit(index, asked[index], report).await?;
        }
        if source <= before {
            self.ask_source(source).await?;
        }
        if !self.decision.plan.keep_removed_units {
            for unit in self.removed {
                self.children.delete(unit).await?;
                report.happened(kind, Happening::Removed(unit.name_any()));
            }
        }
        asked.insert(0, source);
        Ok(asked)
    }

    async fn ask_source(&self, replicas: u32) -> Result<(), ReconcileError> {
        let workload = self.children.workload;
        let mark = SourceMark {
            name: workload.name_any(),
            uid: workload.uid().unwrap_or_default(),
            replicas: self.total,
            asked: replicas,
        };
        let labelled = self.source.labels().contains_key(SOURCE_LABEL);
        let marked = labelled && SourceMark::of(self.source).as_ref() == Some(&mark);
        if marked && self.children.kind.wanted(self.source) == replicas {
            return Ok(());
        }
        self.children.ask_source(self.source, &mark).await
    }

    async fn write_unit(
        &self,
        index: usize,
        replicas: u32,
        report: &mut Report<'_>,
    ) -> Result<(), ReconcileError> {
        let (children, unit) = (self.children, &self.units[index]);
        let step = self.steps[index];
        let name = unit.name.clone();
        let existing = unit.existing.as_ref();
        let write = unit_write(
            children.kind,
            self.source,
            existing,
            &unit.derived,
            replicas,
            step,
        );
        let happening = match write {
            UnitWrite::Nothing => return Ok(()),
            UnitWrite::Create(unit) => {
                children.create(&unit).await?;
                Happening::Created { name, replicas }
            }
            UnitWrite::Scale(replicas) => {
                children.scale(&name, replicas).await?;
                Happening::Scaled { name, replicas }
            }
            UnitWrite::Replace(unit) => {
                children.replace(&unit).await?;
                match step {
                    RolloutStep::Pause(by) => Happening::Paused {
                        name,
                        until: self.until(by),
                    },
                    _ => Happening::Followed(name),
                }
            }
            UnitWrite::Remake => {
                // It is made anew in the next pass, which its deletion wakes.
                if let Some(existing) = existing {
                    children.delete(existing).await?;
                }
                Happening::Removed(name)
            }
        };
        report.happened(children.kind, happening);
        Ok(())
    }

    fn until(&self, by: HeldBy) -> String {
        let names: Vec<&str> = self
            .units
            .iter()
            .map(|unit| unit.spec.name.as_str())
            .collect();
        until(by, &names)
    }
}

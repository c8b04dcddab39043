//! Claims: a run is taken in the status before it is done, and where that is possible some seconds before it is due.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::activation::{BEGUN_WITHIN, soon};
use super::condition::Synced;
use super::job::CompiledJob;
use super::outcome::acted;
use super::plan::{Draft, EventText, Run, Situation};
use super::{JobCondition, PendingRun};
use crate::events::EventKind;

/// A run that is later than this is said to be made up for.
const LATE_SECONDS: i64 = 10;

impl Draft<'_, '_> {
    /// Takes a run that is due.
    pub(super) fn claim(&mut self, index: usize, scheduled: Timestamp, missed: usize) -> Run {
        let Situation { now, holder, .. } = *self.situation;
        let condition = &mut self.synced.conditions[index];
        let late = now.as_second().saturating_sub(scheduled.as_second());
        if late > LATE_SECONDS {
            self.synced.events.push(EventText {
                kind: EventKind::Warning,
                reason: "OutOfDate",
                message: format!(
                    "rerun out of date job: {} (due at {scheduled}, {late} s ago; {missed} runs before it were missed)",
                    condition.name
                ),
            });
        }
        condition.pending = Some(PendingRun {
            schedule_time: Time(scheduled),
            holder: holder.to_owned(),
            since: MicroTime(now),
        });
        acted(condition, scheduled);
        self.run_of(index, scheduled)
    }

    pub(super) fn run_of(&self, index: usize, scheduled: Timestamp) -> Run {
        let condition = &self.synced.conditions[index];
        Run {
            job: condition.name.clone(),
            job_id: condition.job_id.clone(),
            scheduled,
            size: condition.target_size,
        }
    }

    /// Whether the claim that is on record is ours, unused and fresh enough to act on it as it stands.
    pub(super) fn is_claimed_ahead(&self, index: usize, scheduled: Timestamp) -> bool {
        let Situation {
            now, holder, ahead, ..
        } = *self.situation;
        let condition = &self.synced.conditions[index];
        let told =
            ahead.is_some_and(|run| run.job_id == condition.job_id && run.scheduled == scheduled);
        let pending = condition.pending.as_ref();
        told && pending.is_some_and(|pending| {
            pending.holder == holder && now.duration_since(pending.since.0) <= BEGUN_WITHIN
        })
    }

    /// Takes the next run if it is due soon.
    pub(super) fn claim_ahead(&mut self) -> Option<Run> {
        let Situation { now, holder, .. } = *self.situation;
        let Synced {
            jobs,
            conditions,
            exclusions,
            ..
        } = &self.synced;
        if !self.may_claim_ahead() {
            return None;
        }
        let soon_of = |(index, (job, condition)): (usize, (&Option<_>, &JobCondition))| {
            Some((soon(job.as_ref()?, condition, exclusions, now)?, index))
        };
        let all = jobs.iter().zip(conditions).enumerate().filter_map(soon_of);
        // The first, and of those that are due together the last one listed.
        let (scheduled, index) = all.min_by_key(|(at, index)| (*at, Reverse(*index)))?;
        self.synced.conditions[index].pending = Some(PendingRun {
            schedule_time: Time(scheduled),
            holder: holder.to_owned(),
            since: MicroTime(scheduled),
        });
        Some(self.run_of(index, scheduled))
    }

    /// One run at a time, and none on objects with windows: their runs depend on what is open at the moment itself.
    pub(super) fn may_claim_ahead(&self) -> bool {
        let Synced {
            jobs, conditions, ..
        } = &self.synced;
        let has_window = jobs.iter().flatten().any(CompiledJob::is_window);
        let is_busy = conditions.iter().any(|one| one.pending.is_some());
        self.floor.is_none() && !has_window && !is_busy
    }
}

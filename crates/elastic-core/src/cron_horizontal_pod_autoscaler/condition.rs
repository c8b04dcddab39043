//! Brings the conditions in line with the spec: new and changed jobs are taken up, jobs that cannot be read are refused.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::job::{CompiledJob, Exclusions, JobError, zone_name as zone_of};
use super::plan::{EventText, Situation};
use super::{Job, JobCondition, JobState, PendingRun};
use crate::events::EventKind;

const REFUSED: &str = "Failed to update cron hpa job ";

/// Jobs with their conditions; a job that cannot be read has none compiled.
pub(super) struct Synced {
    pub(super) jobs: Vec<Option<CompiledJob>>,
    pub(super) conditions: Vec<JobCondition>,
    pub(super) exclusions: Exclusions,
    pub(super) events: Vec<EventText>,
}

pub(super) fn sync(situation: &Situation<'_>, fresh_id: &mut dyn FnMut() -> String) -> Synced {
    let spec = situation.spec;
    let (exclusions, excluded_wrong) = match &situation.schedules.exclusions {
        Ok(exclusions) => (exclusions.clone(), None),
        Err(error) => (Exclusions::default(), Some(error)),
    };
    let mut synced = Synced {
        jobs: Vec::with_capacity(spec.jobs.len()),
        conditions: Vec::with_capacity(spec.jobs.len()),
        exclusions,
        events: Vec::new(),
    };
    let mut old = by_name(situation);
    let mut names = HashSet::with_capacity(spec.jobs.len());
    for (job, read) in spec.jobs.iter().zip(&situation.schedules.jobs) {
        let is_first = names.insert(job.name.as_str());
        let wrong = (!is_first).then(|| JobError::Name(job.name.clone()));
        let read = match wrong.as_ref().or(excluded_wrong) {
            Some(wrong) => Err(wrong),
            None => read.as_ref(),
        };
        // Of several jobs of one name each has its own condition, in the same order.
        let known = old.get_mut(job.name.as_str()).and_then(VecDeque::pop_front);
        let known = known.filter(|known| is_of(situation, job, known));
        take_up(situation, job, known, read, fresh_id, &mut synced);
    }
    synced
}

/// Conditions that are about the target and the excluded days of now, by job.
fn by_name<'s>(situation: &Situation<'s>) -> HashMap<&'s str, VecDeque<&'s JobCondition>> {
    let (status, spec) = (situation.status, situation.spec);
    let seen = status.scale_target_ref.as_ref();
    let all_anew = seen.is_some_and(|seen| *seen != spec.scale_target_ref)
        || status.exclude_dates != spec.exclude_dates;
    let mut found: HashMap<_, VecDeque<_>> = HashMap::new();
    for condition in status.conditions.iter().filter(|_| !all_anew) {
        let named = found.entry(condition.name.as_str()).or_default();
        named.push_back(condition);
    }
    found
}

/// Whether the job is the one that the condition is about.
fn is_of(situation: &Situation<'_>, job: &Job, known: &JobCondition) -> bool {
    known.schedule == job.schedule
        && known.target_size == job.target_size
        && known.run_once == job.run_once
        && known.until == job.until
        && known.start_after == job.start_after
        && known.end_before == job.end_before
        // The original wrote no zone; its conditions are taken over.
        && (known.time_zone.as_deref()).is_none_or(|zone| zone == zone_name(situation, job))
}

fn zone_name<'s>(situation: &Situation<'s>, job: &'s Job) -> &'s str {
    zone_of(situation.spec, job, situation.default_zone)
}

fn take_up(
    situation: &Situation<'_>,
    job: &Job,
    known: Option<&JobCondition>,
    read: Result<&CompiledJob, &JobError>,
    fresh_id: &mut dyn FnMut() -> String,
    synced: &mut Synced,
) {
    let now = situation.now;
    let zone = zone_name(situation, job);
    let anchor = known.and_then(|known| known.submitted_time.as_ref().map(|at| at.0));
    let anchor = anchor.unwrap_or(now);
    let compiled = match read {
        Ok(compiled) => compiled.counted_from(anchor),
        Err(error) => return refuse(situation, job, known, &error.to_string(), fresh_id, synced),
    };
    let was_refused = known.is_some_and(|known| known.message.starts_with(REFUSED));
    let mut condition = match known {
        Some(known) if !was_refused => taken_over(known, zone, now),
        _ => {
            let fresh = submitted(situation, job, zone, fresh_id());
            let from = fresh.handled_until.as_ref().map_or(now, |at| at.0);
            if compiled.next_after(from).is_none() && !compiled.is_window() {
                let why = "schedule: it has no activation any more; give a time to come";
                return refuse(situation, job, known, why, fresh_id, synced);
            }
            warn_of_five_fields(job, &compiled, fresh, synced)
        }
    };
    let suspended = situation.spec.suspend || job.suspend;
    if condition.suspended && !suspended {
        // What was due during the pause is not made up for.
        condition.handled_until = Some(Time(now));
    }
    let is_early = |pending: &PendingRun| pending.schedule_time.0 > now;
    if suspended && condition.pending.as_ref().is_some_and(is_early) {
        // Claimed ahead, and not due in time any more.
        condition.pending = None;
    }
    condition.suspended = suspended;
    synced.conditions.push(condition);
    synced.jobs.push(Some(compiled));
}

/// The condition as it is; what the original did not keep is filled in.
fn taken_over(known: &JobCondition, zone: &str, now: Timestamp) -> JobCondition {
    let mut condition = known.clone();
    let probed = || known.last_probe_time.clone().unwrap_or(Time(now));
    condition.time_zone = Some(zone.to_owned());
    condition.submitted_time.get_or_insert_with(probed);
    condition.handled_until.get_or_insert_with(probed);
    condition
}

fn submitted(situation: &Situation<'_>, job: &Job, zone: &str, id: String) -> JobCondition {
    let now = situation.now;
    // An object that was made while nobody looked: what was due since then counts.
    let unseen = situation.status.scale_target_ref.is_none();
    let from = if unseen {
        situation.created.min(now)
    } else {
        now
    };
    JobCondition {
        name: job.name.clone(),
        job_id: id,
        schedule: job.schedule.clone(),
        target_size: job.target_size,
        run_once: job.run_once,
        state: JobState::Submitted,
        last_probe_time: Some(Time(now)),
        time_zone: Some(zone.to_owned()),
        until: job.until.clone(),
        start_after: job.start_after.clone(),
        end_before: job.end_before.clone(),
        submitted_time: Some(Time(now)),
        handled_until: Some(Time(from)),
        ..JobCondition::default()
    }
}

fn warn_of_five_fields(
    job: &Job,
    compiled: &CompiledJob,
    mut condition: JobCondition,
    synced: &mut Synced,
) -> JobCondition {
    if compiled.schedule().has_five_fields() {
        condition.message = format!(
            "schedule {:?} has five fields and is read as minute hour day-of-month month day-of-week; write \"0 {}\" to say so",
            job.schedule, job.schedule
        );
        synced.events.push(EventText {
            kind: EventKind::Warning,
            reason: "FiveFieldSchedule",
            message: format!("cron hpa job {}: {}", job.name, condition.message),
        });
    }
    condition
}

fn refuse(
    situation: &Situation<'_>,
    job: &Job,
    known: Option<&JobCondition>,
    why: &str,
    fresh_id: &mut dyn FnMut() -> String,
    synced: &mut Synced,
) {
    let message = format!("{REFUSED}{},because of {why}", job.name);
    let told = known.filter(|known| known.message == message).cloned();
    let condition = told.unwrap_or_else(|| {
        synced.events.push(EventText {
            kind: EventKind::Warning,
            reason: JobState::Failed.word(),
            message: message.clone(),
        });
        let mut condition = submitted(situation, job, zone_name(situation, job), fresh_id());
        condition.state = JobState::Failed;
        condition.message = message;
        condition
    });
    synced.conditions.push(condition);
    synced.jobs.push(None);
}

//! The runs to come, for the status and for `springtide cron next`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::activation::is_done;
use super::condition::{Synced, sync};
use super::job::CompiledJob;
use super::plan::Situation;
use super::{CronHorizontalPodAutoscalerSpec, NextRun};

/// Runs shown in the status.
pub const UPCOMING_MOST: usize = 5;

/// The next `count` runs over all jobs of an object.
pub fn upcoming(situation: &Situation<'_>, count: usize) -> Vec<NextRun> {
    let synced = sync(situation, &mut String::new);
    runs(&synced, situation.spec, situation.now, count)
}

pub(super) fn of(
    synced: &Synced,
    spec: &CronHorizontalPodAutoscalerSpec,
    now: Timestamp,
) -> Vec<NextRun> {
    runs(synced, spec, now, UPCOMING_MOST)
}

fn runs(
    synced: &Synced,
    spec: &CronHorizontalPodAutoscalerSpec,
    now: Timestamp,
    count: usize,
) -> Vec<NextRun> {
    let mut all = Vec::new();
    for (index, job) in synced.jobs.iter().enumerate() {
        let Some(job) = job else { continue };
        let condition = &synced.conditions[index];
        if !condition.suspended {
            of_job(index, job, synced, now, count, &mut all);
        }
    }
    // Of runs at the same moment the last one listed is the one that counts, so it stands last.
    all.sort_by_key(|(at, index, _)| (*at, *index));
    let entry = |(at, index, size): (Timestamp, usize, Option<i32>)| {
        let (job, zone) = (&spec.jobs[index], synced.jobs[index].as_ref()?.zone());
        let name = synced.conditions[index].time_zone.as_deref();
        let local = at.to_zoned(zone.clone());
        Some(NextRun {
            job: job.name.clone(),
            time: Time(at),
            local_time: format!(
                "{} {}",
                local.strftime("%Y-%m-%d %H:%M:%S"),
                name.unwrap_or_default()
            ),
            target_size: size,
        })
    };
    all.into_iter().filter_map(entry).take(count).collect()
}

fn of_job(
    index: usize,
    job: &CompiledJob,
    synced: &Synced,
    now: Timestamp,
    count: usize,
    all: &mut Vec<(Timestamp, usize, Option<i32>)>,
) {
    let condition = &synced.conditions[index];
    let done = is_done(job, condition);
    let mut after = now;
    if job.is_window()
        && let Some((opened, closes)) = job.open_window(now, &synced.exclusions)
    {
        let acted = condition.last_schedule_time.as_ref().map(|at| at.0);
        if !done || acted == Some(opened) {
            all.extend(closes.map(|closes| (closes, index, None)));
        }
        // A window that opens while it is open does nothing.
        match closes {
            Some(closes) => after = closes.max(now),
            None => return,
        }
    }
    let once = condition.run_once || job.schedule().is_single();
    let most = if done {
        0
    } else if once {
        1
    } else {
        count
    };
    for _ in 0..most {
        let Some(next) = job.next_allowed(after, &synced.exclusions) else {
            return;
        };
        all.push((next, index, Some(condition.target_size)));
        after = next;
        if job.is_window() {
            match job.closes(next) {
                Some(closes) => {
                    all.push((closes, index, None));
                    after = closes;
                }
                None => return,
            }
        }
    }
}

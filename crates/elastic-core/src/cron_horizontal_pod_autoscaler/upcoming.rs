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
    let mut all = Soonest {
        entries: Vec::new(),
        count,
    };
    for (index, job) in synced.jobs.iter().enumerate() {
        let Some(job) = job else { continue };
        let condition = &synced.conditions[index];
        if !condition.suspended {
            of_job(index, job, synced, now, &mut all);
        }
    }
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
    all.entries.into_iter().filter_map(entry).collect()
}

/// The first runs of all that were added: when, of which job, to which size.
struct Soonest {
    entries: Vec<(Timestamp, usize, Option<i32>)>,
    count: usize,
}

impl Soonest {
    /// Of runs at the same moment the last one listed is the one that counts, so it stands last.
    fn add(&mut self, at: Timestamp, index: usize, size: Option<i32>) {
        let is_before = |entry: &(Timestamp, usize, Option<i32>)| (entry.0, entry.1) <= (at, index);
        let place = self.entries.partition_point(is_before);
        self.entries.insert(place, (at, index, size));
        self.entries.truncate(self.count);
    }

    /// Whether there are enough runs before `at`; then a job's later ones need not be worked out.
    fn is_beyond(&self, at: Timestamp) -> bool {
        let last = self.entries.last();
        self.entries.len() >= self.count && last.is_some_and(|(last, ..)| at > *last)
    }
}

fn of_job(index: usize, job: &CompiledJob, synced: &Synced, now: Timestamp, all: &mut Soonest) {
    let condition = &synced.conditions[index];
    let done = is_done(job, condition);
    let mut after = now;
    if job.is_window()
        && let Some((opened, closes)) = job.open_window(now, &synced.exclusions)
    {
        let acted = condition.last_schedule_time.as_ref().map(|at| at.0);
        if let Some(closes) = closes.filter(|_| !done || acted == Some(opened)) {
            all.add(closes, index, None);
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
        all.count
    };
    for _ in 0..most {
        let Some(next) = job.next_allowed(after, &synced.exclusions) else {
            return;
        };
        if all.is_beyond(next) {
            return;
        }
        all.add(next, index, Some(condition.target_size));
        after = next;
        if job.is_window() {
            match job.closes(next) {
                Some(closes) => {
                    all.add(closes, index, None);
                    after = closes;
                }
                None => return,
            }
        }
    }
}

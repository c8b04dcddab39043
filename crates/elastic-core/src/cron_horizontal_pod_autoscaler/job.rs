//! A job and the excluded days, read: schedule, zone, limits of validity. What cannot be read is refused by field.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::{CronHorizontalPodAutoscalerSpec, Job};
use crate::cron::{Exclusion, Schedule, ScheduleError, ZoneError, time_zone};

/// Days to look ahead for one that is not excluded.
const DAYS_AHEAD_MOST: usize = 800;
/// Activations to look back for one that counts.
const LOOK_BACK_MOST: usize = 400;

/// What is wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The schedule.
    #[error("schedule: {0}")]
    Schedule(ScheduleError),
    /// The window's end.
    #[error("until: {0}")]
    Until(ScheduleError),
    /// The zone.
    #[error("timeZone: {0}")]
    Zone(#[from] ZoneError),
    /// A limit of validity.
    #[error(
        "{field}: {text:?} is neither a date, a date and time, nor an RFC 3339 time; write for example 2026-12-31"
    )]
    Limit {
        /// `startAfter` or `endBefore`.
        field: &'static str,
        /// What is there.
        text: String,
    },
    /// An excluded day.
    #[error("excludeDates: {text:?}: {source}")]
    Exclusion {
        /// What is there.
        text: String,
        /// What is wrong with it.
        source: ScheduleError,
    },
    /// A size below zero.
    #[error("targetSize: must be 0 or more, found {0}")]
    Size(i32),
    /// Two jobs of one name.
    #[error("name: another job is called {0:?} too, names must differ")]
    Name(String),
}

/// Days on which no job of an object runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions(Vec<Exclusion>);

impl Exclusions {
    /// The expression that excludes `date`.
    pub fn find(&self, date: Date) -> Option<&str> {
        let found = self.0.iter().find(|exclusion| exclusion.has(date));
        found.map(Exclusion::text)
    }
}

/// Reads `excludeDates`.
pub fn compile_exclusions(texts: &[String]) -> Result<Exclusions, JobError> {
    let read = |text: &String| {
        Exclusion::parse(text).map_err(|source| JobError::Exclusion {
            text: text.clone(),
            source,
        })
    };
    Ok(Exclusions(
        texts.iter().map(read).collect::<Result<_, _>>()?,
    ))
}

/// What an object's expressions say, read once for each change of its spec.
#[derive(Clone, Debug)]
pub struct Schedules {
    /// One for each job of the spec, in its order.
    pub(super) jobs: Vec<Result<CompiledJob, JobError>>,
    pub(super) exclusions: Result<Exclusions, JobError>,
}

impl Schedules {
    /// Reads all of `spec`; jobs that name no zone are in `default_zone`.
    pub fn read(spec: &CronHorizontalPodAutoscalerSpec, default_zone: &str) -> Self {
        let read = |job: &Job| {
            let zone = zone_name(spec, job, default_zone);
            CompiledJob::new(job, zone, Timestamp::UNIX_EPOCH)
        };
        Self {
            jobs: spec.jobs.iter().map(read).collect(),
            exclusions: compile_exclusions(&spec.exclude_dates),
        }
    }
}

/// The zone that holds for a job.
pub(super) fn zone_name<'s>(
    spec: &'s CronHorizontalPodAutoscalerSpec,
    job: &'s Job,
    default_zone: &'s str,
) -> &'s str {
    let named = job.time_zone.as_deref().or(spec.time_zone.as_deref());
    named.unwrap_or(default_zone)
}

/// A job that can be asked for its times.
#[derive(Clone, Debug)]
pub struct CompiledJob {
    schedule: Schedule,
    until: Option<Schedule>,
    zone: TimeZone,
    start_after: Option<Timestamp>,
    end_before: Option<Timestamp>,
    /// What `@every` counts from.
    anchor: Timestamp,
}

impl CompiledJob {
    /// Reads `job`; `zone` is the name of the zone that holds for it, `anchor` what `@every` counts from.
    pub fn new(job: &Job, zone: &str, anchor: Timestamp) -> Result<Self, JobError> {
        if job.target_size < 0 {
            return Err(JobError::Size(job.target_size));
        }
        let zone = time_zone(zone)?;
        let limit = |field, text: &Option<String>| {
            let read = |text: &String| {
                moment(text, &zone).ok_or_else(|| JobError::Limit {
                    field,
                    text: text.clone(),
                })
            };
            text.as_ref().map(read).transpose()
        };
        let until = job.until.as_deref().map(Schedule::parse).transpose();
        Ok(Self {
            schedule: Schedule::parse(&job.schedule).map_err(JobError::Schedule)?,
            until: until.map_err(JobError::Until)?,
            start_after: limit("startAfter", &job.start_after)?,
            end_before: limit("endBefore", &job.end_before)?,
            zone,
            anchor,
        })
    }

    /// The same job, `@every` counted from `anchor`.
    #[must_use]
    pub(super) fn counted_from(&self, anchor: Timestamp) -> Self {
        Self {
            anchor,
            ..self.clone()
        }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether the job holds from an activation to the end of its window.
    pub fn is_window(&self) -> bool {
        self.until.is_some()
    }

    /// The zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    fn is_valid_at(&self, at: Timestamp) -> bool {
        self.start_after.is_none_or(|start| at >= start)
            && self.end_before.is_none_or(|end| at < end)
    }

    /// The first activation after `after`, excluded or not.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let second = jiff::Span::new().seconds(1);
        let start = self
            .start_after
            .and_then(|start| start.checked_sub(second).ok());
        let after = start.map_or(after, |start| after.max(start));
        let next = self.schedule.next_after(after, &self.zone, self.anchor)?;
        self.is_valid_at(next).then_some(next)
    }

    /// The newest activation up to `until`, excluded or not.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let nanosecond = jiff::Span::new().nanoseconds(1);
        let end = self
            .end_before
            .and_then(|end| end.checked_sub(nanosecond).ok());
        let until = end.map_or(until, |end| until.min(end));
        let last = self.schedule.last_until(until, &self.zone, self.anchor)?;
        self.is_valid_at(last).then_some(last)
    }

    /// The expression that excludes the day of `at`.
    pub fn excluded<'e>(&self, at: Timestamp, exclusions: &'e Exclusions) -> Option<&'e str> {
        exclusions.find(self.zone.to_datetime(at).date())
    }

    /// The first activation after `after` on a day that is not excluded.
    pub fn next_allowed(&self, after: Timestamp, exclusions: &Exclusions) -> Option<Timestamp> {
        let mut after = after;
        for _ in 0..DAYS_AHEAD_MOST {
            let next = self.next_after(after)?;
            if self.excluded(next, exclusions).is_none() {
                return Some(next);
            }
            // On to the last moment of the excluded day.
            let tomorrow = self.zone.to_datetime(next).date().tomorrow().ok()?;
            let midnight = tomorrow.to_zoned(self.zone.clone()).ok()?.timestamp();
            let second = jiff::Span::new().seconds(1);
            after = next.max(midnight.checked_sub(second).ok()?);
        }
        None
    }

    /// The window that is open at `now`: since when, and until when unless for ever.
    pub fn open_window(
        &self,
        now: Timestamp,
        exclusions: &Exclusions,
    ) -> Option<(Timestamp, Option<Timestamp>)> {
        let mut at = now;
        for _ in 0..LOOK_BACK_MOST {
            let opened = self.last_until(at)?;
            if self.excluded(opened, exclusions).is_none() {
                let closes = self.closes(opened);
                return closes
                    .is_none_or(|closes| closes > now)
                    .then_some((opened, closes));
            }
            at = opened.checked_sub(jiff::Span::new().seconds(1)).ok()?;
        }
        None
    }

    /// When a window that opened at `opened` closes.
    pub fn closes(&self, opened: Timestamp) -> Option<Timestamp> {
        let until = self.until.as_ref()?;
        let closes = until.next_after(opened, &self.zone, opened);
        match (closes, self.end_before) {
            (Some(closes), Some(end)) => Some(closes.min(end)),
            (closes, end) => closes.or(end),
        }
    }
}

fn moment(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let local: DateTime = text.parse().ok()?;
    Some(local.to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn job(schedule: &str, until: Option<&str>) -> Job {
        Job {
            name: "j".into(),
            schedule: schedule.into(),
            target_size: 3,
            until: until.map(str::to_owned),
            ..Job::default()
        }
    }

    fn compiled(job: &Job) -> CompiledJob {
        CompiledJob::new(job, "Asia/Shanghai", at("2026-01-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn a_window_is_open_from_its_schedule_to_the_next_end() {
        let job = compiled(&job("0 0 8 * * 1-5", Some("0 0 20 * * *")));
        let none = Exclusions::default();
        let open = job.open_window(at("2026-11-20T00:00:00Z"), &none);
        let (from, to) = (at("2026-11-20T00:00:00Z"), at("2026-11-20T12:00:00Z"));
        assert_eq!(open, Some((from, Some(to))));
        assert_eq!(job.open_window(at("2026-11-20T12:00:00Z"), &none), None);
        assert_eq!(
            job.open_window(at("2026-11-22T04:00:00Z"), &none),
            None,
            "Sunday"
        );
        let friday = compile_exclusions(&["2026-11-20".to_owned()]).unwrap();
        assert_eq!(job.open_window(at("2026-11-20T00:00:00Z"), &friday), None);
    }

    #[test]
    fn every_in_until_is_a_length() {
        let job = compiled(&job("0 0 8 * * *", Some("@every 90m")));
        let closes = job.closes(at("2026-11-20T00:00:00Z"));
        assert_eq!(closes, Some(at("2026-11-20T01:30:00Z")));
    }

    #[test]
    fn limits_of_validity_are_read_in_the_jobs_zone() {
        let mut limited = job("0 0 * * * *", None);
        limited.start_after = Some("2026-11-20".into());
        limited.end_before = Some("2026-11-20T02:00:00+08:00".into());
        let limited = compiled(&limited);
        let first = limited.next_after(at("2026-11-01T00:00:00Z")).unwrap();
        assert_eq!(first, at("2026-11-19T16:00:00Z"), "the limit itself counts");
        let second = limited.next_after(first).unwrap();
        assert_eq!(second, at("2026-11-19T17:00:00Z"));
        assert_eq!(limited.next_after(second), None);
        assert_eq!(limited.last_until(at("2027-01-01T00:00:00Z")), Some(second));
        assert_eq!(limited.last_until(at("2026-11-01T00:00:00Z")), None);
    }

    #[test]
    fn excluded_days_are_passed_over_whole() {
        let job = compiled(&job("0 * * * * *", None));
        let days = compile_exclusions(&["* * * 20-21 11 *".to_owned()]).unwrap();
        let next = job.next_allowed(at("2026-11-19T16:00:00Z"), &days);
        assert_eq!(next, Some(at("2026-11-21T16:00:00Z")));
        let always = compile_exclusions(&["* * * * * *".to_owned()]).unwrap();
        assert_eq!(job.next_allowed(at("2026-11-19T16:00:00Z"), &always), None);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_field() {
        let error = |change: fn(&mut Job)| {
            let mut job = job("0 0 8 * * *", None);
            change(&mut job);
            let compiled = CompiledJob::new(&job, "UTC", at("2026-01-01T00:00:00Z"));
            compiled.unwrap_err().to_string()
        };
        assert!(error(|job| job.schedule = "nonsense".into()).starts_with("schedule: "));
        assert!(error(|job| job.until = Some("x".into())).starts_with("until: "));
        assert!(error(|job| job.start_after = Some("soon".into())).starts_with("startAfter: "));
        assert!(error(|job| job.target_size = -1).starts_with("targetSize: "));
        let zone = CompiledJob::new(&job("@daily", None), "Mars", at("2026-01-01T00:00:00Z"));
        assert!(zone.unwrap_err().to_string().starts_with("timeZone: "));
        let days = compile_exclusions(&["not a day".to_owned()]).unwrap_err();
        assert!(days.to_string().starts_with("excludeDates: \"not a day\""));
    }
}

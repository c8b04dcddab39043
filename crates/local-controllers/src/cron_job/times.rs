//! When a CronJob is due: the newest time of its schedule that it has not acted on, and the next one.

use std::time::Duration;

use elastic_core::cron::{Schedule, time_zone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;

/// More missed times than this are told.
const MISSED_MAX: usize = 100;
/// Clocks are not quite equal, so a look comes this much after the time.
const SLACK: Duration = Duration::from_millis(100);

/// What is wrong with a schedule: the reason of the event and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str, pub String);

/// A CronJob's schedule.
#[derive(Clone, Debug)]
pub struct Times {
    schedule: Schedule,
    zone: TimeZone,
    /// The last time that was acted on, or the creation.
    since: Timestamp,
}

/// What is due at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The newest time that was not acted on.
    pub at: Option<Timestamp>,
    /// Whether many others before it were missed.
    pub too_many: bool,
}

impl Times {
    /// Reads the schedule and its time zone.
    ///
    /// # Errors
    /// The event that tells what is wrong.
    pub fn read(cron: &CronJob) -> Result<Self, Wrong> {
        let spec = cron.spec.clone().unwrap_or_default();
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => time_zone(name).map_err(|error| {
                Wrong(
                    "UnknownTimeZone",
                    format!("invalid timeZone: {name:?}: {error}"),
                )
            })?,
        };
        let text = &spec.schedule;
        let wrong = |reason: String| {
            Wrong(
                "UnparseableSchedule",
                format!("unparseable schedule: {text:?} : {reason}"),
            )
        };
        let schedule = Schedule::parse(text).map_err(|error| wrong(error.to_string()))?;
        if schedule.is_single() || !(schedule.has_five_fields() || text.trim().starts_with('@')) {
            return Err(wrong(
                "expected exactly 5 fields or a descriptor such as @hourly".into(),
            ));
        }
        let last = cron
            .status
            .as_ref()
            .and_then(|status| status.last_schedule_time.as_ref());
        let created = cron.metadata.creation_timestamp.as_ref();
        let since = last
            .or(created)
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Ok(Self {
            schedule,
            zone,
            since,
        })
    }

    /// The newest time until `now` that was not acted on. With a deadline, older times than that do not count as missed.
    pub fn due(&self, now: Timestamp, deadline_seconds: Option<i64>) -> Due {
        let Some(at) = self.schedule.last_until(now, &self.zone, self.since) else {
            return Due::default();
        };
        if at <= self.since {
            return Due::default();
        }
        let window = deadline_seconds
            .and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok())
            .map_or(self.since, |start| start.max(self.since));
        let mut moment = window;
        let mut missed = 0;
        while missed <= MISSED_MAX {
            match self.schedule.next_after(moment, &self.zone, self.since) {
                Some(next) if next <= now => moment = next,
                _ => break,
            }
            missed += 1;
        }
        Due {
            at: Some(at),
            too_many: missed > MISSED_MAX,
        }
    }

    /// How long until the next time.
    pub fn wait(&self, now: Timestamp) -> Option<Duration> {
        let next = self.schedule.next_after(now, &self.zone, self.since)?;
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO);
        Some(wait + SLACK)
    }

    /// A moment as an annotation shows it, in the schedule's time zone.
    pub fn text(&self, at: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        }
        at.to_zoned(self.zone.clone())
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(schedule: &str, zone: Option<&str>, last: Option<&str>) -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": {}},
            "status": {"lastScheduleTime": last}
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_missed_time_is_due_and_others_are_not_made_up_for() {
        let times = Times::read(&cron("*/5 * * * *", None, None)).unwrap();
        assert_eq!(times.due(at("2026-01-01T00:04:59Z"), None), Due::default());
        let due = times.due(at("2026-01-01T00:17:00Z"), None);
        assert_eq!(
            due,
            Due {
                at: Some(at("2026-01-01T00:15:00Z")),
                too_many: false
            }
        );
        assert!(times.due(at("2026-01-02T00:00:00Z"), None).too_many);
        assert!(!times.due(at("2026-01-02T00:00:00Z"), Some(600)).too_many);
        let acted = Times::read(&cron("*/5 * * * *", None, Some("2026-01-01T00:15:00Z"))).unwrap();
        assert_eq!(acted.due(at("2026-01-01T00:17:00Z"), None), Due::default());
        let wait = acted.wait(at("2026-01-01T00:17:00Z")).unwrap();
        assert_eq!(wait, Duration::from_millis(180_100));
    }

    #[test]
    fn schedules_hold_in_their_time_zone() {
        let times = Times::read(&cron("0 8 * * *", Some("Asia/Shanghai"), None)).unwrap();
        let due = times.due(at("2026-01-02T00:00:01Z"), None).at.unwrap();
        assert_eq!(due, at("2026-01-02T00:00:00Z"));
        assert_eq!(times.text(due), "2026-01-02T08:00:00+08:00");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_upstreams_reasons() {
        let wrong = |schedule: &str, zone| Times::read(&cron(schedule, zone, None)).unwrap_err().0;
        assert_eq!(wrong("0 8 * * *", Some("Mars/Base")), "UnknownTimeZone");
        for schedule in ["61 * * * *", "0 0 8 * * *", "@date 2027-01-01 00:00:00"] {
            assert_eq!(wrong(schedule, None), "UnparseableSchedule");
        }
    }
}

//! Times that are known to be different, read: a single time, or one that comes again by a schedule.

use jiff::{SignedDuration, Timestamp};

use super::kind::{ElasticForecastSpec, Window};
use crate::cron_horizontal_pod_autoscaler::{CompiledJob, Exclusions, Job};

/// A declared time that can be asked whether it holds.
#[derive(Clone, Debug)]
pub struct DeclaredTime {
    when: When,
    /// The forecast asks for at least these, even when it knows nothing.
    pub min_replicas: Option<i32>,
    /// The forecast asks for at most these.
    pub max_replicas: Option<i32>,
}

#[derive(Clone, Debug)]
enum When {
    Once { start: Timestamp, end: Timestamp },
    Again(Box<CompiledJob>),
}

impl DeclaredTime {
    /// Reads one; schedules are in the zone of this name.
    ///
    /// # Errors
    /// What is wrong, by the field within.
    pub fn read(window: &Window, zone: &str) -> Result<Self, String> {
        let (start, end) = (window.start_time.as_ref(), window.end_time.as_ref());
        if let (Some(start), Some(end)) = (start, end)
            && start.0 >= end.0
        {
            return Err(": needs a startTime before its endTime".to_owned());
        }
        let when = match (&window.schedule, &window.until, start, end) {
            (Some(schedule), Some(until), ..) => {
                let job = Job {
                    schedule: schedule.clone(),
                    until: Some(until.clone()),
                    start_after: start.map(|start| start.0.to_string()),
                    end_before: end.map(|end| end.0.to_string()),
                    ..Job::default()
                };
                let job = CompiledJob::new(&job, zone, Timestamp::UNIX_EPOCH);
                When::Again(Box::new(job.map_err(|error| format!(".{error}"))?))
            }
            (Some(_), None, ..) => {
                return Err(
                    ".until: needed beside schedule; say when it ends, for example @every 2h"
                        .to_owned(),
                );
            }
            (None, Some(_), ..) => {
                return Err(".schedule: needed beside until; say when it begins".to_owned());
            }
            (None, None, Some(start), Some(end)) => When::Once {
                start: start.0,
                end: end.0,
            },
            (None, None, ..) => {
                return Err(
                    ": needs a startTime before its endTime, or schedule and until".to_owned(),
                );
            }
        };
        Ok(Self {
            when,
            min_replicas: window.min_replicas,
            max_replicas: window.max_replicas,
        })
    }

    /// Whether it holds now, or begins within `ahead`.
    pub(super) fn holds(&self, now: Timestamp, ahead: SignedDuration) -> bool {
        match &self.when {
            When::Once { start, end } => *start <= now + ahead && now < *end,
            When::Again(job) => {
                job.open_window(now, &Exclusions::default()).is_some()
                    || job.next_after(now).is_some_and(|next| next <= now + ahead)
            }
        }
    }
}

/// All declared times of a spec.
///
/// # Errors
/// A sentence for the user on the first that cannot be read.
pub fn declared_times(spec: &ElasticForecastSpec) -> Result<Vec<DeclaredTime>, String> {
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    let read = |(index, window): (usize, &Window)| {
        DeclaredTime::read(window, zone).map_err(|wrong| format!("spec.bounds[{index}]{wrong}"))
    };
    spec.bounds.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(window: Value) -> Result<DeclaredTime, String> {
        DeclaredTime::read(&serde_json::from_value(window).unwrap(), "Asia/Shanghai")
    }

    fn holds(declared: &DeclaredTime, now: &str) -> bool {
        declared.holds(now.parse().unwrap(), SignedDuration::from_mins(5))
    }

    #[test]
    fn a_recurring_time_holds_each_time_and_a_little_before() {
        let declared =
            read(json!({"schedule": "0 0 9 * * MON-FRI", "until": "@every 2h"})).unwrap();
        for (now, expected) in [
            ("2026-11-20T00:54:59Z", false),
            ("2026-11-20T00:55:00Z", true), // 08:55 in Shanghai, a Friday
            ("2026-11-20T02:59:59Z", true),
            ("2026-11-20T03:00:00Z", false),
            ("2026-11-21T01:30:00Z", false),
            ("2026-11-23T01:30:00Z", true),
        ] {
            assert_eq!(holds(&declared, now), expected, "{now}");
        }
    }

    #[test]
    fn a_recurring_time_recurs_within_its_limits() {
        let declared = read(json!({"schedule": "0 0 20 * * *", "until": "0 0 23 * * *",
            "startTime": "2026-11-01T00:00:00+08:00", "endTime": "2026-11-11T22:00:00+08:00"}))
        .unwrap();
        for (now, expected) in [
            ("2026-10-31T13:00:00Z", false),
            ("2026-11-01T13:00:00Z", true),
            ("2026-11-11T13:59:59Z", true),
            ("2026-11-11T14:00:00Z", false),
            ("2026-11-12T13:00:00Z", false),
        ] {
            assert_eq!(holds(&declared, now), expected, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let wrong = |window| read(window).unwrap_err();
        assert!(wrong(json!({})).contains("schedule and until"));
        let start = json!({"startTime": "2026-11-01T00:00:00Z"});
        assert!(wrong(start).contains("schedule and until"));
        assert!(wrong(json!({"schedule": "@daily"})).starts_with(".until: needed"));
        assert!(wrong(json!({"until": "@daily"})).starts_with(".schedule: needed"));
        let until = json!({"schedule": "@daily", "until": "later"});
        assert!(wrong(until).starts_with(".until: "));
        let schedule = json!({"schedule": "0 0 25 * * *", "until": "@every 1h"});
        assert!(wrong(schedule).starts_with(".schedule: field hour"));
    }
}

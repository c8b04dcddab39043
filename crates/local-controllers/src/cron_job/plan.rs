//! What one look at a CronJob leads to, as upstream's controller decides it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::times::{Times, Wrong};
use crate::job::status::{COMPLETE, FAILED, find, is_finished};
use crate::shared::objects::{name, uid};

/// An event to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Without what is started and deleted now.
    pub status: CronJobStatus,
    /// Told before anything is done.
    pub events: Vec<Told>,
    /// Finished Jobs beyond the limits.
    pub retired: Vec<Arc<Job>>,
    /// Running Jobs that are replaced.
    pub replaced: Vec<ObjectReference>,
    /// The time of the Job to be made.
    pub start: Option<Timestamp>,
    /// When to look again.
    pub again: Option<Duration>,
}

impl Plan {
    fn tell(&mut self, is_warning: bool, reason: &'static str, message: String) {
        self.events.push(Told {
            is_warning,
            reason,
            message,
        });
    }
}

/// Decides; `jobs` are those that the CronJob controls.
pub fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan {
        status: cron.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    look_at_jobs(&mut plan, jobs);
    let spec = cron.spec.clone().unwrap_or_default();
    plan.retired = retired(jobs, &spec);
    if cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let times = match Times::read(cron) {
        Ok(times) => times,
        Err(Wrong(reason, message)) => {
            plan.tell(true, reason, message);
            return plan;
        }
    };
    if spec.suspend == Some(true) {
        return plan;
    }
    plan.again = times.wait(now);
    let due = times.due(now, spec.starting_deadline_seconds);
    if due.too_many {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.tell(true, "TooManyMissedTimes", message.into());
    }
    let Some(at) = due.at else {
        return plan;
    };
    let deadline = spec
        .starting_deadline_seconds
        .map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| at.checked_add(deadline).is_ok_and(|latest| latest < now)) {
        let shown = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        plan.tell(
            true,
            "MissSchedule",
            format!("Missed scheduled time to start a job: {shown}"),
        );
        return plan;
    }
    let active = plan.status.active.clone().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.tell(false, "JobAlreadyActive", message.into());
            return plan;
        }
        Some("Replace") => plan.replaced = active,
        _ => {}
    }
    plan.start = Some(at);
    plan
}

/// Takes finished and missing Jobs off the list of active ones.
fn look_at_jobs(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let known = active
            .iter()
            .position(|one| one.uid.as_deref() == Some(uid(&job.metadata)));
        let status = job.status.clone().unwrap_or_default();
        let shown = name(&job.metadata);
        match known {
            None if !is_finished(&status) => {
                let message =
                    format!("Saw a job that the controller did not create or forgot: {shown}");
                plan.tell(true, "UnexpectedJob", message);
            }
            Some(index) if is_finished(&status) => {
                active.remove(index);
                let condition = if find(&status, COMPLETE).is_some() {
                    COMPLETE
                } else {
                    FAILED
                };
                let message = format!("Saw completed job: {shown}, condition: {condition}");
                plan.tell(false, "SawCompletedJob", message);
            }
            _ => {}
        }
        if find(&status, COMPLETE).is_some() {
            let ended = status.completion_time.map(|time| time.0);
            let last = plan.status.last_successful_time.as_ref().map(|time| time.0);
            plan.status.last_successful_time = ended.max(last).map(Time);
        }
    }
    active.retain(|one| {
        let there = jobs
            .iter()
            .any(|job| Some(uid(&job.metadata)) == one.uid.as_deref());
        if !there {
            let message = format!(
                "Active job went missing: {}",
                one.name.as_deref().unwrap_or_default()
            );
            plan.tell(false, "MissingJob", message);
        }
        there
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Finished Jobs beyond the limits, oldest first.
fn retired(jobs: &[Arc<Job>], spec: &k8s_openapi::api::batch::v1::CronJobSpec) -> Vec<Arc<Job>> {
    let limits = [
        (COMPLETE, spec.successful_jobs_history_limit),
        (FAILED, spec.failed_jobs_history_limit),
    ];
    let mut all = Vec::new();
    for (condition, limit) in limits {
        let Some(limit) = limit else {
            continue;
        };
        let ended = |job: &&Arc<Job>| {
            job.metadata.deletion_timestamp.is_none()
                && job
                    .status
                    .as_ref()
                    .is_some_and(|status| find(status, condition).is_some())
        };
        let mut finished: Vec<&Arc<Job>> = jobs.iter().filter(ended).collect();
        finished.sort_by_key(|job| {
            let started = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref());
            (started.map(|time| time.0), job.metadata.name.clone())
        });
        let surplus = finished
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        all.extend(finished.into_iter().take(surplus).cloned());
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron(spec: Value, active: &[&str]) -> CronJob {
        let mut all = json!({"schedule": "*/5 * * * *", "jobTemplate": {}});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        let active: Vec<Value> = active
            .iter()
            .map(|name| json!({"name": name, "uid": name}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "report", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": all, "status": {"active": active}
        }))
        .unwrap()
    }

    fn job(name: &str, minute: u32, condition: Option<&str>) -> Arc<Job> {
        let conditions: Vec<Value> = condition
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect();
        let started = format!("2026-01-01T00:{minute:02}:00Z");
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "uid": name},
                "status": {"startTime": started, "completionTime": started, "conditions": conditions}}))
            .unwrap(),
        )
    }

    fn reasons(plan: &Plan) -> Vec<&'static str> {
        plan.events.iter().map(|one| one.reason).collect()
    }

    const NOW: &str = "2026-01-01T00:06:00Z";
    const DUE: &str = "2026-01-01T00:05:00Z";

    fn decide(cron: &CronJob, jobs: &[Arc<Job>]) -> Plan {
        plan(cron, jobs, NOW.parse().unwrap())
    }

    #[test]
    fn the_policy_says_what_a_running_job_means_for_the_next() {
        let running = [job("a", 1, None)];
        let cases = [
            ("Allow", Some(DUE), 0, vec![]),
            ("Forbid", None, 0, vec!["JobAlreadyActive"]),
            ("Replace", Some(DUE), 1, vec![]),
        ];
        for (policy, start, replaced, told) in cases {
            let plan = decide(
                &cron(json!({"concurrencyPolicy": policy}), &["a"]),
                &running,
            );
            assert_eq!(plan.start, start.map(|at| at.parse().unwrap()), "{policy}");
            assert_eq!(plan.replaced.len(), replaced, "{policy}");
            assert_eq!(reasons(&plan), told, "{policy}");
            assert_eq!(plan.again, Some(Duration::from_millis(240_100)));
        }
    }

    #[test]
    fn suspended_late_and_unreadable_ones_start_nothing() {
        let suspended = decide(&cron(json!({"suspend": true}), &[]), &[]);
        assert_eq!((suspended.start, suspended.again), (None, None));
        let late = decide(&cron(json!({"startingDeadlineSeconds": 30}), &[]), &[]);
        assert_eq!((late.start, reasons(&late)), (None, vec!["MissSchedule"]));
        assert_eq!(
            late.events[0].message,
            "Missed scheduled time to start a job: Thu, 01 Jan 2026 00:05:00 +0000"
        );
        let wrong = decide(&cron(json!({"schedule": "every day"}), &[]), &[]);
        assert_eq!(reasons(&wrong), ["UnparseableSchedule"]);
    }

    #[test]
    fn ended_jobs_leave_the_list_and_old_ones_are_retired() {
        let jobs = [
            job("a", 1, Some("Complete")),
            job("b", 2, Some("Complete")),
            job("c", 3, Some("Failed")),
            job("d", 4, Some("Failed")),
            job("stranger", 4, None),
        ];
        let limits = json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
        let plan = decide(&cron(limits, &["b", "gone"]), &jobs);
        assert_eq!(
            reasons(&plan),
            ["SawCompletedJob", "UnexpectedJob", "MissingJob"]
        );
        assert_eq!(
            plan.events[0].message,
            "Saw completed job: b, condition: Complete"
        );
        assert_eq!(plan.status.active, None);
        let last = plan.status.last_successful_time.unwrap().0;
        assert_eq!(last, "2026-01-01T00:02:00Z".parse().unwrap());
        let retired: Vec<&str> = plan.retired.iter().map(|job| name(&job.metadata)).collect();
        assert_eq!(retired, ["a", "c", "d"]);
    }
}

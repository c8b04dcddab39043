//! How many jobs there are and how they stand, under the names that the original's dashboards use.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::JobState;

/// Name and help of each gauge, in the order of [`Tally`].
const GAUGES: [(&str, &str); 5] = [
    (
        "kube_jobs_in_cron_engine_total",
        "Jobs of all CronHorizontalPodAutoscalers.",
    ),
    (
        "kube_submitted_jobs_in_cron_engine_total",
        "Jobs that have not run since they were taken up.",
    ),
    (
        "kube_successful_jobs_in_cron_engine_total",
        "Jobs whose last run went well.",
    ),
    (
        "kube_failed_jobs_in_cron_engine_total",
        "Jobs whose last run failed, or that cannot be read.",
    ),
    (
        "kube_expired_jobs_in_cron_engine_total",
        "Jobs whose last run was missed and too late to be made up for.",
    ),
];

type Tally = [i64; GAUGES.len()];

/// Counts of one replica; all zero when it does not lead.
#[derive(Debug, Default)]
pub struct JobCounts([AtomicI64; GAUGES.len()]);

impl JobCounts {
    pub(super) fn add(&self, object: &CronHorizontalPodAutoscaler) {
        self.change(tally(object), 1);
    }

    pub(super) fn remove(&self, object: &CronHorizontalPodAutoscaler) {
        self.change(tally(object), -1);
    }

    fn change(&self, tally: Tally, sign: i64) {
        for (count, number) in self.0.iter().zip(tally) {
            count.fetch_add(sign * number, Ordering::Relaxed);
        }
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for ((name, help), count) in GAUGES.iter().zip(&self.0) {
            let count = count.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {count}\n"
            );
        }
        text
    }
}

fn tally(object: &CronHorizontalPodAutoscaler) -> Tally {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut tally = Tally::default();
    for condition in conditions {
        let place = match condition.state {
            JobState::Submitted => 1,
            JobState::Succeed => 2,
            JobState::Failed => 3,
        };
        tally[0] += 1;
        tally[place] += 1;
        tally[4] += i64::from(condition.has_missed_its_run());
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_by_their_state_and_leave_no_trace() {
        let object: CronHorizontalPodAutoscaler = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "x"},
            "spec": {"scaleTargetRef": {"apiVersion": "v1", "kind": "K", "name": "n"}, "jobs": []},
            "status": {"conditions": [
                {"name": "a", "state": "Succeed"}, {"name": "b", "state": "Submitted"}, {"name": "c", "state": "Failed"},
                {"name": "d", "state": "Failed", "handledUntil": "2026-11-20T01:00:00Z", "lastScheduleTime": "2026-11-19T01:00:00Z"}
            ]}
        }))
        .unwrap();
        let counts = JobCounts::default();
        counts.add(&object);
        let text = counts.text();
        for line in [
            "kube_jobs_in_cron_engine_total 4",
            "kube_failed_jobs_in_cron_engine_total 2",
            "kube_expired_jobs_in_cron_engine_total 1",
            "# TYPE kube_submitted_jobs_in_cron_engine_total gauge",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        counts.remove(&object);
        assert!(counts.text().contains("kube_jobs_in_cron_engine_total 0"));
    }
}

//! What a Job does next, from its spec, its status and its pods.
//!
//! Each pod is counted once: its UID goes into the status first, then its finalizer goes, and only a pod without the
//! finalizer moves from the list of UIDs into the counter. A restart at any point continues there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::failures::{Consequence, consequence, remaining_backoff, restarts};
use super::indexes::{self, Indexes};
use super::pods::{NewPod, earlier_failures, index, is_indexed, is_tracked};
use super::status::{self, COMPLETE, FAILED, FAILURE, SUCCESS, SUSPENDED};
use crate::replica_set::victims::rank;
use crate::shared::objects::{is_active, is_finished, is_ready, phase, uid, whole_seconds};

/// At most this many pods are made or removed in one round.
const PODS_PER_ROUND_MAX: i32 = 500;

/// Something to tell about the Job.
#[derive(Debug, PartialEq)]
pub struct Event {
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
}

/// What to do, in this order: make and remove pods, write the status, let counted pods go, tell.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to make.
    pub create: Vec<NewPod>,
    /// Pods to remove.
    pub delete: Vec<Arc<Pod>>,
    /// The status before the effects of making and removing.
    pub status: JobStatus,
    /// Pods whose finalizer is to go once the status is written.
    pub untrack: Vec<Arc<Pod>>,
    /// To be told once the status is written.
    pub events: Vec<Event>,
    /// Until the next look, should nothing change.
    pub next: Option<Duration>,
    /// Whether the Job itself is to go.
    pub is_expired: bool,
}

/// Decides.
pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let before = job.status.clone().unwrap_or_default();
    if status::is_finished(&before) {
        return after_the_end(job, pods, before, now);
    }
    let mut round = Round::new(job, pods, before, now);
    round.count();
    round.judge();
    if round.verdict().is_some() {
        round.plan.delete = round.active.clone();
    } else if job.metadata.deletion_timestamp.is_none() {
        round.manage();
        if round.verdict().is_some() {
            round.plan.delete = round.active.clone();
        } else {
            round.suspend_or_resume();
        }
    }
    round.finish()
}

fn after_the_end(job: &Job, pods: &[Arc<Pod>], status: JobStatus, now: Timestamp) -> Plan {
    let ended = status
        .conditions
        .iter()
        .flatten()
        .find(|one| matches!(one.type_.as_str(), COMPLETE | FAILED) && one.status == "True")
        .and_then(|one| one.last_transition_time.as_ref());
    let life = job
        .spec
        .as_ref()
        .and_then(|spec| spec.ttl_seconds_after_finished);
    let left = life.zip(ended).map(|(life, ended)| {
        let left = SignedDuration::from_secs(i64::from(life)) - now.duration_since(ended.0);
        Duration::try_from(left).unwrap_or_default()
    });
    let is_going = job.metadata.deletion_timestamp.is_some();
    Plan {
        untrack: pods.iter().filter(|pod| is_tracked(pod)).cloned().collect(),
        is_expired: !is_going && left.is_some_and(|left| left.is_zero()),
        next: left.filter(|left| !left.is_zero()),
        status,
        ..Plan::default()
    }
}

struct Round<'a> {
    job: &'a Job,
    pods: &'a [Arc<Pod>],
    active: Vec<Arc<Pod>>,
    now: Timestamp,
    completions: Option<i32>,
    parallelism: i32,
    succeeded: i32,
    failed: i32,
    has_new_failure: bool,
    fail_job: Option<String>,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
    /// Per index, how often its pods have failed.
    index_failures: BTreeMap<i32, i32>,
    plan: Plan,
}

impl<'a> Round<'a> {
    fn new(job: &'a Job, pods: &'a [Arc<Pod>], before: JobStatus, now: Timestamp) -> Self {
        let spec = job.spec.as_ref();
        let completions = spec.and_then(|spec| spec.completions);
        let limit = completions.unwrap_or(0);
        let read = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or(""), limit);
        let mut round = Round {
            job,
            pods,
            active: pods.iter().filter(|pod| is_active(pod)).cloned().collect(),
            now,
            completions,
            parallelism: spec.and_then(|spec| spec.parallelism).unwrap_or(1),
            succeeded: 0,
            failed: 0,
            has_new_failure: false,
            fail_job: None,
            succeeded_indexes: read(&before.completed_indexes),
            failed_indexes: read(&before.failed_indexes),
            index_failures: BTreeMap::new(),
            plan: Plan {
                status: before,
                ..Plan::default()
            },
        };
        if round.plan.status.start_time.is_none() && !round.is_suspended() {
            round.plan.status.start_time = Some(whole_seconds(now));
        }
        round
    }

    fn is_suspended(&self) -> bool {
        self.job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
    }

    fn replaces_failed_only(&self) -> bool {
        let spec = self.job.spec.as_ref();
        spec.and_then(|spec| spec.pod_replacement_policy.as_deref()) == Some("Failed")
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.replaces_failed_only() && pod.metadata.deletion_timestamp.is_some(),
        }
    }

    fn verdict(&self) -> Option<&'static str> {
        [FAILURE, SUCCESS]
            .into_iter()
            .find(|kind| status::find(&self.plan.status, kind).is_some())
    }

    /// Takes pods that have ended into the status.
    fn count(&mut self) {
        let known = self
            .plan
            .status
            .uncounted_terminated_pods
            .take()
            .unwrap_or_default();
        let tracked: BTreeSet<&str> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(|pod| uid(&pod.metadata))
            .collect();
        let split = |uids: Option<Vec<String>>| -> (Vec<String>, i32) {
            let all = uids.unwrap_or_default();
            let total = all.len();
            let held: Vec<String> = all
                .into_iter()
                .filter(|uid| tracked.contains(uid.as_str()))
                .collect();
            let counted = i32::try_from(total - held.len()).unwrap_or(i32::MAX);
            (held, counted)
        };
        let (mut held_succeeded, counted_succeeded) = split(known.succeeded);
        let (mut held_failed, counted_failed) = split(known.failed);
        let succeeded = self.plan.status.succeeded.unwrap_or(0) + counted_succeeded;
        let failed = self.plan.status.failed.unwrap_or(0) + counted_failed;
        let verdict = self.verdict();
        let is_ending = verdict.is_some() || self.job.metadata.deletion_timestamp.is_some();
        let was_failed: BTreeSet<String> = held_failed.iter().cloned().collect();
        for pod in self.pods {
            let id = uid(&pod.metadata).to_owned();
            if self.has_failed(pod) {
                self.note_index_failure(pod);
            }
            if !is_tracked(pod) {
                continue;
            }
            let is_cut_off = is_ending && pod.metadata.deletion_timestamp.is_some();
            if phase(pod) == "Succeeded" && !was_failed.contains(&id) {
                if is_indexed(self.job) {
                    self.succeeded_indexes.extend(self.valid_index(pod));
                } else if !held_succeeded.contains(&id) {
                    held_succeeded.push(id);
                }
            } else if self.has_failed(pod) || is_cut_off {
                let counts = verdict != Some(SUCCESS) || phase(pod) == "Failed";
                if !was_failed.contains(&id) && counts && self.failure_counts(pod) {
                    held_failed.push(id);
                    self.has_new_failure = true;
                }
            } else {
                continue;
            }
            self.plan.untrack.push(Arc::clone(pod));
        }
        self.write_counts(succeeded, failed, held_succeeded, held_failed);
    }

    fn write_counts(
        &mut self,
        mut succeeded: i32,
        failed: i32,
        held_succeeded: Vec<String>,
        held_failed: Vec<String>,
    ) {
        let amount = |list: &[String]| i32::try_from(list.len()).unwrap_or(i32::MAX);
        if is_indexed(self.job) {
            succeeded = i32::try_from(self.succeeded_indexes.len()).unwrap_or(i32::MAX);
        }
        self.succeeded = succeeded + amount(&held_succeeded);
        self.failed = failed + amount(&held_failed);
        let counted = |count: i32| (count > 0).then_some(count);
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let status = &mut self.plan.status;
        status.succeeded = counted(succeeded);
        status.failed = counted(failed);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: list(held_succeeded),
            failed: list(held_failed),
        });
        let short = |set: &Indexes| (!set.is_empty()).then(|| indexes::format(set));
        status.completed_indexes = short(&self.succeeded_indexes);
        status.failed_indexes = short(&self.failed_indexes);
        let ready = self.active.iter().filter(|pod| is_ready(pod)).count();
        let going = self
            .pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !is_finished(pod));
        status.ready = i32::try_from(ready).ok();
        status.terminating = i32::try_from(going.count()).ok();
        status.active = i32::try_from(self.active.len())
            .ok()
            .filter(|count| *count > 0);
    }

    fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| (0..self.completions.unwrap_or(0)).contains(index))
    }

    fn limit_per_index(&self) -> Option<i32> {
        self.job
            .spec
            .as_ref()
            .and_then(|spec| spec.backoff_limit_per_index)
    }

    fn note_index_failure(&mut self, pod: &Pod) {
        let (Some(limit), Some(index)) = (self.limit_per_index(), self.valid_index(pod)) else {
            return;
        };
        let consequence = consequence(self.job, pod);
        if consequence == Consequence::Ignore {
            return;
        }
        let failures = self.index_failures.entry(index).or_default();
        *failures = (*failures).max(earlier_failures(pod) + 1);
        let is_final = *failures > limit || consequence == Consequence::FailIndex;
        if is_final && !self.succeeded_indexes.contains(&index) {
            self.failed_indexes.insert(index);
        }
    }

    /// Whether a pod that has failed is to be counted; notes when it fails the Job.
    fn failure_counts(&mut self, pod: &Pod) -> bool {
        if is_indexed(self.job) && self.valid_index(pod).is_none() {
            return false;
        }
        match consequence(self.job, pod) {
            Consequence::Ignore => false,
            Consequence::FailJob(message) => {
                self.fail_job.get_or_insert(message);
                true
            }
            _ => true,
        }
    }

    /// Decides whether the Job has failed, or has succeeded before all of it has run.
    fn judge(&mut self) {
        if self.verdict().is_some() {
            return;
        }
        let found = self
            .failure()
            .map(|(reason, message)| (FAILURE, reason, message));
        let found = found.or_else(|| {
            let rule = self.success_rule()?;
            Some((
                SUCCESS,
                "SuccessPolicy",
                format!("Matched rules at index {rule}"),
            ))
        });
        if let Some((kind, reason, message)) = found {
            status::set(
                &mut self.plan.status,
                kind,
                true,
                reason,
                &message,
                self.now,
            );
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        if let Some(message) = self.fail_job.take() {
            return Some(("PodFailurePolicy", message));
        }
        let spec = self.job.spec.as_ref()?;
        let limit = spec.backoff_limit.unwrap_or(6);
        let is_restarting = spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref())
            == Some("OnFailure");
        let restarts = if is_restarting {
            restarts(self.pods)
        } else {
            0
        };
        if (self.has_new_failure && self.failed > limit) || restarts > 0 && restarts >= limit {
            let message = "Job has reached the specified backoff limit";
            return Some(("BackoffLimitExceeded", message.to_owned()));
        }
        if let Some(deadline) = spec
            .active_deadline_seconds
            .filter(|_| !self.is_suspended())
        {
            let since = self
                .plan
                .status
                .start_time
                .as_ref()
                .map_or(self.now, |time| time.0);
            let left = SignedDuration::from_secs(deadline) - self.now.duration_since(since);
            if left <= SignedDuration::ZERO {
                let message = "Job was active longer than specified deadline";
                return Some(("DeadlineExceeded", message.to_owned()));
            }
            self.look_again(Duration::try_from(left).unwrap_or_default());
        }
        let failed = i32::try_from(self.failed_indexes.len()).unwrap_or(i32::MAX);
        if spec.max_failed_indexes.is_some_and(|limit| failed > limit) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.to_owned()));
        }
        let is_over = failed > 0
            && self
                .completions
                .is_some_and(|all| self.succeeded + failed >= all);
        is_over.then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
    }

    /// The first rule of the success policy that holds.
    fn success_rule(&self) -> Option<usize> {
        let policy = self.job.spec.as_ref()?.success_policy.as_ref()?;
        let completions = self.completions.unwrap_or(0);
        policy.rules.iter().position(|rule| {
            let wanted = rule
                .succeeded_indexes
                .as_ref()
                .map(|text| indexes::parse(text, completions));
            let met = match &wanted {
                Some(wanted) => self.succeeded_indexes.intersection(wanted).count(),
                None => self.succeeded_indexes.len(),
            };
            let needed = match (rule.succeeded_count, &wanted) {
                (Some(count), _) => usize::try_from(count).unwrap_or(0),
                (None, Some(wanted)) => wanted.len(),
                (None, None) => return false,
            };
            met >= needed
        })
    }

    /// Makes and removes pods, or finds that the Job is complete.
    fn manage(&mut self) {
        let active = i32::try_from(self.active.len()).unwrap_or(i32::MAX);
        if self.is_complete(active) {
            let message = "Reached expected number of succeeded pods";
            status::set(
                &mut self.plan.status,
                SUCCESS,
                true,
                "CompletionsReached",
                message,
                self.now,
            );
            return;
        }
        if self.is_suspended() {
            self.plan.delete = self.active.clone();
            return;
        }
        let wanted = match self.completions {
            None if self.succeeded > 0 => active,
            None => self.parallelism,
            Some(all) => {
                let failed = i32::try_from(self.failed_indexes.len()).unwrap_or(0);
                (all - self.succeeded - failed).clamp(0, self.parallelism.max(0))
            }
        };
        let mut surplus = self.misplaced();
        let usable = active - i32::try_from(surplus.len()).unwrap_or(0);
        let extra = usize::try_from(usable - wanted).unwrap_or(0);
        if extra > 0 {
            let mut rest: Vec<_> = self
                .active
                .iter()
                .filter(|pod| !surplus.contains(pod))
                .cloned()
                .collect();
            rank(&mut rest, &self.active, self.now);
            surplus.extend(rest.into_iter().take(extra));
        }
        if !surplus.is_empty() {
            surplus.truncate(usize::try_from(PODS_PER_ROUND_MAX).unwrap_or(0));
            self.plan.delete = surplus;
            return;
        }
        let going = self.plan.status.terminating.unwrap_or(0);
        let held = if self.replaces_failed_only() {
            going
        } else {
            0
        };
        let missing = (wanted - active - held).min(PODS_PER_ROUND_MAX);
        if missing <= 0 {
            return;
        }
        let backoff = remaining_backoff(self.pods, self.now);
        if backoff.is_zero() || self.limit_per_index().is_some() {
            self.create(missing);
        } else {
            self.look_again(backoff);
        }
    }

    fn is_complete(&self, active: i32) -> bool {
        match self.completions {
            None => self.succeeded > 0 && active == 0,
            Some(all) => self.succeeded >= all,
        }
    }

    /// Active pods of an indexed Job whose index is done, invalid or taken by another.
    fn misplaced(&self) -> Vec<Arc<Pod>> {
        if !is_indexed(self.job) {
            return Vec::new();
        }
        let mut taken = Indexes::new();
        let is_misplaced = |pod: &&Arc<Pod>| {
            let Some(index) = self.valid_index(pod) else {
                return true;
            };
            self.succeeded_indexes.contains(&index)
                || self.failed_indexes.contains(&index)
                || !taken.insert(index)
        };
        self.active.iter().filter(is_misplaced).cloned().collect()
    }

    fn create(&mut self, missing: i32) {
        let count = usize::try_from(missing).unwrap_or(0);
        if !is_indexed(self.job) {
            self.plan.create = vec![NewPod::default(); count];
            return;
        }
        let going = self.pods.iter().filter(|pod| {
            let is_going = pod.metadata.deletion_timestamp.is_some() && !is_finished(pod);
            is_active(pod) || (is_going && self.replaces_failed_only())
        });
        let taken: Indexes = going.filter_map(|pod| self.valid_index(pod)).collect();
        let by_index = self.limit_per_index().is_some();
        let is_free = |index: &i32| {
            ![&taken, &self.succeeded_indexes, &self.failed_indexes]
                .iter()
                .any(|set| set.contains(index))
        };
        let free = (0..self.completions.unwrap_or(0))
            .filter(is_free)
            .take(count);
        let new_pod = |index: i32| NewPod {
            index: Some(index),
            index_failures: by_index.then(|| self.index_failures.get(&index).copied().unwrap_or(0)),
        };
        self.plan.create = free.map(new_pod).collect();
    }

    fn suspend_or_resume(&mut self) {
        let (is_suspended, now) = (self.is_suspended(), self.now);
        let (reason, message, event) = match is_suspended {
            true => ("JobSuspended", "Job suspended", "Suspended"),
            false => ("JobResumed", "Job resumed", "Resumed"),
        };
        if !status::set(
            &mut self.plan.status,
            SUSPENDED,
            is_suspended,
            reason,
            message,
            now,
        ) {
            return;
        }
        if !is_suspended {
            self.plan.status.start_time = Some(whole_seconds(now));
        }
        self.tell(false, event, message);
    }

    /// Ends the Job once nothing of it runs or waits to be counted.
    fn finish(mut self) -> Plan {
        let Some(kind) = self.verdict() else {
            return self.plan;
        };
        let uncounted = self.plan.status.uncounted_terminated_pods.as_ref();
        let is_counted =
            uncounted.is_none_or(|held| held.succeeded.is_none() && held.failed.is_none());
        let is_quiet = self.active.is_empty() && self.plan.status.terminating.unwrap_or(0) == 0;
        if !is_counted || !is_quiet {
            return self.plan;
        }
        let verdict = status::find(&self.plan.status, kind).cloned();
        let (reason, message) = verdict
            .map(|verdict| {
                (
                    verdict.reason.unwrap_or_default(),
                    verdict.message.unwrap_or_default(),
                )
            })
            .unwrap_or_default();
        let end = if kind == SUCCESS { COMPLETE } else { FAILED };
        status::set(
            &mut self.plan.status,
            end,
            true,
            &reason,
            &message,
            self.now,
        );
        if kind == SUCCESS {
            self.plan.status.completion_time = Some(whole_seconds(self.now));
            self.tell(false, "Completed", "Job completed");
        } else {
            self.tell(true, &reason, &message);
        }
        self.plan
    }

    fn tell(&mut self, is_warning: bool, reason: &str, message: &str) {
        self.plan.events.push(Event {
            is_warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.next = Some(self.plan.next.map_or(after, |known| known.min(after)));
    }
}

#[cfg(test)]
mod tests;

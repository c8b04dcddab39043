//! What a run or a window came to, written into the status and as an event.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{EventText, Run};
use super::{CronHorizontalPodAutoscalerStatus, JobCondition, JobState};
use crate::events::EventKind;

/// What scaling came to: a sentence on what was done, or why it could not be.
pub type Outcome = Result<String, String>;

pub(super) fn succeeded(job: &str, what: &str) -> String {
    format!("cron hpa job {job} executed successfully. {what}")
}

pub(super) fn failed(why: &str) -> String {
    format!("cron hpa failed to execute, because of {why}")
}

/// Notes that an activation has been acted on.
pub(super) fn acted(condition: &mut JobCondition, scheduled: Timestamp) {
    condition.handled_until = Some(Time(scheduled));
    condition.last_schedule_time = Some(Time(scheduled));
}

fn settle(condition: &mut JobCondition, outcome: &Outcome, now: Timestamp) -> EventText {
    let (kind, state, message) = match outcome {
        Ok(what) => (
            EventKind::Normal,
            JobState::Succeed,
            succeeded(&condition.name, what),
        ),
        Err(why) => (EventKind::Warning, JobState::Failed, failed(why)),
    };
    condition.state = state;
    condition.last_probe_time = Some(Time(now));
    condition.message.clone_from(&message);
    EventText {
        kind,
        reason: state.word(),
        message,
    }
}

/// Writes the outcome of `run` into `status`, which may have changed since the run was claimed. None: the job is gone, is
/// another one now, or somebody else finished the run.
pub fn record(
    status: &mut CronHorizontalPodAutoscalerStatus,
    run: &Run,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<EventText> {
    let claimed = |condition: &&mut JobCondition| {
        let pending = condition.pending.as_ref();
        condition.job_id == run.job_id
            && pending.is_some_and(|pending| pending.schedule_time.0 == run.scheduled)
    };
    let condition = status.conditions.iter_mut().find(claimed)?;
    condition.pending = None;
    acted(condition, run.scheduled);
    Some(settle(condition, outcome, now))
}

/// Gives a run that `holder` claimed ahead and will not begin back, so that nobody waits for the claim to end. False: it is
/// not its claim any more.
pub fn give_back(status: &mut CronHorizontalPodAutoscalerStatus, run: &Run, holder: &str) -> bool {
    let is_it = |condition: &&mut JobCondition| {
        let pending = condition.pending.as_ref();
        condition.job_id == run.job_id
            && pending.is_some_and(|pending| {
                pending.holder == holder && pending.schedule_time.0 == run.scheduled
            })
    };
    let found = status.conditions.iter_mut().find(is_it);
    found.is_some_and(|condition| condition.pending.take().is_some())
}

/// Windows that opened are held now.
pub fn floor_held(
    status: &mut CronHorizontalPodAutoscalerStatus,
    opening: &[(String, Timestamp)],
    what: &str,
    now: Timestamp,
) -> Vec<EventText> {
    let outcome = Ok(what.to_owned());
    let mut events = Vec::new();
    for (name, opened) in opening {
        let found = status.conditions.iter_mut().find(|one| one.name == *name);
        if let Some(condition) = found {
            acted(condition, *opened);
            events.push(settle(condition, &outcome, now));
        }
    }
    events
}

/// Windows cannot be held, or not be released; said once for each reason.
pub fn floor_failed(
    status: &mut CronHorizontalPodAutoscalerStatus,
    jobs: &[String],
    why: &str,
    now: Timestamp,
) -> Vec<EventText> {
    let outcome = Err(why.to_owned());
    let mut events = Vec::new();
    for condition in &mut status.conditions {
        if jobs.contains(&condition.name) && condition.message != failed(why) {
            events.push(settle(condition, &outcome, now));
        }
    }
    events.truncate(1);
    events
}

/// The last window has closed and the target has its numbers back.
pub fn floor_released(
    status: &mut CronHorizontalPodAutoscalerStatus,
    what: &str,
    now: Timestamp,
) -> Vec<EventText> {
    let jobs = status.floor.take().map(|floor| floor.jobs);
    let mut events = Vec::new();
    for name in jobs.unwrap_or_default() {
        // A job that was changed meanwhile is another one, which has not opened yet.
        let opened = |one: &&mut JobCondition| one.name == name && one.last_schedule_time.is_some();
        if let Some(condition) = status.conditions.iter_mut().find(opened) {
            let outcome = Ok(format!("its window has ended, {what}"));
            events.push(settle(condition, &outcome, now));
        }
    }
    events
}

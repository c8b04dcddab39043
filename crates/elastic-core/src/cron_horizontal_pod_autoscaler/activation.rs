//! Which activation of a job is due, and what became of those before it.

use jiff::{SignedDuration, Timestamp, ToSpan};

use super::job::{CompiledJob, Exclusions};
use super::{JobCondition, JobState};

/// After this long another replica may take over a run; longer than a run can take with all its retries.
pub(super) const CLAIM_SECONDS: i64 = 30;
/// Runs are claimed this long before they are due, so that nothing but the act itself is left to do then. Half a second is
/// in it because runs are due at whole ones: claims do not come between the acts of other objects.
pub(super) const CLAIM_AHEAD: SignedDuration = SignedDuration::from_millis(4_500);
/// A run that was claimed ahead is begun up to this long after it was due; later it is claimed anew. This and the longest
/// run are shorter than [`CLAIM_SECONDS`].
pub(super) const BEGUN_WITHIN: SignedDuration = SignedDuration::from_secs(5);
/// Activations that were missed are counted up to here.
const COUNT_MOST: usize = 100;

/// What is to be done about a job now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    No,
    /// Another replica is at it; look again then.
    Held(Timestamp),
    /// Run.
    Run {
        /// The activation.
        scheduled: Timestamp,
        /// Activations before it that nobody acted on.
        missed: usize,
    },
    /// Not on this day.
    Excluded {
        /// The activation.
        scheduled: Timestamp,
        /// What excludes it.
        expression: String,
    },
    /// Too late to be made up for.
    TooLate {
        /// The newest activation.
        scheduled: Timestamp,
        /// Activations before it that nobody acted on.
        missed: usize,
    },
}

/// Whether a job that runs once has run.
pub(super) fn is_done(job: &CompiledJob, condition: &JobCondition) -> bool {
    (condition.run_once || job.schedule().is_single())
        && condition.state != JobState::Submitted
        && condition.pending.is_none()
}

pub(super) fn due(
    job: &CompiledJob,
    condition: &JobCondition,
    exclusions: &Exclusions,
    holder: &str,
    deadline_seconds: i64,
    now: Timestamp,
) -> Due {
    if condition.suspended || job.is_window() || is_done(job, condition) {
        return Due::No;
    }
    let too_late = |scheduled: Timestamp| {
        let age = now.as_second().saturating_sub(scheduled.as_second());
        // A run within the lease of a claim is no made-up run.
        age > deadline_seconds.max(CLAIM_SECONDS)
    };
    if let Some(pending) = &condition.pending {
        let free = pending.since.0.checked_add(CLAIM_SECONDS.seconds());
        let free = free.unwrap_or(now);
        let scheduled = pending.schedule_time.0;
        return if pending.holder != holder && free > now {
            Due::Held(free)
        } else if scheduled > now {
            Due::No
        } else if too_late(scheduled) {
            Due::TooLate {
                scheduled,
                missed: 0,
            }
        } else {
            Due::Run {
                scheduled,
                missed: 0,
            }
        };
    }
    let handled = condition.handled_until.as_ref().map_or(now, |at| at.0);
    let Some(scheduled) = job.last_until(now).filter(|last| *last > handled) else {
        return Due::No;
    };
    let missed = missed_between(job, handled, scheduled);
    if too_late(scheduled) {
        Due::TooLate { scheduled, missed }
    } else if let Some(expression) = job.excluded(scheduled, exclusions) {
        Due::Excluded {
            scheduled,
            expression: expression.to_owned(),
        }
    } else {
        Due::Run { scheduled, missed }
    }
}

/// The activation that can be claimed ahead, as it is due soon.
pub(super) fn soon(
    job: &CompiledJob,
    condition: &JobCondition,
    exclusions: &Exclusions,
    now: Timestamp,
) -> Option<Timestamp> {
    if condition.suspended || is_done(job, condition) {
        return None;
    }
    let next = job.next_after(now)?;
    let handled = condition.handled_until.as_ref().map_or(now, |at| at.0);
    let is_soon = next.duration_since(now) <= CLAIM_AHEAD && next > handled;
    (is_soon && job.excluded(next, exclusions).is_none()).then_some(next)
}

fn missed_between(job: &CompiledJob, handled: Timestamp, newest: Timestamp) -> usize {
    let mut at = handled;
    let mut count = 0;
    while count < COUNT_MOST {
        match job.next_after(at) {
            Some(next) if next < newest => {
                at = next;
                count += 1;
            }
            _ => break,
        }
    }
    count
}

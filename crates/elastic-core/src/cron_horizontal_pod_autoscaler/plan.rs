//! One look at an object: what its status becomes, what to do now, and when to look again.
//!
//! The status that `plan` returns is written, with the version it was read at, before anything is done: a run is claimed
//! first, so that of two replicas one does it. It is claimed some seconds before it is due where that is possible; who made
//! such a claim and has not used it yet acts without another write. Of several jobs that are due together the last one
//! listed counts.

use jiff::{Timestamp, ToSpan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::activation::{CLAIM_AHEAD, Due, due, is_done};
use super::condition::{Synced, sync};
use super::job::Schedules;
use super::outcome::acted;
use super::{
    CronHorizontalPodAutoscalerSpec, CronHorizontalPodAutoscalerStatus, Floor, HPA_KIND,
    JobCondition, JobState, STARTING_DEADLINE_SECONDS, TargetNumbers, upcoming,
};
use crate::events::EventKind;

/// How often open windows are compared with their target.
const FLOOR_CHECK_SECONDS: i64 = 30;

/// Everything that is known at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'s> {
    /// What the user wants.
    pub spec: &'s CronHorizontalPodAutoscalerSpec,
    /// What its expressions say.
    pub schedules: &'s Schedules,
    /// What is.
    pub status: &'s CronHorizontalPodAutoscalerStatus,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// When the object was made.
    pub created: Timestamp,
    /// The moment.
    pub now: Timestamp,
    /// Which replica of the controller looks.
    pub holder: &'s str,
    /// The run that `holder` claimed ahead and has not begun. Whoever says so must say it no more once the run has begun: a
    /// status that is read late would show the claim again.
    pub ahead: Option<&'s Run>,
    /// The controller's zone.
    pub default_zone: &'s str,
}

/// An event on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// Whether something is wrong.
    pub kind: EventKind,
    /// The reason.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// A run that has been claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The job's name.
    pub job: String,
    /// Its identifier.
    pub job_id: String,
    /// The activation.
    pub scheduled: Timestamp,
    /// Replicas to set.
    pub size: i32,
}

/// What to do after the status has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Set the target's size.
    Scale(Run),
    /// The run is claimed and due soon: get ready, and tell the next plan of it.
    Prepare(Run),
    /// Keep the target at or above what open windows ask for.
    HoldFloor {
        /// What they ask for.
        floor: Floor,
        /// Windows that open with this, and their activations.
        opening: Vec<(String, Timestamp)>,
    },
    /// Give the target its numbers from before back.
    ReleaseFloor(Floor),
}

/// What follows from a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// To be written first, when it differs.
    pub status: CronHorizontalPodAutoscalerStatus,
    /// To be posted when the status is written.
    pub events: Vec<EventText>,
    /// To be done then; afterwards plan again.
    pub activity: Option<Activity>,
    /// When to look again if nothing changes before.
    pub wake: Option<Timestamp>,
}

/// Decides; `fresh_id` makes identifiers for jobs that are new.
pub fn plan(situation: &Situation<'_>, fresh_id: &mut dyn FnMut() -> String) -> Plan {
    let Situation { spec, now, .. } = *situation;
    let synced = sync(situation, fresh_id);
    let mut draft = Draft {
        situation,
        floor: situation.status.floor.clone(),
        wake: None,
        synced,
    };
    let (opening, floor_activity) = draft.windows();
    let run = draft.runs(floor_activity == FloorActivity::Release);
    let activity = match run {
        Some(run) => Some(Activity::Scale(run)),
        None => match (floor_activity, &draft.floor) {
            (FloorActivity::Hold, Some(floor)) => Some(Activity::HoldFloor {
                floor: floor.clone(),
                opening,
            }),
            (FloorActivity::Release, Some(floor)) => Some(Activity::ReleaseFloor(floor.clone())),
            _ => draft.claim_ahead().map(Activity::Prepare),
        },
    };
    draft.wake_for_runs();
    let Draft {
        floor,
        wake,
        synced,
        ..
    } = draft;
    // A run that is claimed is under way, also when it is not due yet: at its moment nothing in the status changes.
    let claims = synced.conditions.iter().filter_map(claimed_for);
    let next_runs = upcoming::of(&synced, spec, claims.fold(now, Timestamp::max));
    Plan {
        status: CronHorizontalPodAutoscalerStatus {
            scale_target_ref: Some(spec.scale_target_ref.clone()),
            exclude_dates: spec.exclude_dates.clone(),
            conditions: synced.conditions,
            observed_generation: situation.generation,
            next_runs,
            floor,
        },
        events: synced.events,
        activity,
        wake,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum FloorActivity {
    None,
    Hold,
    Release,
}

/// A plan in the making.
pub(super) struct Draft<'d, 's> {
    pub(super) situation: &'d Situation<'s>,
    pub(super) synced: Synced,
    pub(super) floor: Option<Floor>,
    wake: Option<Timestamp>,
}

impl Draft<'_, '_> {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Which windows are open decides what is held; nothing depends on having seen them open.
    fn windows(&mut self) -> (Vec<(String, Timestamp)>, FloorActivity) {
        let Situation { spec, now, .. } = *self.situation;
        let mut open = Vec::new();
        let mut opening = Vec::new();
        for (index, job) in self.synced.jobs.iter().enumerate() {
            let Some(job) = job.as_ref().filter(|job| job.is_window()) else {
                continue;
            };
            let condition = &self.synced.conditions[index];
            if condition.suspended {
                continue;
            }
            let Some((opened, closes)) = job.open_window(now, &self.synced.exclusions) else {
                continue;
            };
            let acted = condition.last_schedule_time.as_ref().map(|at| at.0);
            if is_done(job, condition) && acted != Some(opened) {
                continue;
            }
            if acted != Some(opened) || condition.state == JobState::Failed {
                opening.push((condition.name.clone(), opened));
            }
            open.push((index, closes));
        }
        for (_, closes) in &open {
            closes.iter().for_each(|closes| self.wake_at(*closes));
        }
        let moved = (self.floor.as_ref())
            .is_some_and(|floor| floor.scale_target_ref != spec.scale_target_ref);
        if open.is_empty() || moved {
            return match self.floor {
                Some(_) => (Vec::new(), FloorActivity::Release),
                None => (Vec::new(), FloorActivity::None),
            };
        }
        let floor = self.floor.get_or_insert_with(|| Floor {
            scale_target_ref: spec.scale_target_ref.clone(),
            ..Floor::default()
        });
        let jobs = open.iter().map(|(index, _)| &spec.jobs[*index]);
        floor.target_size = jobs.clone().map(|job| job.target_size).max().unwrap_or(0);
        floor.jobs = jobs.map(|job| job.name.clone()).collect();
        if let Ok(check) = now.checked_add(FLOOR_CHECK_SECONDS.seconds()) {
            self.wake_at(check);
        }
        (opening, FloorActivity::Hold)
    }

    /// `closing`: what the floor holds is about to be given back.
    fn runs(&mut self, closing: bool) -> Option<Run> {
        let Situation { spec, now, .. } = *self.situation;
        let deadline = spec.starting_deadline_seconds;
        let deadline = deadline.unwrap_or(STARTING_DEADLINE_SECONDS);
        let mut runs = Vec::new();
        for (index, job) in self.synced.jobs.iter().enumerate() {
            let Some(job) = job else { continue };
            let condition = &mut self.synced.conditions[index];
            let exclusions = &self.synced.exclusions;
            match due(
                job,
                condition,
                exclusions,
                self.situation.holder,
                deadline,
                now,
            ) {
                Due::No => {}
                Due::Held(free) => {
                    self.wake = Some(self.wake.map_or(free, |wake| wake.min(free)));
                }
                Due::Run { scheduled, missed } => runs.push((scheduled, index, missed)),
                Due::Excluded {
                    scheduled,
                    expression,
                } => {
                    let why =
                        format!("skip scaling activity,because of excludeDate ({expression}).");
                    self.synced
                        .events
                        .push(skip(condition, scheduled, &why, now));
                }
                Due::TooLate { scheduled, missed } => {
                    self.synced
                        .events
                        .push(too_late(condition, scheduled, missed, now));
                }
            }
        }
        runs.sort_unstable();
        let (scheduled, index, missed) = runs.pop()?;
        let winner = self.synced.conditions[index].name.clone();
        for (earlier, index, _) in runs {
            let why =
                format!("skip scaling activity,because of job {winner} which is due as well.");
            let condition = &mut self.synced.conditions[index];
            self.synced.events.push(skip(condition, earlier, &why, now));
        }
        let mut run = if self.is_claimed_ahead(index, scheduled) {
            self.run_of(index, scheduled)
        } else {
            self.claim(index, scheduled, missed)
        };
        if let Some(floor) = self.floor.as_mut() {
            run.size = under_floor(floor, closing, run.size);
        }
        Some(run)
    }

    fn wake_for_runs(&mut self) {
        let Situation { now, holder, .. } = *self.situation;
        let may_claim_ahead = self.may_claim_ahead();
        for index in 0..self.synced.jobs.len() {
            let condition = &self.synced.conditions[index];
            let Some(job) = &self.synced.jobs[index] else {
                continue;
            };
            if condition.suspended || (is_done(job, condition) && !job.is_window()) {
                continue;
            }
            let pending = condition.pending.as_ref();
            let ours = pending.filter(|pending| pending.holder == holder);
            let claimed = ours.map(|pending| pending.schedule_time.0);
            let next = claimed
                .filter(|at| *at > now)
                .or_else(|| job.next_after(now));
            let early = next.and_then(|next| next.checked_sub(CLAIM_AHEAD).ok());
            let early = early.filter(|early| may_claim_ahead && *early > now);
            if let Some(wake) = early.or(next) {
                self.wake_at(wake);
            }
        }
    }
}

/// A job's size while windows are open: not below them, and what they restore follows the job.
fn under_floor(floor: &mut Floor, closing: bool, size: i32) -> i32 {
    if closing {
        // The job's number is newer than the one that would be restored.
        floor.saved.replicas = None;
        floor.saved.min_replicas = None;
        return size;
    }
    if size >= floor.target_size {
        floor.saved = TargetNumbers::default();
        floor.applied = TargetNumbers::default();
        return size;
    }
    if floor.scale_target_ref.kind == HPA_KIND {
        floor.saved.min_replicas = Some(size);
        floor.applied.min_replicas = Some(floor.target_size);
    } else {
        floor.saved.replicas = Some(size);
        floor.applied.replicas = Some(floor.target_size);
    }
    floor.target_size
}

fn claimed_for(condition: &JobCondition) -> Option<Timestamp> {
    let pending = condition.pending.as_ref()?;
    Some(pending.schedule_time.0)
}

/// A run that is not to be done, for a reason that is in order.
fn skip(
    condition: &mut JobCondition,
    scheduled: Timestamp,
    why: &str,
    now: Timestamp,
) -> EventText {
    acted(condition, scheduled);
    condition.pending = None;
    condition.state = JobState::Succeed;
    condition.last_probe_time = Some(Time(now));
    condition.message = super::outcome::succeeded(&condition.name, why);
    EventText {
        kind: EventKind::Normal,
        reason: JobState::Succeed.word(),
        message: condition.message.clone(),
    }
}

fn too_late(
    condition: &mut JobCondition,
    scheduled: Timestamp,
    missed: usize,
    now: Timestamp,
) -> EventText {
    condition.handled_until = Some(Time(scheduled));
    condition.pending = None;
    condition.state = JobState::Failed;
    condition.last_probe_time = Some(Time(now));
    condition.message = super::outcome::failed(&format!(
        "the run due at {scheduled} and {missed} before it were missed and are older than startingDeadlineSeconds"
    ));
    EventText {
        kind: EventKind::Warning,
        reason: "MissedRun",
        message: format!("cron hpa job {}: {}", condition.name, condition.message),
    }
}

//! The kind `CronHorizontalPodAutoscaler`: a number of replicas at a time of day, and what follows from it.
//!
//! Manifests, states, messages and events are those of the original controller. What it never had (zones, windows, pauses,
//! limits of validity, catching up) is in fields that its manifests do not use. Everything here is a plain function: the
//! moment, new identifiers and what targets look like come in as arguments; `plan` says what to write and to do.

mod activation;
mod claim;
mod condition;
mod crd;
mod floor;
mod job;
mod outcome;
mod plan;
mod target;
mod upcoming;

pub use crd::custom_resource_definition;
pub use floor::{FloorStep, TargetSize, hold, release};
pub use job::{CompiledJob, Exclusions, JobError, Schedules, compile_exclusions};
pub use outcome::{Outcome, floor_failed, floor_held, floor_released, give_back, record};
pub use plan::{Activity, EventText, Plan, Run, Situation, plan};
pub use target::{
    HPA_KIND, HpaSize, HpaStep, decide_hpa, group_of, restored_message, retries_exhausted,
    scaled_message, skipped_for_hpa,
};
pub use upcoming::{UPCOMING_MOST, upcoming};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Late runs are made up for up to this age when `spec.startingDeadlineSeconds` is not given.
pub const STARTING_DEADLINE_SECONDS: i64 = 3600;
/// The zone of schedules when neither the job, the object nor the controller's setting names one.
pub const DEFAULT_TIME_ZONE: &str = "UTC";

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.alibabacloud.com",
    version = "v1beta1",
    kind = "CronHorizontalPodAutoscaler",
    plural = "cronhorizontalpodautoscalers",
    shortname = "cronhpa",
    namespaced,
    status = "CronHorizontalPodAutoscalerStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct CronHorizontalPodAutoscalerSpec {
    /// What is scaled: anything with `/scale`, or a HorizontalPodAutoscaler, in the same namespace.
    pub scale_target_ref: ScaleTargetRef,
    /// When, and to what.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// Days on which no job runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_dates: Vec<String>,
    /// IANA zone of jobs that name none; absent: the controller's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Nothing runs while this is true.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// How late a run may still be made up for; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
}

/// The object to scale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// Only its group is looked at.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, in the same namespace.
    pub name: String,
}

/// One number of replicas and when it is due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Unique in the object.
    pub name: String,
    /// A cron expression; see [`crate::cron`].
    pub schedule: String,
    /// Replicas to set.
    pub target_size: i32,
    /// Run a single time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub run_once: bool,
    /// IANA zone of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// This job does not run while this is true.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// Activations before this moment do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_after: Option<String>,
    /// Activations from this moment on do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_before: Option<String>,
    /// Makes the job a window: from `schedule` to the next activation of this, `targetSize` is the least number of
    /// replicas, and afterwards what was before is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronHorizontalPodAutoscalerStatus {
    /// The target that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_target_ref: Option<ScaleTargetRef>,
    /// The excluded days that the conditions are about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_dates: Vec<String>,
    /// One for each job, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<JobCondition>,
    /// Generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The next runs over all jobs, soonest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_runs: Vec<NextRun>,
    /// What the windows that are open now hold, and what to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Taken up, not run since.
    #[default]
    Submitted,
    /// The last run went well, or was skipped for a reason.
    Succeed,
    /// The last run did not go well, or the job cannot be read.
    Failed,
}

impl JobState {
    /// The word in the status, which is also the reason of the event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Submitted => "Submitted",
            Self::Succeed => "Succeed",
            Self::Failed => "Failed",
        }
    }
}

/// What is known of one job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobCondition {
    /// The job's name.
    pub name: String,
    /// Changes with the job.
    #[serde(default)]
    pub job_id: String,
    /// As in the spec.
    #[serde(default)]
    pub schedule: String,
    /// As in the spec.
    #[serde(default)]
    pub target_size: i32,
    /// As in the spec.
    #[serde(default)]
    pub run_once: bool,
    /// Where the job stands.
    #[serde(default)]
    pub state: JobState,
    /// When the state was last looked at.
    #[serde(default)]
    pub last_probe_time: Option<Time>,
    /// What happened last.
    #[serde(default)]
    pub message: String,
    /// Zone the schedule is read in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// As in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// As in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_after: Option<String>,
    /// As in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_before: Option<String>,
    /// The job, or the whole object, is suspended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspended: bool,
    /// Since when the job is as it is; `@every` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_time: Option<Time>,
    /// The last activation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// Activations up to this moment are dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_until: Option<Time>,
    /// A run that somebody is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingRun>,
}

impl JobCondition {
    /// Whether the last run was missed, and too late to be made up for.
    pub fn has_missed_its_run(&self) -> bool {
        let acted = self.last_schedule_time.as_ref().map(|at| at.0);
        let handled = self.handled_until.as_ref().map(|at| at.0);
        self.state == JobState::Failed && acted.is_some() && handled > acted
    }
}

/// A run that one replica of the controller has taken for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingRun {
    /// The activation.
    pub schedule_time: Time,
    /// Which replica.
    pub holder: String,
    /// When it took the run, or when the run is due if it was taken before; after a while another may take it over.
    pub since: MicroTime,
}

/// A run to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextRun {
    /// The job.
    pub job: String,
    /// When.
    pub time: Time,
    /// The same in the job's zone.
    pub local_time: String,
    /// To how many replicas; absent when a window ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_size: Option<i32>,
}

/// What open windows hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// The target it was put under.
    pub scale_target_ref: ScaleTargetRef,
    /// The greatest `targetSize` of the open windows.
    pub target_size: i32,
    /// Their jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<String>,
    /// What will be restored.
    #[serde(default)]
    pub saved: TargetNumbers,
    /// What was written instead.
    #[serde(default)]
    pub applied: TargetNumbers,
}

/// Numbers of a target: `replicas`, or those of a HorizontalPodAutoscaler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetNumbers {
    /// Of anything with `/scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Of a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// Of a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
}

fn is_false(value: &bool) -> bool {
    !value
}

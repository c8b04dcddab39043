//! The autoscaler's next status, from the previous one, the decision and how the scale call went.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{ConditionText, Decision, EventText};

/// How the scale call of a decision went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was none to make.
    Unneeded,
    /// It went through.
    Scaled,
    /// It failed; the error's sentence.
    Failed(String),
}

/// The events that follow from the scale call.
pub fn scale_outcome_events(decision: &Decision, outcome: &Outcome) -> Vec<EventText> {
    let Some(rescale) = &decision.rescale else {
        return Vec::new();
    };
    let size = format!("New size: {}; reason: {}", rescale.replicas, rescale.reason);
    match outcome {
        Outcome::Unneeded => Vec::new(),
        Outcome::Scaled => vec![EventText {
            is_warning: false,
            reason: "SuccessfulRescale",
            message: size,
        }],
        Outcome::Failed(error) => vec![EventText::warning(
            "FailedRescale",
            format!("{size}; error: {error}"),
        )],
    }
}

/// The status after a decision.
pub fn next_status(
    previous: &HorizontalPodAutoscalerStatus,
    spec_replicas: i32,
    decision: &Decision,
    outcome: &Outcome,
    now: Timestamp,
) -> HorizontalPodAutoscalerStatus {
    let mut status = HorizontalPodAutoscalerStatus {
        current_replicas: Some(spec_replicas),
        desired_replicas: previous.desired_replicas,
        current_metrics: decision.metrics.clone(),
        conditions: previous.conditions.clone(),
        last_scale_time: previous.last_scale_time.clone(),
        observed_generation: previous.observed_generation,
    };
    for condition in &decision.conditions {
        set_condition(&mut status, condition, now);
    }
    match (&decision.rescale, outcome) {
        (Some(rescale), Outcome::Scaled) => {
            let message = format!(
                "the HPA controller was able to update the target scale to {}",
                rescale.replicas
            );
            able_to_scale(&mut status, true, "SucceededRescale", message, now);
            mark_zero(&mut status, spec_replicas, rescale.replicas, now);
            status.desired_replicas = rescale.replicas;
            status.last_scale_time = Some(Time(whole_seconds(now)));
        }
        (_, Outcome::Failed(error)) => {
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            able_to_scale(&mut status, false, "FailedUpdateScale", message, now);
        }
        _ if !decision.has_failed => status.desired_replicas = spec_replicas,
        _ => {}
    }
    status
}

/// The status and event when the target's scale could not be read.
pub fn scale_read_failed(
    previous: &HorizontalPodAutoscalerStatus,
    error: &str,
    now: Timestamp,
) -> (HorizontalPodAutoscalerStatus, EventText) {
    let mut status = previous.clone();
    let message =
        format!("the HPA controller was unable to get the target's current scale: {error}");
    able_to_scale(&mut status, false, "FailedGetScale", message, now);
    (status, EventText::warning("FailedGetScale", error))
}

/// Remembers on the object that the autoscaler itself put the target to sleep, so that it may wake it.
fn mark_zero(status: &mut HorizontalPodAutoscalerStatus, from: i32, to: i32, now: Timestamp) {
    let (is_true, reason, message) = match (from, to) {
        (_, 0) => (
            true,
            "ScaledToZero",
            "the HPA controller scaled the workload to zero",
        ),
        (0, _) => (
            false,
            "ScaledFromZero",
            "the HPA controller scaled the workload from zero",
        ),
        _ => return,
    };
    let wanted = ConditionText {
        kind: "ScaledToZero",
        is_true,
        reason,
        message: message.to_owned(),
    };
    set_condition(status, &wanted, now);
}

fn able_to_scale(
    status: &mut HorizontalPodAutoscalerStatus,
    is_true: bool,
    reason: &'static str,
    message: String,
    now: Timestamp,
) {
    set_condition(
        status,
        &ConditionText {
            kind: "AbleToScale",
            is_true,
            reason,
            message,
        },
        now,
    );
}

fn set_condition(
    status: &mut HorizontalPodAutoscalerStatus,
    wanted: &ConditionText,
    now: Timestamp,
) {
    let text = if wanted.is_true { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions
        .iter()
        .position(|known| known.type_ == wanted.kind)
        .unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition {
                type_: wanted.kind.to_owned(),
                ..Default::default()
            });
            conditions.len() - 1
        });
    let condition = &mut conditions[index];
    if condition.status != text {
        condition.last_transition_time = Some(Time(whole_seconds(now)));
    }
    text.clone_into(&mut condition.status);
    condition.reason = Some(wanted.reason.to_owned());
    condition.message = Some(wanted.message.clone());
}

/// Kubernetes' times have whole seconds.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

//! One cycle of one autoscaler: combines the proposals of all metrics, applies the limits and says what to do.
//! Neither scales nor writes: the caller does, and tells [`super::status::next_status`] how it went.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricStatus,
};

use super::limits::{Limits, Memory};
use super::proposal::{Circumstances, PodView, Samples, Tolerances};
use super::source::{Failure, compute};
use crate::quantity::millis;

/// The controller's settings, with upstream's defaults.
#[derive(Clone, Debug)]
pub struct Flags {
    /// The scale-down window of autoscalers that name none.
    pub downscale_stabilization: SignedDuration,
    /// How long after its start a pod's CPU counts only once it is ready.
    pub cpu_initialization_period: SignedDuration,
    /// How long after its start an unready pod is taken as never having been ready.
    pub initial_readiness_delay: SignedDuration,
    /// How far a ratio may be off 1 before anything happens.
    pub tolerance: f64,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            downscale_stabilization: SignedDuration::from_secs(300),
            cpu_initialization_period: SignedDuration::from_secs(300),
            initial_readiness_delay: SignedDuration::from_secs(30),
            tolerance: 0.1,
        }
    }
}

/// Why the target's selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorFault {
    /// The scale has none.
    Missing,
    /// It does not parse; the parser's sentence.
    Invalid(String),
    /// Several autoscalers select the same pods; the whole sentence.
    Ambiguous(String),
}

/// What the metrics API said of one metric.
#[derive(Clone, Debug)]
pub enum Reading {
    /// A value of each pod: Resource, ContainerResource and Pods metrics.
    PerPod(Samples),
    /// One value in thousandths: an Object metric, or the sum of an External metric's series.
    Whole(i64),
}

/// What one cycle saw.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The namespace of autoscaler and target.
    pub namespace: &'a str,
    /// The target's `spec.replicas`.
    pub spec_replicas: i32,
    /// The target's `status.replicas`.
    pub status_replicas: i32,
    /// Whether the autoscaler itself put the target to sleep; see [`is_scaled_to_zero`].
    pub is_scaled_to_zero: bool,
    /// Whether the selector can be used.
    pub selector: Result<(), SelectorFault>,
    /// The pods that it matches.
    pub pods: &'a [PodView],
    /// For each metric of the spec what was read, or the metrics client's sentence why nothing was.
    pub readings: Vec<Result<Reading, String>>,
}

/// An event to record on the autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// `Warning` or `Normal`.
    pub is_warning: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

impl EventText {
    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        EventText {
            is_warning: true,
            reason,
            message: message.into(),
        }
    }
}

/// A condition to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionText {
    /// The condition's type.
    pub kind: &'static str,
    /// Whether it is `True`.
    pub is_true: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

/// A scale call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    /// The new `spec.replicas`.
    pub replicas: i32,
    /// Why, as the event says it.
    pub reason: String,
}

/// What one cycle came to.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The scale call to make, if any.
    pub rescale: Option<Rescale>,
    /// Whether no count could be computed; the status then keeps its desired count.
    pub has_failed: bool,
    /// `status.currentMetrics`, when metrics were looked at.
    pub metrics: Option<Vec<MetricStatus>>,
    /// The conditions to set, in order.
    pub conditions: Vec<ConditionText>,
    /// The events to record, in order.
    pub events: Vec<EventText>,
}

impl Decision {
    fn condition(
        &mut self,
        kind: &'static str,
        is_true: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.conditions.push(ConditionText {
            kind,
            is_true,
            reason,
            message: message.into(),
        });
    }

    fn fail(&mut self, error: String) {
        self.has_failed = true;
        self.events
            .push(EventText::warning("FailedComputeMetricsReplicas", error));
    }
}

/// Whether a cycle at this size looks at metrics at all.
pub fn needs_metrics(spec: &HorizontalPodAutoscalerSpec, spec_replicas: i32) -> bool {
    (spec.min_replicas.unwrap_or(1)..=spec.max_replicas).contains(&spec_replicas)
}

/// Whether the autoscaler put its target to sleep itself, so that it may wake it whatever its minimum is now.
pub fn is_scaled_to_zero(status: &HorizontalPodAutoscalerStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    let mut ours = conditions.filter(|condition| condition.type_ == "ScaledToZero");
    ours.any(|condition| condition.status == "True")
}

/// Decides one cycle.
pub fn decide(
    spec: &HorizontalPodAutoscalerSpec,
    observed: &Observed<'_>,
    memory: &mut Memory,
    flags: &Flags,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    let (current, min) = (observed.spec_replicas, spec.min_replicas.unwrap_or(1));
    decision.condition(
        "AbleToScale",
        true,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
    );
    memory.see_initial(current, now);
    let rescale = |replicas, reason: &str| {
        Some(Rescale {
            replicas,
            reason: reason.to_owned(),
        })
    };
    if current == 0 && min != 0 && !observed.is_scaled_to_zero {
        decision.condition(
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        );
    } else if current > spec.max_replicas {
        decision.rescale = rescale(
            spec.max_replicas,
            "Current number of replicas above Spec.MaxReplicas",
        );
    } else if current < min {
        decision.rescale = rescale(min, "Current number of replicas below Spec.MinReplicas");
    } else if let Some((proposed, metric)) = combine(spec, observed, flags, now, &mut decision) {
        let reason = match proposed.cmp(&current) {
            Ordering::Greater => format!("{metric} above target"),
            Ordering::Less => "All metrics below target".to_owned(),
            // Only an older recommendation asks for another size.
            Ordering::Equal => String::new(),
        };
        let limits = Limits {
            current,
            min,
            max: spec.max_replicas,
            behavior: spec.behavior.as_ref(),
            downscale_stabilization: flags.downscale_stabilization,
            now,
        };
        let normalized = memory.normalize(proposed, limits);
        let (is_true, reason_able, message) = normalized.able_to_scale;
        decision.condition("AbleToScale", is_true, reason_able, message);
        let (is_true, reason_limited, message) = normalized.limited;
        decision.condition("ScalingLimited", is_true, reason_limited, message);
        if normalized.replicas != current {
            decision.rescale = Some(Rescale {
                replicas: normalized.replicas,
                reason,
            });
        }
    }
    decision
}

/// The largest proposal with the name of its metric; `None` when there is no count to act on.
fn combine(
    spec: &HorizontalPodAutoscalerSpec,
    observed: &Observed<'_>,
    flags: &Flags,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<(i32, String)> {
    if let Err(fault) = &observed.selector {
        refuse_selector(fault, decision);
        return None;
    }
    let around = Circumstances {
        namespace: observed.namespace,
        current_replicas: observed.spec_replicas,
        status_replicas: observed.status_replicas,
        pods: observed.pods,
        tolerances: tolerances(spec, flags),
        flags,
        now,
    };
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let mut statuses = vec![MetricStatus::default(); metrics.len()];
    let mut best: Option<(i32, String)> = None;
    let mut first_failure: Option<Failure> = None;
    let mut failures = 0;
    for (index, metric) in metrics.iter().enumerate() {
        match compute(metric, observed.readings.get(index), around) {
            Ok(computed) => {
                statuses[index] = computed.status;
                // Of several that propose none at all the last one is named, as upstream.
                let is_more = |most: i32| most == 0 || computed.replicas > most;
                if best.as_ref().is_none_or(|(most, _)| is_more(*most)) {
                    best = Some((computed.replicas, computed.name));
                }
            }
            Err(failure) => {
                failures += 1;
                decision
                    .events
                    .push(EventText::warning(failure.reason, failure.message.clone()));
                first_failure.get_or_insert(failure);
            }
        }
    }
    decision.metrics = Some(statuses);
    let shrinks = best
        .as_ref()
        .is_none_or(|(replicas, _)| *replicas < observed.spec_replicas);
    if let Some(failure) = first_failure.filter(|_| failures == metrics.len() || shrinks) {
        let message = format!(
            "the HPA was unable to compute the replica count: {}",
            failure.message
        );
        decision.condition("ScalingActive", false, failure.reason, message);
        decision.fail(format!(
            "invalid metrics ({failures} invalid out of {}), first error is: {}",
            metrics.len(),
            failure.whole
        ));
        return None;
    }
    if let Some((_, name)) = &best {
        let message =
            format!("the HPA was able to successfully calculate a replica count from {name}");
        decision.condition("ScalingActive", true, "ValidMetricFound", message);
    }
    best
}

fn refuse_selector(fault: &SelectorFault, decision: &mut Decision) {
    let (event_reason, reason, event, message) = match fault {
        SelectorFault::Missing => (
            "SelectorRequired",
            "InvalidSelector",
            "selector is required".to_owned(),
            "the HPA target's scale is missing a selector".to_owned(),
        ),
        SelectorFault::Invalid(error) => {
            let text = format!(
                "couldn't convert selector into a corresponding internal selector object: {error}"
            );
            ("InvalidSelector", "InvalidSelector", text.clone(), text)
        }
        SelectorFault::Ambiguous(text) => (
            "AmbiguousSelector",
            "AmbiguousSelector",
            text.clone(),
            text.clone(),
        ),
    };
    decision
        .events
        .push(EventText::warning(event_reason, event.clone()));
    decision.condition("ScalingActive", false, reason, message);
    decision.fail(event);
}

fn tolerances(spec: &HorizontalPodAutoscalerSpec, flags: &Flags) -> Tolerances {
    let behavior = spec.behavior.as_ref();
    let given = |rules: Option<&HPAScalingRules>| {
        rules
            .and_then(|rules| rules.tolerance.as_ref())
            .and_then(|quantity| millis(&quantity.0).ok())
            .map_or(flags.tolerance, |milli| milli as f64 / 1000.0)
    };
    Tolerances {
        down: given(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        up: given(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
    }
}

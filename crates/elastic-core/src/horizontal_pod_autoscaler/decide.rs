//! One cycle of one autoscaler: combines the proposals of all metrics, applies the limits and says what to do.
//! Neither scales nor writes: the caller does, and tells [`super::status::next_status`] how it went.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::limits::{Limits, Memory};
use super::proposal::{
    Circumstances, Measured, PodView, Proposal, Samples, Tolerances, Wanted, propose,
};
use super::quantity::{format_binary, format_decimal};
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

/// What one cycle saw.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The target's `spec.replicas`.
    pub spec_replicas: i32,
    /// Whether the selector can be used.
    pub selector: Result<(), SelectorFault>,
    /// The pods that it matches.
    pub pods: &'a [PodView],
    /// For each metric of the spec, its samples or the sentence why there are none.
    pub readings: Vec<Result<Samples, String>>,
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
    let min = spec.min_replicas.unwrap_or(1);
    !(spec_replicas == 0 && min != 0) && (min..=spec.max_replicas).contains(&spec_replicas)
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
    if current == 0 && min != 0 {
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
        let reason = if proposed > current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
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
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let mut statuses = vec![MetricStatus::default(); metrics.len()];
    let mut best: Option<(i32, String)> = None;
    let mut first_failure: Option<Failure> = None;
    let mut failures = 0;
    for (index, metric) in metrics.iter().enumerate() {
        let reading = observed
            .readings
            .get(index)
            .cloned()
            .unwrap_or_else(|| Err("no reading was taken".to_owned()));
        match one_metric(spec, metric, reading, observed, flags, now) {
            Ok((replicas, name, status)) => {
                statuses[index] = status;
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
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
            "invalid metrics ({failures} invalid out of {}), first error is: failed to get {} value: {}",
            metrics.len(),
            failure.what,
            failure.message
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

struct Failure {
    reason: &'static str,
    what: String,
    message: String,
}

fn one_metric(
    spec: &HorizontalPodAutoscalerSpec,
    metric: &MetricSpec,
    reading: Result<Samples, String>,
    observed: &Observed<'_>,
    flags: &Flags,
    now: Timestamp,
) -> Result<(i32, String, MetricStatus), Failure> {
    let Some(source) = Source::of(metric) else {
        let message = format!("unknown metric source type \"{}\"", metric.type_);
        return Err(Failure {
            reason: "InvalidMetricSourceType",
            what: "metric".to_owned(),
            message,
        });
    };
    let around = Circumstances {
        current_replicas: observed.spec_replicas,
        pods: observed.pods,
        tolerances: tolerances(spec, flags),
        flags,
        now,
    };
    let computed = wanted(source.target()).and_then(|wanted| {
        reading
            .and_then(|samples| propose(source.measured(), wanted, &samples, around))
            .map_err(|error| source.explain(wanted, &error))
            .map(|proposal| (wanted, proposal))
    });
    match computed {
        Ok((wanted, proposal)) => Ok((
            proposal.replicas,
            source.name(wanted),
            source.status(&proposal),
        )),
        Err(message) => Err(Failure {
            reason: source.failure_reason(),
            what: source.failed_what(),
            message,
        }),
    }
}

fn tolerances(spec: &HorizontalPodAutoscalerSpec, flags: &Flags) -> Tolerances {
    let behavior = spec.behavior.as_ref();
    let given = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
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

fn wanted(target: &MetricTarget) -> Result<Wanted, String> {
    if let Some(quantity) = &target.average_value {
        let milli = millis(&quantity.0).ok().filter(|milli| *milli > 0);
        return milli
            .map(Wanted::AverageMilli)
            .ok_or_else(|| format!("target value {:?} is unusable", quantity.0));
    }
    let percent = target.average_utilization.filter(|percent| *percent > 0);
    percent
        .map(Wanted::UtilizationPercent)
        .ok_or_else(|| "invalid resource metric source: neither an average utilization nor an average value target was set".to_owned())
}

/// A metric source this module knows, with the texts that go with it.
#[derive(Clone, Copy)]
enum Source<'a> {
    Resource(&'a str, &'a MetricTarget),
    Container(&'a str, &'a str, &'a MetricTarget),
    Pods(&'a MetricIdentifier, &'a MetricTarget),
}

impl<'a> Source<'a> {
    fn of(metric: &'a MetricSpec) -> Option<Self> {
        match metric.type_.as_str() {
            "Resource" => metric
                .resource
                .as_ref()
                .map(|source| Source::Resource(&source.name, &source.target)),
            "ContainerResource" => metric
                .container_resource
                .as_ref()
                .map(|source| Source::Container(&source.name, &source.container, &source.target)),
            "Pods" => metric
                .pods
                .as_ref()
                .map(|source| Source::Pods(&source.metric, &source.target)),
            _ => None,
        }
    }

    fn target(self) -> &'a MetricTarget {
        match self {
            Source::Resource(_, target)
            | Source::Container(_, _, target)
            | Source::Pods(_, target) => target,
        }
    }

    fn measured(self) -> Measured<'a> {
        match self {
            Source::Resource(resource, _) => Measured {
                resource,
                container: None,
            },
            Source::Container(resource, container, _) => Measured {
                resource,
                container: Some(container),
            },
            Source::Pods(..) => Measured {
                resource: "",
                container: None,
            },
        }
    }

    fn failure_reason(self) -> &'static str {
        match self {
            Source::Resource(..) => "FailedGetResourceMetric",
            Source::Container(..) => "FailedGetContainerResourceMetric",
            Source::Pods(..) => "FailedGetPodsMetric",
        }
    }

    fn failed_what(self) -> String {
        match self {
            Source::Resource(resource, _) => format!("{resource} resource metric"),
            Source::Container(_, container, _) => format!("{container} container metric"),
            Source::Pods(..) => "pods metric".to_owned(),
        }
    }

    fn explain(self, wanted: Wanted, error: &str) -> String {
        match (self, wanted) {
            (Source::Pods(..), _) => error.to_owned(),
            (
                Source::Resource(resource, _) | Source::Container(resource, _, _),
                Wanted::UtilizationPercent(_),
            ) => {
                format!("failed to get {resource} utilization: {error}")
            }
            (
                Source::Resource(resource, _) | Source::Container(resource, _, _),
                Wanted::AverageMilli(_),
            ) => {
                format!("failed to get {resource} usage: {error}")
            }
        }
    }

    /// The metric's name in conditions and events.
    fn name(self, wanted: Wanted) -> String {
        let percentage = match wanted {
            Wanted::UtilizationPercent(_) => " utilization (percentage of request)",
            Wanted::AverageMilli(_) => "",
        };
        match self {
            Source::Resource(resource, _) => format!("{resource} resource{percentage}"),
            Source::Container(resource, _, _) => {
                format!("{resource} container resource{percentage}")
            }
            Source::Pods(metric, _) => format!("pods metric {}", metric.name),
        }
    }

    fn status(self, proposal: &Proposal) -> MetricStatus {
        let text = match self.measured().resource {
            "memory" => format_binary(proposal.average_milli),
            _ => format_decimal(proposal.average_milli),
        };
        let current = MetricValueStatus {
            average_utilization: proposal.utilization_percent,
            average_value: Some(Quantity(text)),
            value: None,
        };
        let mut status = MetricStatus::default();
        match self {
            Source::Resource(name, _) => {
                status.type_ = "Resource".to_owned();
                status.resource = Some(ResourceMetricStatus {
                    name: name.to_owned(),
                    current,
                });
            }
            Source::Container(name, container, _) => {
                status.type_ = "ContainerResource".to_owned();
                let (name, container) = (name.to_owned(), container.to_owned());
                status.container_resource = Some(ContainerResourceMetricStatus {
                    name,
                    container,
                    current,
                });
            }
            Source::Pods(metric, _) => {
                status.type_ = "Pods".to_owned();
                status.pods = Some(PodsMetricStatus {
                    metric: metric.clone(),
                    current,
                });
            }
        }
        status
    }
}

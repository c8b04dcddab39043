//! The five kinds of metric sources: what each proposes, and every text that goes with it.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, ExternalMetricSource,
    ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource, PodsMetricStatus,
    ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::decide::Reading;
use super::proposal::{Circumstances, Measured, Proposal, Samples, Wanted, propose};
use super::quantity::{format_binary, format_decimal};
use super::whole::{by_average, by_value};
use crate::quantity::millis;

/// What one metric came to.
pub(super) struct Computed {
    pub(super) replicas: i32,
    /// The metric's name in conditions and events.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why one metric came to nothing.
pub(super) struct Failure {
    pub(super) reason: &'static str,
    /// As the metric's own event and the condition say it.
    pub(super) message: String,
    /// As the event about all metrics quotes it.
    pub(super) whole: String,
}

/// A source's sentence, and what stands between it and the metric's kind when all metrics are summed up.
struct Trouble {
    message: String,
    between: String,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Trouble {
            message,
            between: String::new(),
        }
    }
}

type Read<'a> = Result<&'a Reading, &'a str>;

/// Computes one metric.
pub(super) fn compute(
    metric: &MetricSpec,
    reading: Option<&Result<Reading, String>>,
    around: Circumstances<'_>,
) -> Result<Computed, Failure> {
    let read: Read<'_> = match reading {
        Some(reading) => reading.as_ref().map_err(String::as_str),
        None => Err("no reading was taken"),
    };
    let (computed, reason, what) = match metric.type_.as_str() {
        "Resource" => metric.resource.as_ref().map(|source| {
            let what = format!("{} resource metric", source.name);
            (
                resource(source, read, around),
                "FailedGetResourceMetric",
                what,
            )
        }),
        "ContainerResource" => metric.container_resource.as_ref().map(|source| {
            let what = format!("{} container metric", source.container);
            let computed = container(source, read, around);
            (computed, "FailedGetContainerResourceMetric", what)
        }),
        "Pods" => metric.pods.as_ref().map(|source| {
            let computed = pods(source, read, around).map_err(Trouble::from);
            (computed, "FailedGetPodsMetric", "pods metric".to_owned())
        }),
        "Object" => metric.object.as_ref().map(|source| {
            let computed = object(source, read, around);
            (
                computed,
                "FailedGetObjectMetric",
                "object metric".to_owned(),
            )
        }),
        "External" => metric.external.as_ref().map(|source| {
            let what = format!("{} external metric", source.metric.name);
            (
                external(source, read, around),
                "FailedGetExternalMetric",
                what,
            )
        }),
        _ => None,
    }
    .ok_or_else(|| unknown(metric))?;
    computed.map_err(|Trouble { message, between }| Failure {
        reason,
        whole: format!("failed to get {what} value: {between}{message}"),
        message,
    })
}

fn unknown(metric: &MetricSpec) -> Failure {
    let message = format!("unknown metric source type \"{}\"", metric.type_);
    Failure {
        reason: "InvalidMetricSourceType",
        whole: message.clone(),
        message,
    }
}

fn per_pod(reading: &Reading) -> Result<&Samples, &str> {
    match reading {
        Reading::PerPod(samples) => Ok(samples),
        Reading::Whole(_) => Err("the metrics API answered for the whole instead of each pod"),
    }
}

fn whole(reading: &Reading) -> Result<i64, &str> {
    match reading {
        Reading::Whole(milli) => Ok(*milli),
        Reading::PerPod(_) => Err("the metrics API answered for each pod instead of the whole"),
    }
}

fn target_milli(quantity: &Quantity) -> Result<i64, String> {
    let milli = millis(&quantity.0).ok().filter(|milli| *milli > 0);
    milli.ok_or_else(|| format!("target value {:?} is unusable", quantity.0))
}

/// The proposal of a resource, with or without a container, and whether it is a utilization.
fn of_resource(
    measured: Measured<'_>,
    target: &MetricTarget,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<(Proposal, bool), String> {
    let resource = measured.resource;
    let (wanted, kind) = if let Some(quantity) = &target.average_value {
        (Wanted::AverageMilli(target_milli(quantity)?), "usage")
    } else if let Some(percent) = target.average_utilization.filter(|percent| *percent > 0) {
        (Wanted::UtilizationPercent(percent), "utilization")
    } else {
        return Err("invalid resource metric source: neither an average utilization nor an average value target was set".to_owned());
    };
    let samples = read
        .and_then(per_pod)
        .map_err(|error| format!("unable to get metrics for resource {resource}: {error}"));
    samples
        .and_then(|samples| propose(measured, wanted, samples, around))
        .map(|proposal| (proposal, matches!(wanted, Wanted::UtilizationPercent(_))))
        .map_err(|error| format!("failed to get {resource} {kind}: {error}"))
}

fn resource_value(resource: &str, proposal: &Proposal) -> MetricValueStatus {
    let text = match resource {
        "memory" => format_binary(proposal.average_milli),
        _ => format_decimal(proposal.average_milli),
    };
    MetricValueStatus {
        average_utilization: proposal.utilization_percent,
        average_value: Some(Quantity(text)),
        value: None,
    }
}

fn resource(
    source: &ResourceMetricSource,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<Computed, Trouble> {
    let measured = Measured {
        resource: &source.name,
        container: None,
    };
    let (proposal, is_utilization) = of_resource(measured, &source.target, read, around)?;
    let name = match is_utilization {
        true => format!(
            "{} resource utilization (percentage of request)",
            source.name
        ),
        false => format!("{} resource", source.name),
    };
    let status = ResourceMetricStatus {
        name: source.name.clone(),
        current: resource_value(&source.name, &proposal),
    };
    Ok(Computed {
        replicas: proposal.replicas,
        name,
        status: MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(status),
            ..MetricStatus::default()
        },
    })
}

fn container(
    source: &ContainerResourceMetricSource,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<Computed, Trouble> {
    let measured = Measured {
        resource: &source.name,
        container: Some(&source.container),
    };
    let (proposal, is_utilization) = of_resource(measured, &source.target, read, around)?;
    let name = match is_utilization {
        true => format!(
            "{} container resource utilization (percentage of request)",
            source.name
        ),
        false => format!("{} resource", source.name),
    };
    let status = ContainerResourceMetricStatus {
        name: source.name.clone(),
        container: source.container.clone(),
        current: resource_value(&source.name, &proposal),
    };
    Ok(Computed {
        replicas: proposal.replicas,
        name,
        status: MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(status),
            ..MetricStatus::default()
        },
    })
}

fn pods(
    source: &PodsMetricSource,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<Computed, String> {
    let name = &source.metric.name;
    let quantity = source.target.average_value.as_ref();
    let quantity = quantity.ok_or("invalid pods metric source: no average value target was set")?;
    let wanted = Wanted::AverageMilli(target_milli(quantity)?);
    let samples = read
        .and_then(per_pod)
        .map_err(|error| format!("unable to get metric {name}: {error}"))?;
    let measured = Measured {
        resource: "",
        container: None,
    };
    let proposal = propose(measured, wanted, samples, around)?;
    let status = PodsMetricStatus {
        metric: source.metric.clone(),
        current: average(proposal.average_milli),
    };
    Ok(Computed {
        replicas: proposal.replicas,
        name: format!("pods metric {name}"),
        status: MetricStatus {
            type_: "Pods".to_owned(),
            pods: Some(status),
            ..MetricStatus::default()
        },
    })
}

fn average(milli: i64) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(Quantity(format_decimal(milli))),
        ..MetricValueStatus::default()
    }
}

fn value(milli: i64) -> MetricValueStatus {
    MetricValueStatus {
        value: Some(Quantity(format_decimal(milli))),
        ..MetricValueStatus::default()
    }
}

fn object(
    source: &ObjectMetricSource,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<Computed, Trouble> {
    let (metric, described) = (&source.metric, &source.described_object);
    let milli = read.and_then(whole).map_err(|error| {
        format!(
            "unable to get metric {}: {} on {} {}/{error}",
            metric.name, described.kind, around.namespace, described.name
        )
    });
    let target = &source.target;
    let (replicas, name, current) = match (
        target.type_.as_str(),
        &target.value,
        &target.average_value,
    ) {
        ("Value", Some(quantity), _) => {
            let (target, milli) = (target_milli(quantity)?, milli?);
            let name = format!("{} metric {}", described.kind, metric.name);
            (by_value(milli, target, around)?, name, value(milli))
        }
        ("AverageValue", _, Some(quantity)) => {
            let between = format!("failed to get {} object metric: ", metric.name);
            let milli = milli.map_err(|message| Trouble { message, between })?;
            let (replicas, mean) = by_average(milli, target_milli(quantity)?, around);
            (replicas, external_name(metric), average(mean))
        }
        _ => {
            return Err("invalid object metric source: neither a value target nor an average value target was set".to_owned().into());
        }
    };
    let status = ObjectMetricStatus {
        described_object: described.clone(),
        metric: metric.clone(),
        current,
    };
    Ok(Computed {
        replicas,
        name,
        status: MetricStatus {
            type_: "Object".to_owned(),
            object: Some(status),
            ..MetricStatus::default()
        },
    })
}

fn external(
    source: &ExternalMetricSource,
    read: Read<'_>,
    around: Circumstances<'_>,
) -> Result<Computed, Trouble> {
    let metric = &source.metric;
    let milli = read.and_then(whole).map_err(|error| {
        format!(
            "unable to get external metric {}/{}/{}: {error}",
            around.namespace,
            metric.name,
            printed(metric.selector.as_ref())
        )
    });
    let (replicas, current) = if let Some(quantity) = &source.target.average_value {
        let between = format!("failed to get {} external metric: ", metric.name);
        let milli = milli.map_err(|message| Trouble { message, between })?;
        let (replicas, mean) = by_average(milli, target_milli(quantity)?, around);
        (replicas, average(mean))
    } else if let Some(quantity) = &source.target.value {
        let between = || format!("failed to get external metric {}: ", metric.name);
        let trouble = |message| Trouble {
            message,
            between: between(),
        };
        let milli = milli.map_err(trouble)?;
        let replicas = by_value(milli, target_milli(quantity)?, around).map_err(trouble)?;
        (replicas, value(milli))
    } else {
        return Err("invalid external metric source: neither a value target nor an average value target was set".to_owned().into());
    };
    let status = ExternalMetricStatus {
        metric: metric.clone(),
        current,
    };
    Ok(Computed {
        replicas,
        name: external_name(metric),
        status: MetricStatus {
            type_: "External".to_owned(),
            external: Some(status),
            ..MetricStatus::default()
        },
    })
}

/// Upstream says the same of an Object's average.
fn external_name(metric: &MetricIdentifier) -> String {
    let selector = printed(metric.selector.as_ref());
    format!("external metric {}({selector})", metric.name)
}

/// A selector as upstream's messages show it.
fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let mut text = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    for (key, value) in selector.match_labels.iter().flatten() {
        text.push_str(&format!("{key}: {value},"));
    }
    text.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&one.key, &one.operator);
        text.push_str(&format!(
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
        ));
    }
    text.push_str("},}");
    text
}

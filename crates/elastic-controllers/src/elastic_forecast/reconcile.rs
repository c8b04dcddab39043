//! One pass over one ElasticForecast.

use elastic_core::ElasticForecast;
use elastic_core::forecast::{Grid, Policy, ScaleTarget, State, parse_quantity, plan, validate};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Api, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};

use super::Context;
use super::report::{Findings, Report};

/// Why a pass could not be ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForecastPassError {
    #[error("write the status of elastic forecast {name}")]
    Status {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
}

pub(super) async fn reconcile(
    forecast: &ElasticForecast,
    context: &Context,
) -> Result<(), ForecastPassError> {
    let now = Timestamp::now();
    let mut report = Report::new(forecast, now);
    if let Err(problem) = validate(&forecast.spec) {
        report.failed("Invalid", &problem);
        return report.publish(&context.client).await;
    }
    match context.histories.of(forecast, &context.client, now).await {
        Ok(history) => {
            let findings = find(forecast, context, &history, now).await;
            report.found(&history, &findings);
        }
        Err(problem) => report.failed("SourceFailed", &problem.to_string()),
    }
    report.publish(&context.client).await
}

async fn find(
    forecast: &ElasticForecast,
    context: &Context,
    history: &Grid,
    now: Timestamp,
) -> Findings {
    let spec = &forecast.spec;
    let (current, problem) = match &spec.target {
        None => (None, None),
        Some(target) => {
            let namespace = forecast.namespace().unwrap_or_default();
            match replicas_of(&context.client, &namespace, target).await {
                Ok(replicas) => (Some(replicas), None),
                Err(error) => {
                    let target = format!("{} {}", target.kind, target.name);
                    (
                        None,
                        Some(format!("the replicas of {target} cannot be read: {error}")),
                    )
                }
            }
        }
    };
    let policy = Policy {
        probability: f64::from(spec.quantile) / 100.0,
        startup_seconds: i64::from(spec.startup_seconds),
        capacity_per_replica: parse_quantity(&spec.capacity_per_replica).unwrap_or(f64::MAX),
        period: spec.period,
        min_replicas: spec.min_replicas,
        max_replicas: spec.max_replicas,
        bounds: spec.bounds.clone(),
    };
    let state = State {
        history,
        current_replicas: current,
    };
    Findings {
        plan: plan(state, &policy, now),
        current_replicas: current,
        target_problem: problem,
    }
}

async fn replicas_of(
    client: &Client,
    namespace: &str,
    target: &ScaleTarget,
) -> Result<i32, kube::Error> {
    let (group, version) = target
        .api_version
        .split_once('/')
        .unwrap_or(("", target.api_version.as_str()));
    let kind = GroupVersionKind::gvk(group, version, &target.kind);
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let path = format!("{}/{}/scale", api.resource_url(), target.name);
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let scale: Scale = client.request(request).await?;
    Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
}

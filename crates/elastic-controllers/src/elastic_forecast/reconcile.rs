//! One pass over one ElasticForecast.

use elastic_core::ElasticForecast;
use elastic_core::forecast::{
    Grid, Policy, ScaleTarget, State, declared_times, parse_quantity, plan, startup, validate,
};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};

use super::report::{Findings, Report};
use super::{Context, told};

/// Pods that a start is measured by.
const PODS_MAX: u32 = 500;

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
    let (seen, problem) = match &spec.target {
        None => (Seen::default(), None),
        Some(target) => {
            let namespace = forecast.namespace().unwrap_or_default();
            let measures = spec.startup_seconds.is_none();
            match look(&context.client, &namespace, target, measures).await {
                Ok(seen) => (seen, None),
                Err(error) => {
                    let target = format!("{} {}", target.kind, target.name);
                    let why = told(&error);
                    let problem = format!("the replicas of {target} cannot be read: {why}");
                    (Seen::default(), Some(problem))
                }
            }
        }
    };
    let startup = startup(spec.startup_seconds, &seen.pods);
    let policy = Policy {
        probability: f64::from(spec.quantile) / 100.0,
        startup_seconds: startup.seconds,
        capacity_per_replica: parse_quantity(&spec.capacity_per_replica).unwrap_or(f64::MAX),
        period: spec.period,
        min_replicas: spec.min_replicas,
        max_replicas: spec.max_replicas,
        // A spec that cannot be read never comes here.
        bounds: declared_times(spec).unwrap_or_default(),
    };
    let state = State {
        history,
        current_replicas: seen.replicas,
    };
    Findings {
        plan: plan(state, &policy, now),
        current_replicas: seen.replicas,
        startup,
        target_problem: problem,
    }
}

/// What is seen of a target.
#[derive(Default)]
struct Seen {
    replicas: Option<i32>,
    /// Empty unless they are to be measured by.
    pods: Vec<Pod>,
}

async fn look(
    client: &Client,
    namespace: &str,
    target: &ScaleTarget,
    measures: bool,
) -> Result<Seen, kube::Error> {
    let scale = scale_of(client, namespace, target).await?;
    let selector = scale.status.and_then(|status| status.selector);
    let selector = selector.filter(|selector| measures && !selector.is_empty());
    let pods = match selector {
        Some(selector) => {
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let wanted = ListParams::default().labels(&selector).limit(PODS_MAX);
            api.list(&wanted).await?.items
        }
        None => Vec::new(),
    };
    Ok(Seen {
        replicas: Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)),
        pods,
    })
}

async fn scale_of(
    client: &Client,
    namespace: &str,
    target: &ScaleTarget,
) -> Result<Scale, kube::Error> {
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
    client.request(request).await
}

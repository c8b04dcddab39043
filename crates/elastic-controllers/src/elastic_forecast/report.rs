//! What a pass tells the user: the status, its conditions, and an event when one of them turns.

use elastic_core::ElasticForecast;
use elastic_core::elastic_workload::{ConditionStatus, set_condition};
use elastic_core::events::{EventKind, event};
use elastic_core::forecast::{
    ElasticForecastStatus, ForecastError, ForecastMode, ForecastValue, Grid, HistoryStatus, Plan,
    Startup, Verdict, quantity,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::reconcile::ForecastPassError;

const COMPONENT: &str = "ElasticForecast";
/// What a status may leave out; a patch must say that it is gone.
const OPTIONAL: [&str; 10] = [
    "period",
    "periodStrength",
    "history",
    "forecast",
    "startupSeconds",
    "startupSource",
    "forecastReplicas",
    "currentReplicas",
    "wouldBeReplicas",
    "error",
];

/// What a pass found.
pub(super) struct Findings {
    pub(super) plan: Plan,
    pub(super) current_replicas: Option<i32>,
    pub(super) startup: Startup,
    pub(super) target_problem: Option<String>,
}

/// Collects what a pass finds.
pub(super) struct Report<'a> {
    forecast: &'a ElasticForecast,
    now: Timestamp,
    next: ElasticForecastStatus,
    events: Vec<(EventKind, String, String)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(forecast: &'a ElasticForecast, now: Timestamp) -> Self {
        let next = forecast.status.clone().unwrap_or_default();
        Self {
            forecast,
            now,
            next,
            events: Vec::new(),
        }
    }

    /// No forecast could be made. The last one stays until it is too old to be served.
    pub(super) fn failed(&mut self, reason: &str, problem: &str) {
        self.condition("Ready", false, reason, problem);
    }

    /// A forecast was made, or it was found that none can be.
    pub(super) fn found(&mut self, history: &Grid, findings: &Findings) {
        let plan = &findings.plan;
        let slots = history.values().len();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.next.history = Some(HistoryStatus {
            from: Some(Time(history.time_of(0))),
            to: Some(Time(history.time_of(slots))),
            slots: count(slots),
            missing: count(history.missing()),
        });
        self.next.period = plan
            .season
            .map_or("None", |season| season.length.name())
            .to_owned();
        let strength = plan.season.map(|season| format!("{:.2}", season.strength));
        self.next.period_strength = strength.unwrap_or_default();
        self.next.forecast_time = Some(Time(self.now));
        self.next.forecast = plan
            .values
            .iter()
            .map(|value| ForecastValue {
                quantile: value.probability.to_string(),
                value: quantity(value.value),
            })
            .collect();
        self.next.startup_seconds = Some(findings.startup.seconds);
        self.next.startup_source = findings.startup.source.name().to_owned();
        self.next.forecast_replicas = plan.replicas;
        self.next.current_replicas = findings.current_replicas;
        self.next.would_be_replicas = plan.would_be;
        let percent = |wape: f64| format!("{:.1}%", wape * 100.0);
        self.next.error = plan.errors.wape().map(|wape| ForecastError {
            wape: percent(wape),
            seasonal_naive_wape: plan.naive_errors.wape().map(percent).unwrap_or_default(),
            slots: count(plan.errors.count()),
        });
        self.conditions(findings);
    }

    fn conditions(&mut self, findings: &Findings) {
        let plan = &findings.plan;
        let (found, reason, message) = match plan.verdict {
            Verdict::Forecast => (true, "Clear", "the load repeats itself".to_owned()),
            Verdict::NoPeriod => (
                false,
                "NoClearPeriod",
                "no day or week stands out in the history, or less than two of them were seen; the autoscaler alone decides".to_owned(),
            ),
            Verdict::Unseen => (
                true,
                "Unseen",
                "the load repeats itself, but the time that is to come was never measured".to_owned(),
            ),
        };
        self.condition("PeriodFound", found, reason, &message);
        let is_serving = self.forecast.spec.mode == ForecastMode::Serve;
        let (serving, reason, message) = match (is_serving, plan.replicas) {
            (true, Some(_)) => (
                true,
                "Serving",
                "external metrics forecast and forecast_replicas",
            ),
            (true, None) => (
                false,
                "NothingToServe",
                "nothing can be forecast, so forecast_replicas is 0 and the autoscaler's other metrics decide",
            ),
            (false, _) => (
                false,
                "Observing",
                "spec.mode is Observe; Serve offers the forecast to autoscalers",
            ),
        };
        self.condition("Serving", serving, reason, message);
        match &findings.target_problem {
            None => self.condition("Ready", true, "Made", "the forecast is of forecastTime"),
            Some(problem) => self.condition("Ready", true, "TargetUnknown", problem),
        }
    }

    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = ConditionStatus::from(holds);
        let generation = self.forecast.metadata.generation;
        let has_turned = set_condition(
            &mut self.next.conditions,
            kind,
            status,
            reason,
            message,
            generation,
            self.now,
        );
        if has_turned && kind != "Serving" {
            let is_wrong = kind == "Ready" && (!holds || reason != "Made");
            let event_kind = if is_wrong {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            self.events
                .push((event_kind, reason.to_owned(), message.to_owned()));
        }
    }

    /// Writes the status and the events.
    pub(super) async fn publish(mut self, client: &Client) -> Result<(), ForecastPassError> {
        let namespace = self.forecast.namespace().unwrap_or_default();
        let name = self.forecast.name_any();
        self.next.observed_generation = self.forecast.metadata.generation;
        let api: Api<ElasticForecast> = Api::namespaced(client.clone(), &namespace);
        let patch = Patch::Merge(json!({"status": whole(&self.next)}));
        match api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => {
                return Err(ForecastPassError::Status {
                    name: format!("{namespace}/{name}"),
                    source: Box::new(source),
                });
            }
        }
        let about = self.forecast.object_ref(&());
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        for (kind, reason, message) in &self.events {
            let event = event(&about, COMPONENT, *kind, reason, message, Timestamp::now());
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, reason, "event not written");
            }
        }
        Ok(())
    }
}

/// The status with everything that is absent written as null, so that a merge takes it away.
fn whole(status: &ElasticForecastStatus) -> Value {
    let mut value = json!(status);
    for key in OPTIONAL {
        if value.get(key).is_none() {
            value[key] = Value::Null;
        }
    }
    value
}

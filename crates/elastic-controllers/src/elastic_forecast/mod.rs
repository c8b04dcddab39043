//! The forecast controller: fetches each ElasticForecast's history, asks `elastic-core` what is to come, and writes it into
//! the status. It never scales anything: in `Serve` mode whoever serves external metrics reads the status, and an ordinary
//! autoscaler decides.

mod history;
mod prometheus;
mod reconcile;
mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use elastic_core::ElasticForecast;
use futures::StreamExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use history::Histories;
use reconcile::ForecastPassError;

/// How the controller behaves in time.
#[derive(Clone, Debug)]
pub struct ElasticForecastConfig {
    /// Longest wait for a source's answer.
    pub source_timeout: Duration,
    /// Wait after a write of the status has failed.
    pub retry: Duration,
}

impl Default for ElasticForecastConfig {
    fn default() -> Self {
        Self {
            source_timeout: Duration::from_secs(20),
            retry: Duration::from_secs(2),
        }
    }
}

/// Shared by all passes. What is kept only saves questions: a restart asks again.
struct Context {
    client: Client,
    config: ElasticForecastConfig,
    histories: Histories,
    /// When each forecast was last made, and for which generation.
    made: Mutex<HashMap<String, (Option<i64>, Instant)>>,
}

impl Context {
    /// How long the present forecast still counts; zero when a new one is due.
    fn due_in(&self, forecast: &ElasticForecast) -> Duration {
        let refresh = refresh(forecast);
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get(&forecast.uid().unwrap_or_default()) {
            Some((generation, at)) if *generation == forecast.metadata.generation => {
                refresh.saturating_sub(at.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    fn note_made(&self, forecast: &ElasticForecast) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (forecast.metadata.generation, Instant::now());
        made.insert(forecast.uid().unwrap_or_default(), entry);
    }

    /// Forgets forecasts that are gone, so that nothing grows beyond the cluster.
    fn forget_absent(&self, store: &Store<ElasticForecast>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() > 2 * store.len() + 16 {
            let living: Vec<_> = store.state().iter().filter_map(|one| one.uid()).collect();
            made.retain(|uid, _| living.contains(uid));
            self.histories.retain(&living);
        }
    }
}

/// What the API server says; its error's own text is for debugging.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn refresh(forecast: &ElasticForecast) -> Duration {
    Duration::from_secs(
        u64::try_from(forecast.spec.refresh_seconds)
            .unwrap_or(60)
            .max(1),
    )
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_elastic_forecast(
    client: Client,
    config: ElasticForecastConfig,
    shutdown: CancellationToken,
) {
    let forecasts: Api<ElasticForecast> = Api::all(client.clone());
    let context = Arc::new(Context {
        client,
        histories: Histories::new(config.source_timeout),
        config,
        made: Mutex::default(),
    });
    let controller = Controller::new(forecasts, watcher::Config::default());
    let store = controller.store();
    controller
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context.clone())
        .for_each(|outcome| {
            context.forget_absent(&store);
            if let Err(error) = outcome {
                tracing::debug!(%error, "elastic forecast pass ended with an error");
            }
            std::future::ready(())
        })
        .await;
}

async fn pass(
    forecast: Arc<ElasticForecast>,
    context: Arc<Context>,
) -> Result<Action, ForecastPassError> {
    if forecast.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let left = context.due_in(&forecast);
    if !left.is_zero() {
        return Ok(Action::requeue(left));
    }
    reconcile::reconcile(&forecast, &context).await?;
    context.note_made(&forecast);
    Ok(Action::requeue(refresh(&forecast)))
}

fn after_failure(
    forecast: Arc<ElasticForecast>,
    error: &ForecastPassError,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(
        namespace = forecast.namespace(),
        forecast = forecast.name_any(),
        error = error as &dyn std::error::Error,
        "elastic forecast could not be reported, trying again"
    );
    Action::requeue(context.config.retry)
}

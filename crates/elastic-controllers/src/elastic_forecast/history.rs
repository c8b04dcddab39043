//! The histories that forecasts are made from. What Prometheus has said is kept, so that each refresh asks only for what
//! is new; a restart asks for everything again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elastic_core::ElasticForecast;
use elastic_core::forecast::{CsvSource, Grid, PrometheusSource, Sample, parse_csv};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};

use super::prometheus::{POINTS_MAX, PrometheusError, Range, ask};

const DAY_SECONDS: i64 = 86_400;
/// Slots at the end that are asked for again: they may not have been complete.
const SLOTS_AGAIN: i64 = 2;

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryError {
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    #[error("ConfigMap {name} cannot be read: {source}")]
    ConfigMap {
        name: String,
        source: Box<kube::Error>,
    },
    #[error("ConfigMap {name} has no key {key}")]
    Key { name: String, key: String },
    #[error("ConfigMap {name}, key {key}: {source}")]
    Csv {
        name: String,
        key: String,
        source: elastic_core::forecast::CsvError,
    },
    #[error(transparent)]
    Grid(#[from] elastic_core::forecast::GridError),
}

#[derive(Clone, Default)]
struct Known {
    /// What was asked; another question starts anew.
    question: (String, String, i64),
    /// By the second.
    values: BTreeMap<i64, f64>,
}

/// All histories, by the UID of their forecast.
pub(super) struct Histories {
    timeout: Duration,
    known: Mutex<HashMap<String, Known>>,
}

impl Histories {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            known: Mutex::default(),
        }
    }

    /// Keeps only those of living forecasts.
    pub(super) fn retain(&self, living: &[String]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|uid, _| living.contains(uid));
    }

    /// The history of a forecast up to now.
    pub(super) async fn of(
        &self,
        forecast: &ElasticForecast,
        client: &Client,
        now: Timestamp,
    ) -> Result<Grid, HistoryError> {
        let spec = &forecast.spec;
        let step = i64::from(spec.step_seconds);
        if let Some(source) = &spec.source.config_map {
            let namespace = forecast.namespace().unwrap_or_default();
            let samples = read_config_map(client, &namespace, source).await?;
            return Ok(Grid::from_samples(&samples, step)?.moved_before(now));
        }
        let source = spec.source.prometheus.clone().unwrap_or_default();
        let uid = forecast.uid().unwrap_or_default();
        let days = i64::from(spec.history_days);
        let samples = self.ask_prometheus(&uid, &source, step, days, now).await?;
        Ok(Grid::from_samples(&samples, step)?)
    }

    async fn ask_prometheus(
        &self,
        uid: &str,
        source: &PrometheusSource,
        step_seconds: i64,
        days: i64,
        now: Timestamp,
    ) -> Result<Vec<Sample>, HistoryError> {
        let question = (source.address.clone(), source.query.clone(), step_seconds);
        let mut known = {
            let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get(uid).filter(|known| known.question == question);
            known.cloned().unwrap_or_default()
        };
        known.question = question;
        let aligned = |second: i64| second.div_euclid(step_seconds) * step_seconds;
        let first = aligned(now.as_second() - days * DAY_SECONDS);
        known.values = known.values.split_off(&first);
        let last_known = known.values.keys().next_back().copied();
        let mut start = last_known.map_or(first, |last| last - (SLOTS_AGAIN - 1) * step_seconds);
        let end = aligned(now.as_second());
        while start <= end {
            let until = end.min(start + (POINTS_MAX - 1) * step_seconds);
            let range = Range {
                address: &source.address,
                query: &source.query,
                start_second: start,
                end_second: until,
                step_seconds,
            };
            let samples = ask(&range, self.timeout).await?;
            let values = samples.iter().filter(|sample| sample.value.is_finite());
            known
                .values
                .extend(values.map(|sample| (sample.at.as_second(), sample.value)));
            start = until + step_seconds;
        }
        let sample = |(second, value): (&i64, &f64)| {
            let at = Timestamp::from_second(*second).ok()?;
            Some(Sample { at, value: *value })
        };
        let samples = known.values.iter().filter_map(sample).collect();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(uid.to_owned(), known);
        Ok(samples)
    }
}

async fn read_config_map(
    client: &Client,
    namespace: &str,
    source: &CsvSource,
) -> Result<Vec<Sample>, HistoryError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (name, key) = (source.name.clone(), source.key.clone());
    let map = api
        .get(&name)
        .await
        .map_err(|error| HistoryError::ConfigMap {
            name: name.clone(),
            source: Box::new(error),
        })?;
    let text = map.data.and_then(|mut data| data.remove(&key));
    let Some(text) = text else {
        return Err(HistoryError::Key { name, key });
    };
    parse_csv(&text).map_err(|source| HistoryError::Csv { name, key, source })
}

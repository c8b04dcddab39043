//! The histories that forecasts are made from. What Prometheus has said is kept, so that each refresh asks only for what
//! is new; a restart asks for everything again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elastic_core::ElasticForecast;
use elastic_core::forecast::{
    CsvSource, Grid, KeyReference, PrometheusSource, Sample, parse_csv, zone,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};

use super::prometheus::{POINTS_MAX, PrometheusError, Range, Server};
use super::told;

const DAY_SECONDS: i64 = 86_400;
/// Slots at the end that are asked for again: they may not have been complete.
const SLOTS_AGAIN: i64 = 2;

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryError {
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    #[error("{kind} {name} cannot be read: {reason}")]
    Object {
        kind: &'static str,
        name: String,
        reason: String,
    },
    #[error("{kind} {name} has no key {key}, or what it holds is no text")]
    Key {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("{0}")]
    Zone(String),
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
        let zone = zone(spec).map_err(HistoryError::Zone)?;
        let objects = Objects {
            client,
            namespace: &forecast.namespace().unwrap_or_default(),
        };
        if let Some(source) = &spec.source.config_map {
            let samples = read_csv(&objects, source).await?;
            return Ok(Grid::from_samples(&samples, step, &zone)?.moved_before(now));
        }
        let source = spec.source.prometheus.clone().unwrap_or_default();
        let uid = forecast.uid().unwrap_or_default();
        let days = i64::from(spec.history_days);
        let server = self.server(&objects, &source).await?;
        let question = (source.address, source.query, step);
        let samples = self
            .ask_prometheus(&uid, &server, question, days, now)
            .await?;
        Ok(Grid::from_samples(&samples, step, &zone)?)
    }

    /// Credentials are read anew for every pass, so that they may be renewed.
    async fn server(
        &self,
        objects: &Objects<'_>,
        source: &PrometheusSource,
    ) -> Result<Server, HistoryError> {
        let authorization = match &source.authorization_secret {
            Some(reference) => Some(objects.secret(reference).await?),
            None => None,
        };
        let authority = match &source.authority_config_map {
            Some(reference) => Some(objects.config_map(&reference.name, &reference.key).await?),
            None => None,
        };
        let address = source.address.clone();
        Ok(Server::new(
            address,
            authorization.as_deref(),
            authority.as_deref(),
            self.timeout,
        )?)
    }

    async fn ask_prometheus(
        &self,
        uid: &str,
        server: &Server,
        question: (String, String, i64),
        days: i64,
        now: Timestamp,
    ) -> Result<Vec<Sample>, HistoryError> {
        let (query, step_seconds) = (question.1.clone(), question.2);
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
                query: &query,
                start_second: start,
                end_second: until,
                step_seconds,
            };
            let samples = server.ask(&range).await?;
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

/// Objects beside a forecast.
struct Objects<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Objects<'_> {
    async fn config_map(&self, name: &str, key: &str) -> Result<String, HistoryError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let map = api.get(name).await.map_err(unread("ConfigMap", name))?;
        let text = map.data.and_then(|mut data| data.remove(key));
        text.ok_or_else(|| no_key("ConfigMap", name, key))
    }

    async fn secret(
        &self,
        KeyReference { name, key }: &KeyReference,
    ) -> Result<String, HistoryError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let secret = api.get(name).await.map_err(unread("Secret", name))?;
        let bytes = secret.data.and_then(|mut data| data.remove(key));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
        text.ok_or_else(|| no_key("Secret", name, key))
    }
}

fn unread(kind: &'static str, name: &str) -> impl FnOnce(kube::Error) -> HistoryError {
    let name = name.to_owned();
    move |error| HistoryError::Object {
        kind,
        name,
        reason: told(&error),
    }
}

fn no_key(kind: &'static str, name: &str, key: &str) -> HistoryError {
    HistoryError::Key {
        kind,
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

async fn read_csv(objects: &Objects<'_>, source: &CsvSource) -> Result<Vec<Sample>, HistoryError> {
    let text = objects.config_map(&source.name, &source.key).await?;
    parse_csv(&text).map_err(|error| HistoryError::Csv {
        name: source.name.clone(),
        key: source.key.clone(),
        source: error,
    })
}

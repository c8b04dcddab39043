//! The kind `ElasticForecast`: where a load's history comes from, and what its forecast is for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What the user wants.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.alibabacloud.com",
    version = "v1beta1",
    kind = "ElasticForecast",
    plural = "elasticforecasts",
    shortname = "ef",
    namespaced,
    status = "ElasticForecastStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ElasticForecastSpec {
    /// Whether the forecast is only reported, or served as a metric too.
    #[serde(default)]
    pub mode: ForecastMode,
    /// Where the history comes from; exactly one.
    pub source: ForecastSource,
    /// The length of a slot.
    #[serde(default = "default_step")]
    pub step_seconds: i32,
    /// How far the history goes back.
    #[serde(default = "default_history")]
    pub history_days: i32,
    /// The period, or that it is to be found.
    #[serde(default)]
    pub period: PeriodChoice,
    /// What the replicas are to suffice for, in percent of all cases.
    #[serde(default = "default_quantile")]
    pub quantile: i32,
    /// How long a new replica takes until it serves; measured by the target's pods when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<i32>,
    /// Whose days and weeks the load follows, by its IANA name; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What one replica carries, in the unit of the metric; a quantity.
    pub capacity_per_replica: IntOrString,
    /// How often the forecast is made anew.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: i32,
    /// The workload whose replicas are compared with the forecast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ScaleTarget>,
    /// The forecast asks for at least these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The forecast asks for at most these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    /// Times that are known to be different.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<Window>,
}

fn default_step() -> i32 {
    300
}

fn default_history() -> i32 {
    28
}

fn default_quantile() -> i32 {
    95
}

fn default_refresh() -> i32 {
    60
}

/// Whether the forecast does anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForecastMode {
    /// The status says what it would have done, and how far it was off.
    #[default]
    Observe,
    /// It is served as an external metric as well.
    Serve,
}

/// Which period the load has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeriodChoice {
    /// To be found in the history.
    #[default]
    Auto,
    /// A day.
    Day,
    /// A week.
    Week,
}

/// Where the history comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastSource {
    /// A query of a Prometheus server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// Lines `timestamp,value` in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<CsvSource>,
}

/// A query of a Prometheus server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSource {
    /// `http://host:port` or `https://host:port`, with a path before `/api/v1` where there is one.
    pub address: String,
    /// A query that gives one series.
    pub query: String,
    /// A key of a Secret in the same namespace with what the header `Authorization` says; a bare word is a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_secret: Option<KeyReference>,
    /// A key of a ConfigMap in the same namespace with who vouches for the server, as PEM; the machine's authorities when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_config_map: Option<KeyReference>,
}

/// A key of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyReference {
    /// The object.
    pub name: String,
    /// The key.
    pub key: String,
}

/// A key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CsvSource {
    /// The ConfigMap.
    pub name: String,
    /// The key, `history.csv` unless said otherwise.
    #[serde(default = "default_key")]
    pub key: String,
}

fn default_key() -> String {
    "history.csv".to_owned()
}

/// A workload with a scale subresource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTarget {
    /// Its API version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A time that is known to be different: a holiday, a sale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// From then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// A cron expression: it comes again at each activation, between the two times above where they are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// A second expression: with `schedule`, it lasts until the next activation of this; `@every 2h` is a length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The forecast asks for at least these, even when it knows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The forecast asks for at most these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElasticForecastStatus {
    /// The generation of the spec that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Day`, `Week`, or `None` when the load shows no clear period.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub period: String,
    /// How much the load is like itself one period ago, at most 1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub period_strength: String,
    /// What was learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryStatus>,
    /// When the forecast was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_time: Option<Time>,
    /// The highest load until a replica that starts now would serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forecast: Vec<ForecastValue>,
    /// How long a new replica takes, as the forecast took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<i64>,
    /// Where that comes from: `Spec`, `Measured` or `Default`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub startup_source: String,
    /// How many replicas the forecast asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_replicas: Option<i32>,
    /// How many replicas the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<i32>,
    /// How many the target would have: never less than it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be_replicas: Option<i32>,
    /// How far its forecasts of the last week were off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ForecastError>,
    /// `Ready`, `PeriodFound`, `Serving`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What was learned from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// The first slot.
    pub from: Option<Time>,
    /// The end of the last one.
    pub to: Option<Time>,
    /// How many slots.
    pub slots: i64,
    /// How many of them hold nothing.
    pub missing: i64,
}

/// A quantile of the forecast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForecastValue {
    /// Such as `0.95`.
    pub quantile: String,
    /// A quantity in the unit of the metric.
    pub value: String,
}

/// How far forecasts were off, as shares of the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForecastError {
    /// The forecast's weighted absolute error, such as `4.6%`.
    pub wape: String,
    /// That of repeating the last period.
    pub seasonal_naive_wape: String,
    /// How many slots were compared.
    pub slots: i64,
}

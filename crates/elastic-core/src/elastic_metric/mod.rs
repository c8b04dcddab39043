//! The kind `ElasticMetric`: one metric for an autoscaler, from a query or from the pods of a Service.
//!
//! With a target it is a metric of that object (`custom.metrics.k8s.io`), without one it is an external metric of the
//! namespace (`external.metrics.k8s.io`).

mod crd;
mod validation;

pub use crd::custom_resource_definition;
pub use validation::validate;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};

/// Seconds between two looks at the source.
pub const DEFAULT_INTERVAL_SECONDS: u32 = 5;
/// Values older than this are not shown.
pub const DEFAULT_MAX_AGE_SECONDS: u32 = 120;
/// The condition that says whether the metric can be had.
pub const READY: &str = "Ready";

/// What the user wants.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.alibabacloud.com",
    version = "v1beta1",
    kind = "ElasticMetric",
    plural = "elasticmetrics",
    shortname = "em",
    namespaced,
    status = "ElasticMetricStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ElasticMetricSpec {
    /// The metric's name; absent: the object's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What the metric describes; absent: nothing in the cluster, it is an external metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<MetricTarget>,
    /// PromQL that gives an instant vector or a scalar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Where to read the metric when there is no Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<Scrape>,
    /// Between two looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u32>,
    /// Older values are as good as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// The time over which the value is an average, as it is told to autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u32>,
}

/// An object in the ElasticMetric's namespace, or the namespace itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricTarget {
    /// Such as `v1` or `apps/v1`.
    pub api_version: String,
    /// Such as `Service`.
    pub kind: String,
    /// The one object; absent: every series names its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The label of the series that holds the object's name; absent: the kind in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_label: Option<String>,
}

impl MetricTarget {
    /// The group in `apiVersion`.
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// Whether this is the namespace itself.
    pub fn is_namespace(&self) -> bool {
        self.kind == "Namespace" && self.group().is_empty()
    }

    /// The label with the object's name.
    pub fn label(&self) -> String {
        self.name_label
            .clone()
            .unwrap_or_else(|| self.kind.to_lowercase())
    }
}

/// The endpoints of a Service, read directly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scrape {
    /// A Service in the same namespace.
    pub service: String,
    /// Name or number of one of its ports; absent: its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Path; absent: `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the series.
    pub metric: String,
    /// Labels that the series must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How the values of all endpoints become one.
    #[serde(default)]
    pub aggregation: Aggregation,
}

/// How several values become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregation {
    /// All together.
    #[default]
    Sum,
    /// The mean of the endpoints.
    Average,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ElasticMetricStatus {
    /// The spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest value, or the sum of all; renewed now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// How many values there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<i32>,
    /// When `value` was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read_time: Option<Time>,
    /// Where the API serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl ElasticMetric {
    /// The name autoscalers ask for.
    pub fn metric_name(&self) -> String {
        self.spec.metric.clone().unwrap_or_else(|| self.name_any())
    }

    /// The one object that is described, if it is one.
    pub fn target_name(&self) -> Option<String> {
        let target = self.spec.target.as_ref()?;
        if target.is_namespace() {
            return self.namespace();
        }
        target.name.clone()
    }

    /// Between two looks.
    pub fn interval_seconds(&self) -> u32 {
        self.spec
            .interval_seconds
            .unwrap_or(DEFAULT_INTERVAL_SECONDS)
            .max(1)
    }

    /// Older values are as good as none.
    pub fn max_age_seconds(&self) -> u32 {
        self.spec
            .max_age_seconds
            .unwrap_or(DEFAULT_MAX_AGE_SECONDS)
            .max(1)
    }
}

//! `metrics.k8s.io`: CPU and memory of nodes and pods, from the kubelets or from Prometheus.

pub(crate) mod api;
mod kubelets;
mod prometheus;
mod samples;
mod scrape;

pub(crate) use api::{RESOURCE, ResourceMetrics};
pub use kubelets::KubeletOptions;
pub(crate) use kubelets::Kubelets;
pub(crate) use prometheus::PrometheusUsage;
pub(crate) use samples::Board;
pub(crate) use scrape::{Collection, collect, follow_labels};

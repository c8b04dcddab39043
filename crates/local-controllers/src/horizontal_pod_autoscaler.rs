//! The HorizontalPodAutoscaler controller: reads scale and metrics once a period and does what
//! [`elastic_core::horizontal_pod_autoscaler`] decides. Refuses to compute anything itself.

mod controller;
pub mod label_query;
mod metrics;
mod scale;

pub use controller::start;

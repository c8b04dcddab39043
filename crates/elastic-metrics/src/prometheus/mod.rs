//! Prometheus as a source: asked for series and instant values, nothing else.

mod answer;
mod client;

pub(crate) use answer::Sample;
pub(crate) use client::{Prometheus, SourceError};
pub use client::{PrometheusError, PrometheusOptions, Verb};

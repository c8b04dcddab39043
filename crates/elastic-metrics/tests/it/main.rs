//! The metrics APIs, asked through a real API server.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod autoscaler;
mod cluster;
mod elastic_metric;
mod forecasts;
mod log_exporter;
mod prometheus;
mod pushed;
mod resource_rules;
mod resources;
mod rules;

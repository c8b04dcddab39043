//! Drives the controllers through their public entrances.

#![allow(clippy::unwrap_used)] // helpers of tests count as tests

mod admission;
mod cron_horizontal_pod_autoscaler;
mod elastic_forecast;
mod elastic_workload;
mod elastic_workload_changes;
mod elastic_workload_kinds;
mod fast_autoscaler;
mod resource_policy;
mod scene;
mod simulated_clock;
mod tidal_cron;
mod united_deployment;
mod workload_spread;

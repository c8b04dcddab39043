//! The controllers against the embedded API server, with a stand-in for the kubelets.

// Helpers outside of test functions may fail the test as bluntly as the tests do.
#![allow(clippy::unwrap_used)]

mod autoscaler;
mod autoscaler_metrics;
mod burst;
mod cron_jobs;
mod kubelet;
mod nodes;
mod recorded;
mod victims;
mod workloads;
mod world;

//! The add-on against a real API server and a cloud with simulated groups, through public APIs only.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod addon;
mod chart;
mod connection;
mod fast_path;
mod helm;
mod metrics_apis;
mod operator;
mod prometheus;
mod support;
mod traces;

//! Drives the built program as a user would: with its own commands, a real kubectl, and the `kube` crate. Needs root.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod bad_input;
mod burst;
mod busybox;
mod cloud;
mod cluster;
mod cron;
mod devices;
mod forecast;
mod killed;
mod kubectl;
mod log_service;
mod metrics;
mod places;
mod scrape;
mod sessions;
mod upstream;
mod walk;

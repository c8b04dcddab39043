//! Tests of elastic-core against what a real control plane did.

// Helpers outside of test functions may fail the test as bluntly as the tests do.
#![allow(clippy::unwrap_used)]

mod cron;
mod cron_claims;
mod cron_plan;
mod forecast_traces;
mod hpa_recorded;
mod hpa_tables;

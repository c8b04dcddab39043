//! What a run measured, as plain data for people, JSON and charts.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::record::Tally;

/// Percentiles of one clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyMillis {
    /// Smallest.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Half were faster.
    pub p50: f64,
    /// Three quarters were faster.
    pub p75: f64,
    /// Nine in ten were faster.
    pub p90: f64,
    /// Nineteen in twenty were faster.
    pub p95: f64,
    /// Ninety-nine in a hundred were faster.
    pub p99: f64,
    /// 999 in a thousand were faster.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl LatencyMillis {
    pub(crate) fn from_micros(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile: f64| millis(histogram.value_at_quantile(quantile));
        Self {
            min: millis(histogram.min()),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecondSample {
    /// Seconds since the start, at the end of this second.
    pub second: u64,
    /// Users wanted by the plan.
    pub users: u32,
    /// Requests finished in this second.
    pub requests: u64,
    /// Of these, failed.
    pub failures: u64,
    /// Response time from the intended start.
    pub response_time: LatencyMillis,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Most users at once.
    pub users_peak: u32,
    /// From the first to the last request, seconds.
    pub duration_seconds: f64,
    /// Requests finished.
    pub requests: u64,
    /// Of these, answered with a status below 400.
    pub successes: u64,
    /// Of these, failed, by cause.
    pub failures: BTreeMap<String, u64>,
    /// `successes / requests`, 0 to 1; 0 without requests.
    pub success_rate: f64,
    /// Requests per second over the whole run.
    pub requests_per_second: f64,
    /// Body bytes received.
    pub bytes_received: u64,
    /// From sending to the last byte.
    pub service_time: LatencyMillis,
    /// From the intended start to the last byte.
    pub response_time: LatencyMillis,
    /// Requests sent again on a new connection because an idle one had been closed by the server.
    pub idle_connection_retries: u64,
    /// Values of the counted response header.
    pub header_values: BTreeMap<String, u64>,
    /// Second by second.
    pub series: Vec<SecondSample>,
}

impl LoadReport {
    pub(crate) fn new(
        users_peak: u32,
        tally: &Tally,
        series: Vec<SecondSample>,
        duration_seconds: f64,
        idle_connection_retries: u64,
    ) -> Self {
        let requests = tally.requests();
        let per = |value: u64, of: f64| if of > 0.0 { value as f64 / of } else { 0.0 };
        Self {
            users_peak,
            duration_seconds,
            requests,
            successes: tally.successes,
            failures: tally.failures.clone(),
            success_rate: per(tally.successes, requests as f64),
            requests_per_second: per(requests, duration_seconds),
            bytes_received: tally.bytes,
            service_time: LatencyMillis::from_micros(&tally.service),
            response_time: LatencyMillis::from_micros(&tally.response),
            idle_connection_retries,
            header_values: tally.headers.clone(),
            series,
        }
    }
}

//! Counting and timing: shards that users write to, merged once a second and at the end.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Users write to shard `user % SHARDS`, so that they rarely wait for one another.
const SHARDS: usize = 8;
/// Latencies beyond this are recorded as this (requests time out long before).
const LATENCY_MICROS_MAX: u64 = 600_000_000;
/// Different values of the counted header that are kept; further ones are counted together.
const HEADER_VALUES_MAX: usize = 10_000;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with a status below 400.
    Success,
    /// An answer with this status, 400 or above.
    Status(u16),
    /// No connection could be made.
    Connect,
    /// The connection broke before the answer was complete.
    Broken,
    /// No complete answer in time.
    Timeout,
}

impl Outcome {
    /// A fixed label for counters.
    pub fn label(&self) -> String {
        match self {
            Self::Success => "success".to_string(),
            Self::Status(code) => format!("status {code}"),
            Self::Connect => "connection refused or unreachable".to_string(),
            Self::Broken => "connection broken before the answer".to_string(),
            Self::Timeout => "timed out".to_string(),
        }
    }
}

/// One finished request.
pub(crate) struct Sample {
    pub outcome: Outcome,
    pub service_time: Duration,
    pub response_time: Duration,
    pub bytes: u64,
    pub header: Option<String>,
}

/// Sums over some requests.
pub(crate) struct Tally {
    pub service: Histogram<u64>,
    pub response: Histogram<u64>,
    pub successes: u64,
    pub failures: BTreeMap<String, u64>,
    pub bytes: u64,
    pub headers: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
                .expect("constant bounds are valid for a histogram")
        };
        Self {
            service: histogram(),
            response: histogram(),
            successes: 0,
            failures: BTreeMap::new(),
            bytes: 0,
            headers: BTreeMap::new(),
        }
    }

    fn add(&mut self, sample: &Sample) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.service.saturating_record(micros(sample.service_time));
        self.response
            .saturating_record(micros(sample.response_time));
        self.bytes += sample.bytes;
        match &sample.outcome {
            Outcome::Success => self.successes += 1,
            other => *self.failures.entry(other.label()).or_default() += 1,
        }
        if let Some(value) = &sample.header {
            let known = self.headers.contains_key(value) || self.headers.len() < HEADER_VALUES_MAX;
            let key = if known { value.as_str() } else { "(others)" };
            *self.headers.entry(key.to_string()).or_default() += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Equal bounds: adding cannot fail.
        let _ = self.service.add(&other.service);
        let _ = self.response.add(&other.response);
        self.successes += other.successes;
        self.bytes += other.bytes;
        for (label, count) in &other.failures {
            *self.failures.entry(label.clone()).or_default() += count;
        }
        for (value, count) in &other.headers {
            *self.headers.entry(value.clone()).or_default() += count;
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.successes + self.failures.values().sum::<u64>()
    }
}

/// Where users leave their samples.
pub(crate) struct Recorder {
    shards: Vec<Mutex<Tally>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Tally::new())).collect(),
        }
    }

    pub(crate) fn add(&self, user: usize, sample: &Sample) {
        if let Ok(mut tally) = self.shards[user % SHARDS].lock() {
            tally.add(sample);
        }
    }

    /// Takes what came since the last call.
    pub(crate) fn drain(&self) -> Tally {
        let mut sum = Tally::new();
        for shard in &self.shards {
            if let Ok(mut tally) = shard.lock() {
                sum.merge(&std::mem::replace(&mut *tally, Tally::new()));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_all_users_add_up_once() {
        let recorder = Recorder::new();
        for user in 0..100 {
            recorder.add(
                user,
                &Sample {
                    outcome: if user % 10 == 0 {
                        Outcome::Status(503)
                    } else {
                        Outcome::Success
                    },
                    service_time: Duration::from_millis(5),
                    response_time: Duration::from_millis(7),
                    bytes: 10,
                    header: Some(format!("pod-{}", user % 2)),
                },
            );
        }
        let tally = recorder.drain();
        assert_eq!(
            (tally.requests(), tally.successes, tally.bytes),
            (100, 90, 1000)
        );
        assert_eq!(tally.failures["status 503"], 10);
        assert_eq!(tally.headers["pod-1"], 50);
        assert!(tally.response.value_at_quantile(0.5) >= 7000);
        assert_eq!(recorder.drain().requests(), 0);
    }
}

//! Call limits by action, as the vendor documents them: a bucket a minute, which starts full.

use super::refusal::Refusal;
use cloud_api::client::CallLimits;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const NANOS_PER_MINUTE: f64 = 60e9;

pub(super) struct Throttle {
    limits: CallLimits,
    /// When each action's bucket was last looked at, and what was in it.
    buckets: Mutex<HashMap<&'static str, (Timestamp, f64)>>,
}

impl Throttle {
    pub(super) fn new(limits: CallLimits) -> Self {
        Self {
            limits,
            buckets: Mutex::default(),
        }
    }

    /// Lets a call through, or says how long to wait.
    pub(super) fn take(&self, action: &str, now: Timestamp) -> Result<(), Refusal> {
        let Some((action, limit)) = self.limits.per_minute.get_key_value(action) else {
            return Ok(());
        };
        let limit = f64::from((*limit).max(1));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, tokens) = buckets.entry(action).or_insert((now, limit));
        // A clock that was set back refills nothing.
        let passed = (now.as_nanosecond() - seen.as_nanosecond()).max(0) as f64;
        *tokens = (*tokens + passed * limit / NANOS_PER_MINUTE).min(limit);
        *seen = now;
        if *tokens >= 1.0 {
            *tokens -= 1.0;
            return Ok(());
        }
        let wait_ms = ((1.0 - *tokens) * 60_000.0 / limit).ceil();
        let message = format!(
            "Request was denied due to request throttling: {action} may be called {limit} times a minute."
        );
        let mut refusal = Refusal::new(400, "Throttling", message);
        refusal.retry_after_ms = Some((wait_ms as u64).max(1));
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn a_bucket_empties_says_when_and_fills_again() {
        let throttle = Throttle::new(CallLimits {
            per_minute: BTreeMap::from([("A", 60)]),
            longest_wait: Duration::ZERO,
        });
        for _ in 0..60 {
            throttle.take("A", at(0)).unwrap();
        }
        let refusal = throttle.take("A", at(0)).unwrap_err();
        assert_eq!(
            (refusal.http_status, refusal.code.as_str()),
            (400, "Throttling")
        );
        assert_eq!(refusal.retry_after_ms, Some(1_000));
        throttle.take("A", at(1_000)).unwrap();
        assert!(
            throttle.take("A", at(500)).is_err(),
            "the clock was set back"
        );
        throttle.take("B", at(0)).unwrap();
    }
}

//! The client's own limiter: the documented calls per minute, action by action.
//!
//! A bucket starts full, so that a burst goes out at once; a call that would have to wait too long is refused.

use crate::error::EciError;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Calls per minute.
#[derive(Clone, Debug, PartialEq)]
pub struct CallLimits {
    /// By action; actions that are not listed have no limit.
    pub per_minute: BTreeMap<&'static str, u32>,
    /// The longest that a call is held back before it is refused.
    pub longest_wait: Duration,
}

impl CallLimits {
    /// What the service's documentation says.
    pub fn documented() -> Self {
        let per_minute = BTreeMap::from([
            ("DescribeContainerGroups", 2_000),
            ("DescribeContainerGroupMetric", 2_000),
            ("CreateContainerGroup", 1_000),
            ("DeleteContainerGroup", 1_000),
            ("DescribeContainerGroupPrice", 1_000),
            ("ExecContainerCommand", 500),
            ("DescribeContainerLog", 500),
            ("RestartContainerGroup", 500),
            ("UpdateContainerGroup", 500),
            ("DescribeMultiContainerGroupMetric", 500),
        ]);
        Self {
            per_minute,
            longest_wait: Duration::from_secs(60),
        }
    }

    /// None at all.
    pub fn none() -> Self {
        Self {
            per_minute: BTreeMap::new(),
            longest_wait: Duration::ZERO,
        }
    }
}

/// The buckets.
pub(super) struct Limiter {
    limits: CallLimits,
    /// When each action's bucket was last looked at, and what was in it; negative while calls wait.
    buckets: Mutex<HashMap<&'static str, (Instant, f64)>>,
}

impl Limiter {
    pub(super) fn new(limits: CallLimits) -> Self {
        Self {
            limits,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Waits for this action's turn.
    pub(super) async fn wait(&self, action: &'static str) -> Result<(), EciError> {
        let Some(&limit) = self.limits.per_minute.get(action) else {
            return Ok(());
        };
        let wait = self.take(action, f64::from(limit.max(1)), Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn take(
        &self,
        action: &'static str,
        per_minute: f64,
        now: Instant,
    ) -> Result<Duration, EciError> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, tokens) = buckets.entry(action).or_insert((now, per_minute));
        let refill = now.duration_since(*seen).as_secs_f64() * per_minute / 60.0;
        *tokens = (*tokens + refill).min(per_minute);
        *seen = now;
        let missing = (1.0 - *tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing * 60.0 / per_minute);
        if wait > self.limits.longest_wait {
            return Err(EciError::HeldBack {
                action,
                seconds: wait.as_secs_f64(),
            });
        }
        *tokens -= 1.0;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_goes_at_once_then_calls_are_spread_and_at_last_refused() {
        let limits = CallLimits {
            per_minute: BTreeMap::from([("A", 60)]),
            longest_wait: Duration::from_secs(2),
        };
        let limiter = Limiter::new(limits);
        let now = Instant::now();
        for _ in 0..60 {
            assert_eq!(limiter.take("A", 60.0, now).unwrap(), Duration::ZERO);
        }
        assert_eq!(
            limiter.take("A", 60.0, now).unwrap(),
            Duration::from_secs(1)
        );
        assert_eq!(
            limiter.take("A", 60.0, now).unwrap(),
            Duration::from_secs(2)
        );
        assert!(matches!(
            limiter.take("A", 60.0, now),
            Err(EciError::HeldBack { action: "A", .. })
        ));
        let later = now + Duration::from_secs(3);
        assert_eq!(limiter.take("A", 60.0, later).unwrap(), Duration::ZERO);
    }
}

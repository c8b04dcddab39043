//! The time of day for controllers that act at given moments; a test brings its own and passes through a day in a second.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// Longest sleep without looking at the clock again: it may be set, and a machine may have been asleep itself.
const SLEEP_MOST: Duration = Duration::from_secs(10);

/// Tells the time and waits for it.
pub trait Clock: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;
    /// Returns when it is `at` or later.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now())) {
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(SLEEP_MOST)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_that_has_passed_is_not_waited_for() {
        SystemClock.sleep_until(Timestamp::UNIX_EPOCH).await;
        let soon = Timestamp::now() + Duration::from_millis(5);
        SystemClock.sleep_until(soon).await;
        assert!(Timestamp::now() >= soon);
    }
}

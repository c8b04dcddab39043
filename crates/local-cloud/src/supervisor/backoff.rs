//! How long to wait before the same thing is tried again.

use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(300);
/// A run of this length makes earlier failures forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The first repetition is at once, the next after the base, then twice as long each time.
pub(super) struct Backoff {
    base: Duration,
    failures: u32,
}

impl Backoff {
    /// `failures` before this process was there.
    pub(super) fn new(base: Duration, failures: u32) -> Self {
        Self { base, failures }
    }

    /// The pause after a run of this length.
    pub(super) fn next(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => self
                .base
                .saturating_mul(1 << (failures - 1).min(16))
                .min(LONGEST),
        };
        self.failures += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_a_long_run_is_forgiven() {
        let mut backoff = Backoff::new(Duration::from_secs(10), 0);
        let pauses: Vec<u64> = (0..8)
            .map(|_| backoff.next(Duration::ZERO).as_secs())
            .collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(FORGIVEN_AFTER), Duration::ZERO);
    }
}

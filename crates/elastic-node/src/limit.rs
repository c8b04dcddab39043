//! How many calls go to the cloud at the same time: up by one with each success, halved by each "too many".

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After a halving, further refusals of calls that were already under way are not counted again.
const CALM: Duration = Duration::from_secs(1);
const LEAST: usize = 4;

/// The bound; waiting for a place is the caller's work.
#[derive(Debug)]
pub(crate) struct AdaptiveLimit {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    halved: Option<Instant>,
}

impl AdaptiveLimit {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(LEAST);
        Self {
            most,
            state: Mutex::new(State {
                limit: most as f64,
                halved: None,
            }),
        }
    }

    /// Calls that may be under way now.
    pub(crate) fn current(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The bounds below keep it between LEAST and `most`.
        state.limit as usize
    }

    pub(crate) fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.limit = (state.limit + 1.0 / state.limit).min(self.most as f64);
    }

    pub(crate) fn throttled(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .halved
            .is_none_or(|at| now.saturating_duration_since(at) >= CALM)
        {
            state.limit = (state.limit / 2.0).max(LEAST as f64);
            state.halved = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_halve_once_per_moment_and_successes_win_back() {
        let limit = AdaptiveLimit::new(64);
        let now = Instant::now();
        for _ in 0..50 {
            limit.throttled(now);
        }
        assert_eq!(limit.current(), 32);
        for step in 1..20 {
            limit.throttled(now + CALM * step);
        }
        assert_eq!(limit.current(), LEAST);
        for _ in 0..10_000 {
            limit.succeeded();
        }
        assert_eq!(limit.current(), 64);
    }
}

//! Scales first: what can wait lets the runs pass whose target is not written yet.

use std::time::Duration;

use tokio::sync::watch;

/// Longest wait of what can wait; a target that takes long must not hold up everybody's outcomes.
const WAIT_MOST: Duration = Duration::from_secs(1);

/// How many runs are about to write their target.
pub(super) struct Rush {
    running: watch::Sender<usize>,
    wait_most: Duration,
}

/// One of them, until it is dropped.
pub(super) struct Running<'r>(&'r Rush);

impl Rush {
    pub(super) fn new() -> Self {
        Self {
            running: watch::Sender::new(0),
            wait_most: WAIT_MOST,
        }
    }

    pub(super) fn enter(&self) -> Running<'_> {
        self.running.send_modify(|running| *running += 1);
        Running(self)
    }

    /// Returns when no run is about to write, or after a while.
    pub(super) async fn let_pass(&self) {
        let mut running = self.running.subscribe();
        let none = running.wait_for(|running| *running == 0);
        // A wait that is over in time and one that is not come to the same.
        let _ = tokio::time::timeout(self.wait_most, none).await;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Nobody is woken before the last one is through.
        self.0.running.send_if_modified(|running| {
            *running -= 1;
            *running == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_can_wait_waits_for_the_last_run_but_not_for_ever() {
        let rush = Rush {
            wait_most: Duration::from_millis(5),
            ..Rush::new()
        };
        assert!(rush.let_pass().now_or_never().is_some());
        let (first, second) = (rush.enter(), rush.enter());
        drop(first);
        assert!(rush.let_pass().now_or_never().is_none());
        rush.let_pass().await;
        drop(second);
        assert!(rush.let_pass().now_or_never().is_some());
    }
}

//! A clock that stands still until the test moves it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elastic_controllers::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

#[derive(Debug)]
pub struct SimulatedClock {
    time: watch::Sender<Timestamp>,
    asked: AtomicUsize,
}

impl SimulatedClock {
    pub fn at(text: &str) -> Self {
        Self {
            time: watch::Sender::new(text.parse().unwrap()),
            asked: AtomicUsize::new(0),
        }
    }

    pub fn set(&self, text: &str) {
        self.move_to(text.parse().unwrap());
    }

    pub fn move_to(&self, at: Timestamp) {
        self.time.send_replace(at);
    }

    /// How often somebody wanted to know the time.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns when nobody has asked for the time for a while.
    pub async fn settled(&self) {
        let mut before = usize::MAX;
        while before != self.asked() {
            before = self.asked();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.asked.fetch_add(1, Ordering::Relaxed);
        *self.time.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let mut receiver = self.time.subscribe();
        async move {
            // The sender lives as long as the clock.
            let _ = receiver.wait_for(|now| *now >= at).await;
        }
        .boxed()
    }
}

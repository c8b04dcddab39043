//! A clock that stands still until the test moves it.

use elastic_controllers::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

#[derive(Debug)]
pub struct SimulatedClock(watch::Sender<Timestamp>);

impl SimulatedClock {
    pub fn at(text: &str) -> Self {
        Self(watch::Sender::new(text.parse().unwrap()))
    }

    pub fn set(&self, text: &str) {
        self.move_to(text.parse().unwrap());
    }

    pub fn move_to(&self, at: Timestamp) {
        self.0.send_replace(at);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let mut receiver = self.0.subscribe();
        async move {
            // The sender lives as long as the clock.
            let _ = receiver.wait_for(|now| *now >= at).await;
        }
        .boxed()
    }
}

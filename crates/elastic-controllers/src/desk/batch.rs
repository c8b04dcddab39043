//! Serves those who wait for the same thing together: whoever comes while others are served is served with the next lot.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Newcomer;

/// More than this many do not wait; their pods are let in unchanged.
const MAX_WAITING: usize = 2048;
/// Whoever served may go away in the middle of it; then the others come again.
const MAX_ROUNDS: usize = 3;

/// The pod with its place, or nothing.
pub(super) type Outcome = Option<Value>;

/// One for each policy.
#[derive(Default)]
pub(super) struct Counter {
    waiting: Mutex<Vec<(Newcomer, oneshot::Sender<Outcome>)>>,
    serving: tokio::sync::Mutex<()>,
}

impl Counter {
    /// Waits for its turn; one of those who wait serves all of them. `None` without an answer.
    pub(super) async fn ask<F>(
        &self,
        newcomer: Newcomer,
        serve: impl Fn(Vec<Newcomer>) -> F,
    ) -> Option<Outcome>
    where
        F: Future<Output = Vec<Outcome>>,
    {
        for _ in 0..MAX_ROUNDS {
            let (sender, mut answer) = oneshot::channel();
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.len() >= MAX_WAITING {
                    return None;
                }
                waiting.push((newcomer.clone(), sender));
            }
            let turn = self.serving.lock().await;
            match answer.try_recv() {
                Ok(outcome) => return Some(outcome),
                Err(TryRecvError::Closed) => continue,
                Err(TryRecvError::Empty) => {}
            }
            let (asks, senders): (Vec<_>, Vec<_>) = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *waiting).into_iter().unzip()
            };
            for (sender, outcome) in senders.into_iter().zip(serve(asks).await) {
                // Somebody who went away needs no answer.
                let _ = sender.send(outcome);
            }
            drop(turn);
            if let Ok(outcome) = answer.try_recv() {
                return Some(outcome);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    fn newcomer(number: usize) -> Newcomer {
        Newcomer {
            uid: format!("u-{number}"),
            namespace: "shop".into(),
            pod: json!({"number": number}),
            dry_run: false,
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_served_together_and_each_gets_its_own_answer() {
        let counter = Arc::new(Counter::default());
        let rounds = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (counter, rounds) = (counter.clone(), rounds.clone());
            tasks.spawn(async move {
                let serve = |asks: Vec<Newcomer>| {
                    rounds.fetch_add(1, Ordering::Relaxed);
                    async move {
                        tokio::task::yield_now().await;
                        asks.into_iter().map(|ask| Some(ask.pod)).collect()
                    }
                };
                let answer = counter.ask(newcomer(number), serve).await;
                assert_eq!(answer, Some(Some(json!({"number": number}))));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert!(rounds.load(Ordering::Relaxed) < 50);
    }

    #[tokio::test]
    async fn who_serves_and_goes_away_leaves_nobody_without_an_answer() {
        let counter = Counter::default();
        let hang = counter.ask(newcomer(1), |_| std::future::pending());
        {
            let mut hang = std::pin::pin!(hang);
            assert!(futures::poll!(hang.as_mut()).is_pending());
        }
        let serve = |asks: Vec<Newcomer>| async move {
            asks.into_iter().map(|ask| Some(ask.pod)).collect()
        };
        let answer = counter.ask(newcomer(2), serve).await;
        assert_eq!(answer, Some(Some(json!({"number": 2}))));
    }
}

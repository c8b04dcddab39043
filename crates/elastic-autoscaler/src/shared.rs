//! Answers that several autoscalers ask for at nearly the same time: asked for once, kept for a moment. What failed is
//! kept as well, so that a metrics API that is down is not asked once for each autoscaler.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Different questions kept; past this, those that are no longer fresh are forgotten, then all.
const QUESTIONS_MAX: usize = 8_192;

type Slot<T, E> = Arc<tokio::sync::Mutex<Option<(Instant, Result<T, E>)>>>;

/// Answers by question.
pub(crate) struct Shared<T, E> {
    freshness: Duration,
    slots: Mutex<HashMap<String, Slot<T, E>>>,
}

impl<T: Clone, E: Clone> Shared<T, E> {
    /// Keeps answers for that long.
    pub(crate) fn new(freshness: Duration) -> Self {
        Shared {
            freshness,
            slots: Mutex::default(),
        }
    }

    /// The answer to a question: the one just given, or that of `ask`. Who asks meanwhile waits for it.
    pub(crate) async fn get<F>(&self, question: &str, ask: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let slot = self.slot(question);
        let mut known = slot.lock().await;
        if let Some((at, answer)) = known.as_ref()
            && at.elapsed() < self.freshness
        {
            return answer.clone();
        }
        let asked = Instant::now();
        let answer = ask().await;
        *known = Some((asked, answer.clone()));
        answer
    }

    /// Forgets one answer.
    pub(crate) fn forget(&self, question: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.remove(question);
    }

    fn slot(&self, question: &str) -> Slot<T, E> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slots.get(question) {
            return Arc::clone(known);
        }
        if slots.len() >= QUESTIONS_MAX {
            let is_fresh = |slot: &Slot<T, E>| match slot.try_lock() {
                Ok(known) => known
                    .as_ref()
                    .is_some_and(|(at, _)| at.elapsed() < self.freshness),
                Err(_) => true,
            };
            slots.retain(|_, slot| is_fresh(slot));
            if slots.len() >= QUESTIONS_MAX {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(question.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_once_while_its_answer_is_fresh() {
        let shared: Shared<u32, String> = Shared::new(Duration::from_secs(1));
        let asked = AtomicU32::new(0);
        let ask = || async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(asked.fetch_add(1, Ordering::Relaxed))
        };
        let (one, other) = tokio::join!(shared.get("a", ask), shared.get("a", ask));
        assert_eq!((one, other), (Ok(0), Ok(0)));
        assert_eq!(shared.get("b", ask).await, Ok(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shared.get("a", ask).await, Ok(2));
        shared.forget("a");
        assert_eq!(shared.get("a", ask).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_as_well_and_the_number_of_questions_is_bounded() {
        let shared: Shared<u32, String> = Shared::new(Duration::from_secs(1));
        let down = || async { Err("down".to_owned()) };
        assert_eq!(shared.get("x", down).await, Err("down".to_owned()));
        let up = || async { Ok(1) };
        assert_eq!(shared.get("x", up).await, Err("down".to_owned()));
        tokio::time::advance(Duration::from_secs(2)).await;
        for question in 0..2 * QUESTIONS_MAX {
            assert_eq!(shared.get(&question.to_string(), up).await, Ok(1));
        }
        assert!(shared.slots.lock().unwrap().len() <= QUESTIONS_MAX);
    }
}

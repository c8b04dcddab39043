//! A queue of keys to look at: a key waits at most once, is handled by one worker at a time, and comes again when it
//! was added meanwhile. Holds no more entries than there are keys; keys carry no data.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::requests::ControllerError;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a worker wants after handling a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Wait,
    /// Another look after this time.
    After(Duration),
}

struct Inner<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    handling: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

/// The queue.
pub struct WorkQueue<K> {
    inner: Mutex<Inner<K>>,
    wake: Notify,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            handling: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        };
        WorkQueue {
            inner: Mutex::new(inner),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// Adds a key for now.
    pub fn add(&self, key: K) {
        if self.lock().add(key) {
            self.wake.notify_one();
        }
    }

    /// Adds a key for later; an earlier time already noted stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut inner = self.lock();
        let at = Instant::now() + delay;
        if let Some(known) = inner.due.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            inner.delayed.remove(&known);
        }
        inner.sequence += 1;
        let slot = (at, inner.sequence);
        inner.due.insert(key.clone(), slot);
        inner.delayed.insert(slot, key);
        drop(inner);
        self.wake.notify_one();
    }

    /// Adds a key after a delay that doubles with each failure in a row.
    pub fn retry(&self, key: K) {
        let delay = {
            let mut inner = self.lock();
            let failures = inner.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            RETRY_FIRST
                .saturating_mul(1_u32.checked_shl(*failures - 1).unwrap_or(u32::MAX))
                .min(RETRY_MAX)
        };
        self.add_after(key, delay);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key, once there is one. [`WorkQueue::done`] must follow.
    pub async fn next(&self) -> K {
        loop {
            let notified = self.wake.notified();
            let earliest = {
                let mut inner = self.lock();
                inner.move_due(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.waiting.remove(&key);
                    inner.handling.insert(key.clone());
                    if !inner.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                inner.delayed.keys().next().map(|(at, _)| *at)
            };
            match earliest {
                Some(at) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => notified.await,
            }
        }
    }

    /// Ends the handling of a key; it comes again at once when it was added meanwhile.
    pub fn done(&self, key: &K) {
        let mut inner = self.lock();
        inner.handling.remove(key);
        if inner.waiting.contains(key) {
            inner.ready.push_back(key.clone());
            drop(inner);
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord + Display + Send + Sync + 'static> WorkQueue<K> {
    /// Starts workers that handle keys until the cluster shuts down. A failure is logged and retried.
    pub fn start_workers<F, Fut>(
        self: &Arc<Self>,
        controller: &'static str,
        count: usize,
        cluster: &Cluster,
        handle: F,
    ) where
        F: Fn(K) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, ControllerError>> + Send,
    {
        for _ in 0..count {
            let (queue, handle, shutdown) =
                (Arc::clone(self), handle.clone(), cluster.shutdown().clone());
            cluster.spawn(async move {
                loop {
                    let key = tokio::select! {
                        () = shutdown.cancelled() => return,
                        key = queue.next() => key,
                    };
                    let result = tokio::select! {
                        () = shutdown.cancelled() => return,
                        result = handle(key.clone()) => result,
                    };
                    queue.settle(controller, key, result);
                }
            });
        }
    }

    fn settle(&self, controller: &'static str, key: K, result: Result<Next, ControllerError>) {
        match result {
            Ok(next) => {
                self.forget(&key);
                if let Next::After(delay) = next {
                    self.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                if error.is_race() {
                    tracing::debug!(controller, object = %key, error = &error as &dyn std::error::Error, "retrying");
                } else {
                    tracing::warn!(controller, object = %key, error = &error as &dyn std::error::Error, "retrying");
                }
                self.retry(key.clone());
            }
        }
        self.done(&key);
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    /// Whether a worker should look.
    fn add(&mut self, key: K) -> bool {
        if !self.waiting.insert(key.clone()) || self.handling.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((slot, _)) = self.delayed.first_key_value() {
            if slot.0 > now {
                break;
            }
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_twice_is_handled_once() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        assert!(futures::poll!(std::pin::pin!(queue.next())).is_pending());
    }

    #[tokio::test]
    async fn a_key_added_while_handled_comes_again_afterwards() {
        let queue = WorkQueue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(futures::poll!(std::pin::pin!(queue.next())).is_pending());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_delays_counts() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert!(futures::poll!(std::pin::pin!(queue.next())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_longer_each_time_until_forgotten() {
        let queue = WorkQueue::default();
        let mut waited = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            queue.retry("a");
            let key = queue.next().await;
            queue.done(&key);
            waited.push(start.elapsed().as_millis());
        }
        assert_eq!(waited, [5, 10, 20]);
        queue.forget(&"a");
        let start = Instant::now();
        queue.retry("a");
        queue.next().await;
        assert_eq!(start.elapsed().as_millis(), 5);
    }
}

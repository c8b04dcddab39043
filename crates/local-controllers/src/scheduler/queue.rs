//! The pods that wait for a node: ready to be tried, backing off, or set aside until something changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shared::ObjectKey;

const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    priority: Reverse<i32>,
    sequence: u64,
    key: ObjectKey,
}

#[derive(Debug, Default)]
struct Attempts {
    count: u32,
    not_before: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    active: BTreeSet<Turn>,
    turns: HashMap<ObjectKey, Turn>,
    backing_off: BTreeMap<(Instant, u64), (ObjectKey, i32)>,
    aside: HashMap<ObjectKey, Aside>,
    in_hand: HashSet<ObjectKey>,
    attempts: HashMap<ObjectKey, Attempts>,
    sequence: u64,
    /// Counts wake-ups, so that one during an attempt is not lost.
    wakes: Mark,
}

/// Why a pod waits that fits nowhere.
#[derive(Clone, Copy, Debug)]
pub struct Aside {
    /// The pod's priority.
    pub priority: i32,
    /// Whether a new neighbour may be what it waits for.
    pub minds_neighbours: bool,
}

/// Which changes an attempt has taken into account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    room: u64,
    neighbours: u64,
}

/// The queue.
#[derive(Default)]
pub struct PodQueue {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl PodQueue {
    /// Adds a pod that is new or has changed.
    pub fn add(&self, key: ObjectKey, priority: i32) {
        let mut inner = self.lock();
        inner.drop_waiting(&key);
        inner.activate(key, priority);
        drop(inner);
        self.changed.notify_one();
    }

    /// Drops a pod that needs no node any more.
    pub fn remove(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        inner.drop_waiting(key);
        inner.attempts.remove(key);
        inner.in_hand.remove(key);
    }

    /// The next pod with the mark to give back when it fits nowhere.
    pub async fn next(&self) -> (ObjectKey, Mark) {
        loop {
            let changed = self.changed.notified();
            let earliest = {
                let mut inner = self.lock();
                inner.end_back_offs(Instant::now());
                if let Some(turn) = inner.active.pop_first() {
                    inner.turns.remove(&turn.key);
                    inner.in_hand.insert(turn.key.clone());
                    return (turn.key, inner.wakes);
                }
                inner.backing_off.keys().next().map(|(at, _)| *at)
            };
            match earliest {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Sets a pod aside that fits nowhere; it comes again after [`PodQueue::wake`], not before its back-off is over.
    pub fn set_aside(&self, key: ObjectKey, aside: Aside, mark: Mark) {
        let mut inner = self.lock();
        if !inner.in_hand.remove(&key) || inner.turns.contains_key(&key) {
            return;
        }
        let attempts = inner.attempts.entry(key.clone()).or_default();
        attempts.count = attempts.count.saturating_add(1);
        let back_off = BACK_OFF_FIRST
            .saturating_mul(1_u32.checked_shl(attempts.count - 1).unwrap_or(u32::MAX));
        attempts.not_before = Some(Instant::now() + back_off.min(BACK_OFF_MAX));
        let missed_nothing = inner.wakes.room == mark.room
            && (!aside.minds_neighbours || inner.wakes.neighbours == mark.neighbours);
        if missed_nothing {
            inner.aside.insert(key, aside);
        } else {
            inner.back_off(key, aside.priority);
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// Tries a pod again after its back-off, whatever happens: its binding failed.
    pub fn retry(&self, key: ObjectKey, priority: i32) {
        // No attempt has ever taken these changes into account, so that the pod does not wait for another one.
        let mark = Mark {
            room: u64::MAX,
            neighbours: u64::MAX,
        };
        self.lock().in_hand.insert(key.clone());
        self.set_aside(
            key,
            Aside {
                priority,
                minds_neighbours: false,
            },
            mark,
        );
    }

    /// There may be room now for any pod set aside.
    pub fn wake(&self) {
        let mut inner = self.lock();
        inner.wakes.room += 1;
        inner.wake(|_| true);
        drop(inner);
        self.changed.notify_one();
    }

    /// A pod has found its place, which may be what others with affinity wait for.
    pub fn wake_neighbours(&self) {
        let mut inner = self.lock();
        inner.wakes.neighbours += 1;
        inner.wake(|aside| aside.minds_neighbours);
        drop(inner);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn activate(&mut self, key: ObjectKey, priority: i32) {
        if self.turns.contains_key(&key) {
            return;
        }
        self.sequence += 1;
        let turn = Turn {
            priority: Reverse(priority),
            sequence: self.sequence,
            key: key.clone(),
        };
        self.active.insert(turn.clone());
        self.turns.insert(key, turn);
    }

    fn back_off(&mut self, key: ObjectKey, priority: i32) {
        let not_before = self
            .attempts
            .get(&key)
            .and_then(|attempts| attempts.not_before);
        match not_before {
            Some(at) if at > Instant::now() => {
                self.sequence += 1;
                self.backing_off
                    .insert((at, self.sequence), (key, priority));
            }
            _ => self.activate(key, priority),
        }
    }

    fn wake(&mut self, helps: impl Fn(&Aside) -> bool) {
        let woken: Vec<_> = self.aside.extract_if(|_, aside| helps(aside)).collect();
        for (key, aside) in woken {
            self.back_off(key, aside.priority);
        }
    }

    fn end_back_offs(&mut self, now: Instant) {
        while self
            .backing_off
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= now)
        {
            if let Some((_, (key, priority))) = self.backing_off.pop_first() {
                self.activate(key, priority);
            }
        }
    }

    fn drop_waiting(&mut self, key: &ObjectKey) {
        if let Some(turn) = self.turns.remove(key) {
            self.active.remove(&turn);
        }
        self.aside.remove(key);
        self.backing_off.retain(|_, (known, _)| known != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("n", name)
    }

    const ASIDE: Aside = Aside {
        priority: 0,
        minds_neighbours: false,
    };

    async fn is_empty(queue: &PodQueue) -> bool {
        futures::poll!(std::pin::pin!(queue.next())).is_pending()
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_then_earlier_arrival_goes_first() {
        let queue = PodQueue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("c", 10)] {
            queue.add(key(name), priority);
        }
        let order = [
            queue.next().await.0,
            queue.next().await.0,
            queue.next().await.0,
        ];
        assert_eq!(order, [key("c"), key("a"), key("b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_set_aside_waits_for_a_change_and_its_back_off() {
        let queue = PodQueue::default();
        queue.add(key("a"), 0);
        let (pod, mark) = queue.next().await;
        queue.set_aside(pod, ASIDE, mark);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(is_empty(&queue).await);
        queue.wake();
        let (pod, mark) = queue.next().await;
        queue.set_aside(pod, ASIDE, mark);
        let start = Instant::now();
        queue.wake();
        queue.next().await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_attempt_is_not_lost() {
        let queue = PodQueue::default();
        queue.add(key("a"), 0);
        let (pod, mark) = queue.next().await;
        queue.wake();
        queue.set_aside(pod, ASIDE, mark);
        assert_eq!(queue.next().await.0, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_pod_never_comes() {
        let queue = PodQueue::default();
        queue.add(key("a"), 0);
        queue.remove(&key("a"));
        queue.add(key("b"), 0);
        let (pod, mark) = queue.next().await;
        queue.remove(&pod);
        queue.set_aside(pod, ASIDE, mark);
        queue.wake();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(is_empty(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_neighbour_wakes_only_those_who_mind() {
        let queue = PodQueue::default();
        for name in ["a", "b"] {
            queue.add(key(name), 0);
            let (pod, mark) = queue.next().await;
            let aside = Aside {
                minds_neighbours: name == "b",
                ..ASIDE
            };
            queue.set_aside(pod, aside, mark);
        }
        queue.wake_neighbours();
        assert_eq!(queue.next().await.0, key("b"));
        assert!(is_empty(&queue).await);
    }
}

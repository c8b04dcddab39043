//! One alarm a key, all in one heap: what is due is found without looking at what is not.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// Alarms that were replaced stay in the heap until there are this many more than living ones.
const STALE_MOST: usize = 64;

/// Keys and when each is to be woken.
#[derive(Debug)]
pub(crate) struct Alarms<K> {
    heap: BinaryHeap<Reverse<(Timestamp, u64)>>,
    keys: HashMap<u64, K>,
    current: HashMap<K, u64>,
    next_number: u64,
}

impl<K: Clone + Eq + Hash> Alarms<K> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            keys: HashMap::new(),
            current: HashMap::new(),
            next_number: 0,
        }
    }

    /// Sets, moves or (with none) removes the alarm of `key`.
    pub(crate) fn set(&mut self, key: &K, at: Option<Timestamp>) {
        if let Some(number) = self.current.remove(key) {
            self.keys.remove(&number);
        }
        if let Some(at) = at {
            let number = self.next_number;
            self.next_number += 1;
            self.heap.push(Reverse((at, number)));
            self.keys.insert(number, key.clone());
            self.current.insert(key.clone(), number);
        }
        if self.heap.len() > 2 * self.current.len() + STALE_MOST {
            let keys = &self.keys;
            self.heap
                .retain(|Reverse((_, number))| keys.contains_key(number));
        }
    }

    /// When the first alarm is.
    pub(crate) fn next_at(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((at, number))) = self.heap.peek() {
            if self.keys.contains_key(number) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes out the keys whose alarm is at `now` or before, the earliest first.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<K> {
        let mut due = Vec::new();
        while self.next_at().is_some_and(|at| at <= now) {
            let Some(Reverse((_, number))) = self.heap.pop() else {
                break;
            };
            if let Some(key) = self.keys.remove(&number) {
                self.current.remove(&key);
                due.push(key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_due_comes_in_order_and_once() {
        let mut alarms = Alarms::new();
        alarms.set(&"late", Some(at(30)));
        alarms.set(&"second", Some(at(20)));
        alarms.set(&"first", Some(at(10)));
        assert_eq!(alarms.next_at(), Some(at(10)));
        assert_eq!(alarms.due(at(20)), ["first", "second"]);
        assert!(alarms.due(at(20)).is_empty());
        assert_eq!(alarms.next_at(), Some(at(30)));
    }

    #[test]
    fn an_alarm_that_is_moved_or_removed_does_not_ring() {
        let mut alarms = Alarms::new();
        alarms.set(&"moved", Some(at(10)));
        alarms.set(&"moved", Some(at(40)));
        alarms.set(&"removed", Some(at(10)));
        alarms.set(&"removed", None);
        assert!(alarms.due(at(39)).is_empty());
        assert_eq!(alarms.due(at(40)), ["moved"]);
        assert_eq!(alarms.next_at(), None);
    }

    #[test]
    fn ten_thousand_alarms_that_move_for_ever_stay_ten_thousand() {
        let mut alarms = Alarms::new();
        for round in 0..5 {
            for key in 0..10_000 {
                alarms.set(&key, Some(at(round * 60 + i64::from(key % 60))));
            }
        }
        assert!(alarms.heap.len() <= 20_000 + STALE_MOST);
        assert_eq!(alarms.due(at(4 * 60)).len(), 167, "those of one second");
        assert_eq!(alarms.keys.len(), alarms.current.len());
    }
}

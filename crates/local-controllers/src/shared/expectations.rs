//! What a controller has asked for and not yet seen: as long as something is expected, its view of the children is
//! old and it must not create or delete again. Expectations lapse, so that a lost event never stops it for good.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cache::ObjectKey;

const LAPSE: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Expected {
    creations: usize,
    deletions: HashSet<ObjectKey>,
    since: Instant,
}

/// Open expectations by the controlling object.
#[derive(Debug, Default)]
pub struct Expectations {
    open: Mutex<HashMap<ObjectKey, Expected>>,
}

impl Expectations {
    /// Expects that many new children.
    pub fn expect_creations(&self, owner: &ObjectKey, count: usize) {
        let mut open = self.lock();
        let expected = Expected {
            creations: count,
            deletions: HashSet::new(),
            since: Instant::now(),
        };
        open.insert(owner.clone(), expected);
    }

    /// Expects these children to go.
    pub fn expect_deletions(
        &self,
        owner: &ObjectKey,
        children: impl IntoIterator<Item = ObjectKey>,
    ) {
        let deletions = children.into_iter().collect();
        self.lock().insert(
            owner.clone(),
            Expected {
                creations: 0,
                deletions,
                since: Instant::now(),
            },
        );
    }

    /// A child was seen, or its creation failed.
    pub fn creation_seen(&self, owner: &ObjectKey) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// A child is going or gone, or its deletion failed.
    pub fn deletion_seen(&self, owner: &ObjectKey, child: &ObjectKey) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deletions.remove(child);
        }
    }

    /// Whether nothing is open.
    pub fn are_met(&self, owner: &ObjectKey) -> bool {
        self.lock().get(owner).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty())
                || expected.since.elapsed() > LAPSE
        })
    }

    /// Drops everything about an owner that is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Expected>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn creations_are_met_once_all_are_seen_or_lapse() {
        let (expectations, owner) = (Expectations::default(), ObjectKey::new("n", "set"));
        expectations.expect_creations(&owner, 2);
        expectations.creation_seen(&owner);
        assert!(!expectations.are_met(&owner));
        expectations.creation_seen(&owner);
        assert!(expectations.are_met(&owner));
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(LAPSE + Duration::from_secs(1)).await;
        assert!(expectations.are_met(&owner));
    }

    #[test]
    fn deletions_are_told_apart_by_child() {
        let (expectations, owner) = (Expectations::default(), ObjectKey::new("n", "set"));
        let (one, two) = (ObjectKey::new("n", "one"), ObjectKey::new("n", "two"));
        expectations.expect_deletions(&owner, [one.clone(), two.clone()]);
        expectations.deletion_seen(&owner, &one);
        expectations.deletion_seen(&owner, &one);
        assert!(!expectations.are_met(&owner));
        expectations.deletion_seen(&owner, &two);
        assert!(expectations.are_met(&owner));
    }
}

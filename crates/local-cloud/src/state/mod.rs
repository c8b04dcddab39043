//! Everything the cloud knows, in memory; what has changed since it was last written is marked.

pub(crate) mod pools;
pub(crate) mod record;

use crate::ledger::LedgerEntry;
use jiff::Timestamp;
use pools::Pools;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use record::GroupRecord;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use tokio::sync::watch;

/// How long a client token is remembered.
const TOKEN_MEMORY_SECONDS: i64 = 24 * 3_600;
/// Most client tokens remembered; beyond it the oldest go first.
const MAX_TOKENS: usize = 200_000;

/// The answer that a client token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// Hash of the parameters it was first used with.
    pub(crate) fingerprint: String,
    pub(crate) group_id: String,
    pub(crate) used_at: Timestamp,
}

/// What is to become of a group's row on disk.
#[derive(Debug)]
pub(crate) enum DirtyGroup {
    Changed,
    Removed(Option<LedgerEntry>),
}

/// Tells a group's supervisor what is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) deleting: bool,
    pub(crate) generation: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<String, GroupRecord>,
    pub(crate) wanted: HashMap<String, watch::Sender<Wanted>>,
    pub(crate) tokens: HashMap<String, TokenRecord>,
    pub(crate) pools: Pools,
    random: StdRng,
    pub(crate) dirty_groups: HashMap<String, DirtyGroup>,
    /// Those of them that somebody waits for.
    pub(crate) urgent_groups: HashSet<String>,
    /// Somebody waits for everything.
    pub(crate) flush: bool,
    /// `None` where a token was forgotten.
    pub(crate) dirty_tokens: HashMap<String, Option<TokenRecord>>,
    /// Rises with every mark.
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn new(
        pools: Pools,
        groups: BTreeMap<String, GroupRecord>,
        tokens: HashMap<String, TokenRecord>,
        seed: u64,
    ) -> Self {
        let mut state = Self {
            groups,
            wanted: HashMap::new(),
            tokens,
            pools,
            random: StdRng::seed_from_u64(seed),
            dirty_groups: HashMap::new(),
            urgent_groups: HashSet::new(),
            flush: false,
            dirty_tokens: HashMap::new(),
            version: 0,
        };
        for group in state.groups.values().filter(|group| group.holds_resources) {
            state.pools.take_again(
                &group.zone,
                &group.v_switch,
                group.address,
                group.size.vcpu_milli,
            );
        }
        state
    }

    /// An id that no group has or had (the ledger is checked by the caller's seed being fresh per process).
    pub(crate) fn new_id(&mut self) -> String {
        const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        loop {
            let letters =
                (0..20).map(|_| char::from(LETTERS[self.random.random_range(0..LETTERS.len())]));
            let id: String = "eci-".chars().chain(letters).collect();
            if !self.groups.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.random);
    }

    pub(crate) fn mark_group(&mut self, id: &str) {
        self.version += 1;
        self.dirty_groups.insert(id.to_owned(), DirtyGroup::Changed);
    }

    /// Marks a group whose change is to be acknowledged.
    pub(crate) fn mark_urgent(&mut self, id: &str) {
        self.mark_group(id);
        self.urgent_groups.insert(id.to_owned());
    }

    /// Changes a group and marks it.
    pub(crate) fn change<T>(
        &mut self,
        id: &str,
        now: Timestamp,
        change: impl FnOnce(&mut GroupRecord) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let result = change(group);
        group.changed_at = now;
        group.refresh_conditions(now);
        self.mark_group(id);
        Some(result)
    }

    /// Gives stock and address back, once.
    pub(crate) fn release(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut group.holds_resources, false) {
            self.pools.give_back(
                &group.zone,
                &group.v_switch,
                group.address,
                group.size.vcpu_milli,
            );
            self.mark_group(id);
        }
    }

    /// Takes a group off the list for good; its bill stays.
    pub(crate) fn remove(&mut self, id: &str, now: Timestamp) {
        self.release(id);
        if let Some(mut group) = self.groups.remove(id) {
            group.close_bill(now);
            let entry = LedgerEntry::of(&group, now);
            self.version += 1;
            self.dirty_groups
                .insert(id.to_owned(), DirtyGroup::Removed(entry));
            self.wanted.remove(id);
        }
    }

    pub(crate) fn remember_token(&mut self, token: String, record: TokenRecord) {
        self.version += 1;
        self.dirty_tokens
            .insert(token.clone(), Some(record.clone()));
        self.tokens.insert(token, record);
    }

    /// Forgets client tokens that are too old, or too many.
    pub(crate) fn forget_old_tokens(&mut self, now: Timestamp) {
        let mut ages: Vec<(i64, String)> = self
            .tokens
            .iter()
            .map(|(token, record)| (record.used_at.as_second(), token.clone()))
            .collect();
        ages.sort_unstable();
        let surplus = ages.len().saturating_sub(MAX_TOKENS);
        let oldest = now.as_second() - TOKEN_MEMORY_SECONDS;
        for (index, (second, token)) in ages.into_iter().enumerate() {
            if index >= surplus && second >= oldest {
                break;
            }
            self.tokens.remove(&token);
            self.version += 1;
            self.dirty_tokens.insert(token, None);
        }
    }
}

//! Everything the cloud knows, in memory; what has changed since it was last written is marked.

pub(crate) mod faults;
pub(crate) mod identity;
pub(crate) mod pools;
pub(crate) mod record;
pub(crate) mod resources;
mod sweep;

use crate::ledger::LedgerEntry;
use jiff::Timestamp;
use pools::Pools;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use record::GroupRecord;
use resources::{FixedAddress, Resource, Resources};
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
    /// Rises when the supervisor is to look at the record again.
    pub(crate) prods: u64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<String, GroupRecord>,
    pub(crate) wanted: HashMap<String, watch::Sender<Wanted>>,
    pub(crate) tokens: HashMap<String, TokenRecord>,
    pub(crate) pools: Pools,
    pub(crate) resources: Resources,
    random: StdRng,
    pub(crate) dirty_groups: HashMap<String, DirtyGroup>,
    /// Those of them that somebody waits for.
    pub(crate) urgent_groups: HashSet<String>,
    /// Somebody waits for everything.
    pub(crate) flush: bool,
    /// `None` where a token was forgotten.
    pub(crate) dirty_tokens: HashMap<String, Option<TokenRecord>>,
    /// Rows of [`Resources`] as they are to be written; `None` where one is to go.
    pub(crate) dirty_rows: HashMap<String, Option<Vec<u8>>>,
    /// Rises with every mark.
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn new(
        pools: Pools,
        groups: BTreeMap<String, GroupRecord>,
        tokens: HashMap<String, TokenRecord>,
        resources: Resources,
        seed: u64,
    ) -> Self {
        let mut state = Self {
            groups,
            wanted: HashMap::new(),
            tokens,
            pools,
            resources,
            random: StdRng::seed_from_u64(seed),
            dirty_groups: HashMap::new(),
            urgent_groups: HashSet::new(),
            flush: false,
            dirty_tokens: HashMap::new(),
            dirty_rows: HashMap::new(),
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
        for eip in state.resources.eips.values() {
            state.pools.eips.take_exactly(eip.address);
        }
        for fixed in state.resources.fixed_addresses.values() {
            if let Some(v_switch) = state.pools.v_switch(&fixed.v_switch) {
                v_switch.addresses.take_exactly(fixed.address);
            }
        }
        for node in state.resources.virtual_nodes.values() {
            if let Some(v_switch) = state.pools.v_switch(&node.request.v_switch_id) {
                v_switch.addresses.take_exactly(node.address);
            }
        }
        state
    }

    /// An id that no group has or had (the ledger is checked by the caller's seed being fresh per process).
    pub(crate) fn new_id(&mut self) -> String {
        loop {
            let id = self.random_id("eci-");
            if !self.groups.contains_key(&id) {
                return id;
            }
        }
    }

    /// Twenty random letters and digits behind a beginning.
    pub(crate) fn random_id(&mut self, beginning: &str) -> String {
        const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let letters =
            (0..20).map(|_| char::from(LETTERS[self.random.random_range(0..LETTERS.len())]));
        beginning.chars().chain(letters).collect()
    }

    /// Puts a row into its table and marks it.
    pub(crate) fn put<T: Resource>(&mut self, id: &str, row: T) {
        // Every row is a plain structure of texts and numbers, which JSON can always hold.
        let bytes = serde_json::to_vec(&row).expect("a row can be written as JSON");
        self.mark_row::<T>(id, Some(bytes));
        T::table_mut(&mut self.resources).insert(id.to_owned(), row);
    }

    /// Changes a row and marks it; `None` when there is none.
    pub(crate) fn change_row<T: Resource, R>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let mut row = T::table(&self.resources).get(id)?.clone();
        let result = change(&mut row);
        self.put(id, row);
        Some(result)
    }

    /// Takes a row out of its table and marks that.
    pub(crate) fn take_row<T: Resource>(&mut self, id: &str) -> Option<T> {
        let row = T::table_mut(&mut self.resources).remove(id)?;
        self.mark_row::<T>(id, None);
        Some(row)
    }

    fn mark_row<T: Resource>(&mut self, id: &str, bytes: Option<Vec<u8>>) {
        self.version += 1;
        self.dirty_rows.insert(format!("{}/{id}", T::KIND), bytes);
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

    /// Lets a group's supervisor look at its record again.
    pub(crate) fn prod(&mut self, id: &str) {
        if let Some(wanted) = self.wanted.get(id) {
            wanted.send_modify(|wanted| wanted.prods += 1);
        }
    }

    /// Gives stock and addresses back, once. An address that was to be kept is kept for the next of the same name.
    pub(crate) fn release(&mut self, id: &str, now: Timestamp) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut group.holds_resources, false) {
            return;
        }
        self.pools
            .give_back_stock(&group.zone, group.size.vcpu_milli);
        let kept = FixedAddress::kept(group, now);
        let name = group.request.container_group_name.clone();
        let (v_switch, address) = (group.v_switch.clone(), group.address);
        let eip = group.eip.clone();
        match kept {
            Some(kept) => {
                // Of several groups of one name only the newest address is kept.
                if let Some(older) = self.take_row::<FixedAddress>(&name) {
                    self.pools.give_back_address(&older.v_switch, older.address);
                }
                self.put(&name, kept);
            }
            None => self.pools.give_back_address(&v_switch, address),
        }
        if let Some((eip, _)) = eip {
            self.release_eip(&eip);
        }
        self.mark_group(id);
    }

    /// Takes a public address off its user; one that was made for it goes.
    pub(crate) fn release_eip(&mut self, eip: &str) {
        let automatic = self
            .resources
            .eips
            .get(eip)
            .is_some_and(|eip| eip.automatic);
        if !automatic {
            self.change_row::<resources::EipRecord, _>(eip, |eip| eip.user = None);
        } else if let Some(gone) = self.take_row::<resources::EipRecord>(eip) {
            self.pools.eips.give_back(gone.address);
        }
    }

    /// Takes a group off the list for good; its bill stays.
    pub(crate) fn remove(&mut self, id: &str, now: Timestamp) {
        self.release(id, now);
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

impl FixedAddress {
    const DEFAULT_HOURS: i64 = 48;
    const LONGEST_HOURS: i64 = 24 * 365;

    /// The address of a group whose request said to keep it.
    fn kept(group: &GroupRecord, now: Timestamp) -> Option<Self> {
        let wanted = group.request.fixed_ip.as_deref()?;
        if !wanted.eq_ignore_ascii_case("true") {
            return None;
        }
        let hours = group
            .request
            .fixed_ip_retain_hour
            .unwrap_or(Self::DEFAULT_HOURS)
            .clamp(0, Self::LONGEST_HOURS);
        Some(Self {
            v_switch: group.v_switch.clone(),
            address: group.address,
            until: now
                .checked_add(jiff::SignedDuration::from_hours(hours))
                .ok()?,
        })
    }
}

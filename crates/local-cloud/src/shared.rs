//! What all parts of the cloud share, the writer that makes it durable, and the broom.

use crate::actions::faults::{self, FaultRefused};
use crate::actions::market;
use crate::backend::{GroupBackend, GroupPlan};
use crate::config::{CloudSources, LocalCloudConfig};
use crate::ledger::{Ledger, LedgerEntry};
use crate::metrics::Samples;
use crate::state::faults::{CallFaults, FaultOrder};
use crate::state::record::GroupRecord;
use crate::state::{DirtyGroup, State};
use crate::store::{Batch, Store};
use cloud_api::catalog::Catalog;
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest that a call waits for its change to be durable.
const LONGEST_WRITE: Duration = Duration::from_secs(10);
/// The pause after a write that failed.
const WRITE_AGAIN: Duration = Duration::from_millis(250);
/// How long changes that nobody waits for are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// How often ended groups and old tokens are looked through.
const BROOM_INTERVAL: Duration = Duration::from_secs(20);
/// Ended groups beyond the first hour that stay visible.
const KEEP_NEWEST_ENDED: usize = 100;

/// The cloud's records could not be written in time; the change may or may not have become durable.
#[derive(Debug, thiserror::Error)]
#[error("the cloud's records could not be written in time")]
pub struct StoreFailed;

pub(crate) struct Shared {
    pub(crate) config: LocalCloudConfig,
    pub(crate) catalog: Catalog,
    pub(crate) backend: Arc<dyn GroupBackend>,
    /// Whether there may be faults; most calls need not look.
    pub(crate) has_faults: AtomicBool,
    pub(crate) samples: Samples,
    /// Ends everything but the writer.
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    state: Mutex<State>,
    store: Store,
    wake_writer: Notify,
    /// Ends the writer, when nothing can change any more.
    pub(crate) stop_writer: CancellationToken,
    written: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(
        config: LocalCloudConfig,
        backend: Arc<dyn GroupBackend>,
        sources: CloudSources,
        state: State,
        store: Store,
    ) -> Self {
        Self {
            catalog: Catalog::new(config.large_region),
            config,
            backend,
            has_faults: AtomicBool::new(!state.resources.faults.is_empty()),
            samples: Samples::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            now: sources.now,
            state: Mutex::new(state),
            store,
            wake_writer: Notify::new(),
            stop_writer: CancellationToken::new(),
            written: watch::Sender::new(0),
        }
    }

    /// How long each stage of caches and nodes takes.
    pub(crate) fn stage(&self) -> SignedDuration {
        SignedDuration::try_from(self.config.stage).unwrap_or(SignedDuration::ZERO)
    }

    /// What the faults have in store for a call.
    pub(crate) fn faults_of(&self, action: &str) -> CallFaults {
        if !self.has_faults.load(Ordering::Acquire) {
            return CallFaults::default();
        }
        let now = self.now();
        let faults = self.state().hit_call(action, now);
        self.wake();
        faults
    }

    /// Takes an order for a fault and carries out at once what concerns groups that exist.
    pub(crate) fn order_fault(&self, order: FaultOrder) -> Result<String, FaultRefused> {
        let now = self.now();
        let mut state = self.state();
        let id = faults::order(&mut state, &self.config, order, now)?;
        self.has_faults.store(true, Ordering::Release);
        drop(state);
        self.wake();
        Ok(id)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// The state; whoever changes it wakes the writer afterwards ([`Shared::wake`], [`Shared::durable`]).
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.wake_writer.notify_one();
    }

    /// Changes a group, if it is still there. Becomes durable by and by.
    pub(crate) fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut GroupRecord, Timestamp) -> T,
    ) -> Option<T> {
        let now = self.now();
        let result = self.state().change(id, now, |group| change(group, now));
        self.wake();
        result
    }

    /// Waits until everything urgent up to this version has survived.
    pub(crate) async fn durable(&self, version: u64) -> Result<(), StoreFailed> {
        self.wake();
        let mut written = self.written.subscribe();
        let wait = written.wait_for(|written| *written >= version);
        match tokio::time::timeout(LONGEST_WRITE, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreFailed),
        }
    }

    /// The bill, with everything that has happened so far.
    pub(crate) async fn ledger(&self) -> Result<Ledger, StoreFailed> {
        let version = {
            let mut state = self.state();
            state.flush = true;
            // What was written so far was not necessarily everything.
            state.version += 1;
            state.version
        };
        self.durable(version).await?;
        let store = self.store.clone();
        let rows = tokio::task::spawn_blocking(move || store.ledger()).await;
        match rows {
            Ok(Ok(entries)) => Ok(Ledger::new(entries, self.now())),
            Ok(Err(error)) => {
                tracing::error!(%error, "ledger cannot be read");
                Err(StoreFailed)
            }
            Err(_) => Err(StoreFailed),
        }
    }

    /// What is to be written now: what somebody waits for, and with `all` the rest as well.
    fn take_batch(&self, all: bool) -> (Batch, u64) {
        let now = self.now();
        let mut state = self.state();
        let urgent = std::mem::take(&mut state.urgent_groups);
        let dirty = if std::mem::take(&mut state.flush) || all {
            std::mem::take(&mut state.dirty_groups)
        } else {
            urgent
                .into_iter()
                .filter_map(|id| state.dirty_groups.remove_entry(&id))
                .collect()
        };
        let mut batch = Batch {
            tokens: state.dirty_tokens.drain().collect(),
            rows: state.dirty_rows.drain().collect(),
            ..Default::default()
        };
        for (id, mark) in dirty {
            match (mark, state.groups.get(&id)) {
                (DirtyGroup::Changed, Some(group)) => {
                    batch.ledger.extend(LedgerEntry::of(group, now));
                    batch.groups.push((id, Some(group.clone())));
                }
                (DirtyGroup::Changed, None) => {}
                (DirtyGroup::Removed(entry), _) => {
                    batch.ledger.extend(entry);
                    batch.groups.push((id, None));
                }
            }
        }
        (batch, state.version)
    }

    fn has_unwritten(&self) -> bool {
        !self.state().dirty_groups.is_empty()
    }

    /// After a failed write: everything is marked again, unless something newer is.
    fn mark_again(&self, batch: Batch) {
        let mut state = self.state();
        let mut bills: std::collections::HashMap<String, LedgerEntry> = batch
            .ledger
            .into_iter()
            .map(|entry| (entry.group_id.clone(), entry))
            .collect();
        for (id, group) in batch.groups {
            let entry = bills.remove(&id);
            let mark = if group.is_some() {
                DirtyGroup::Changed
            } else {
                DirtyGroup::Removed(entry)
            };
            state.urgent_groups.insert(id.clone());
            state.dirty_groups.entry(id).or_insert(mark);
        }
        for (token, record) in batch.tokens {
            state.dirty_tokens.entry(token).or_insert(record);
        }
        for (key, row) in batch.rows {
            state.dirty_rows.entry(key).or_insert(row);
        }
    }
}

/// Writes what is marked, until it is told to stop and nothing is marked any more. What somebody waits for is
/// written at once; what merely happened is gathered for a moment first, so that it does not hold those up.
pub(crate) async fn run_writer(shared: Arc<Shared>) {
    let mut gathered_since = Instant::now();
    loop {
        let stopping = shared.stop_writer.is_cancelled();
        let all = stopping || gathered_since.elapsed() >= GATHER;
        let (batch, version) = shared.take_batch(all);
        if all {
            gathered_since = Instant::now();
        }
        if batch.is_empty() {
            shared.written.send_replace(version);
            if stopping {
                return;
            }
            let unwritten = shared.has_unwritten();
            tokio::select! {
                () = shared.wake_writer.notified() => {}
                () = shared.stop_writer.cancelled() => {}
                () = tokio::time::sleep_until(gathered_since + GATHER), if unwritten => {}
            }
            continue;
        }
        if !shared.store.keeps() {
            shared.written.send_replace(version);
            continue;
        }
        let store = shared.store.clone();
        let outcome = tokio::task::spawn_blocking(move || (store.write(&batch), batch)).await;
        match outcome {
            Ok((Ok(()), _)) => {
                shared.written.send_replace(version);
            }
            Ok((Err(error), batch)) => {
                tracing::error!(%error, "cloud's records cannot be written, trying again");
                shared.mark_again(batch);
                if stopping {
                    return;
                }
                tokio::time::sleep(WRITE_AGAIN).await;
            }
            // Only when the runtime itself goes down.
            Err(_) => return,
        }
    }
}

/// Takes ended groups off the list when their time is over, and forgets old client tokens.
pub(crate) async fn run_broom(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(BROOM_INTERVAL) => shared.sweep(),
        }
    }
}

impl Shared {
    /// One stroke of the broom.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let mut state = self.state();
        state.forget_old_tokens(now);
        state.sweep_rows(now);
        let has_faults = !state.resources.faults.is_empty();
        self.has_faults.store(has_faults, Ordering::Release);
        market::take_back_outbid(&mut state, &self.config, now);
        let keep = i64::try_from(self.config.keep_ended.as_secs()).unwrap_or(i64::MAX);
        let mut ended: Vec<(Timestamp, String)> = state
            .groups
            .values()
            .filter(|group| group.status.is_final() && !group.deleting)
            .filter(|group| now.as_second() - group.changed_at.as_second() > keep)
            .map(|group| (group.changed_at, group.id.clone()))
            .collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(KEEP_NEWEST_ENDED);
        for (_, id) in ended.into_iter().take(surplus) {
            ask_to_delete(&mut state, &id);
        }
        drop(state);
        self.wake();
    }
}

/// Marks a group for deletion and tells its supervisor.
pub(crate) fn ask_to_delete(state: &mut State, id: &str) {
    let Some(group) = state.groups.get_mut(id) else {
        return;
    };
    group.deleting = true;
    state.mark_urgent(id);
    if let Some(wanted) = state.wanted.get(id) {
        wanted.send_modify(|wanted| wanted.deleting = true);
    }
}

/// The group as its backend sees it.
pub(crate) fn plan_of(group: &GroupRecord) -> GroupPlan {
    GroupPlan {
        id: group.id.clone(),
        request: group.request.clone(),
        address: group.address,
        size: group.size,
        zone: group.zone.clone(),
        cached_images: group.cached_images.clone(),
        shares: group.shares.clone(),
    }
}

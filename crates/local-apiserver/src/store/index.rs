//! The in-memory index: current objects by resource and key, and their history.

use super::StoredObject;
use super::history::{Event, History};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;
use tokio::sync::watch;

/// Objects of one resource at one revision.
pub struct Snapshot {
    /// The revision the objects were read at.
    pub revision: u64,
    /// In key order.
    pub objects: Vec<(Arc<str>, Arc<StoredObject>)>,
}

/// Why a revision cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The history no longer reaches back that far.
    #[error("the revision is forgotten; the oldest readable one is {oldest}")]
    Forgotten {
        /// The oldest readable revision.
        oldest: u64,
    },
    /// It has not happened yet.
    #[error("the revision is in the future; the newest one is {newest}")]
    Future {
        /// The newest revision.
        newest: u64,
    },
}

struct ResourceState {
    objects: BTreeMap<Arc<str>, Arc<StoredObject>>,
    history: History,
    changed: watch::Sender<u64>,
}

impl ResourceState {
    fn new(floor: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: History::new(floor),
            changed: watch::Sender::new(floor),
        }
    }

    fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<StoredObject>)> {
        self.objects
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

struct State {
    revision: u64,
    resources: HashMap<Arc<str>, ResourceState>,
    /// History of resources without a state of their own starts here.
    floor: u64,
}

pub(super) struct Index {
    state: RwLock<State>,
}

impl Index {
    pub fn new(objects: Vec<(Arc<str>, Arc<str>, Arc<StoredObject>)>, revision: u64) -> Self {
        let mut resources: HashMap<Arc<str>, ResourceState> = HashMap::new();
        for (resource, key, object) in objects {
            resources
                .entry(resource)
                .or_insert_with(|| ResourceState::new(revision))
                .objects
                .insert(key, object);
        }
        Self {
            state: RwLock::new(State {
                revision,
                resources,
                floor: revision,
            }),
        }
    }

    // A poisoned lock means a panic between two plain map operations; the maps are still whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state
            .write()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    pub fn get(&self, resource: &str, key: &str) -> Option<Arc<StoredObject>> {
        self.read()
            .resources
            .get(resource)?
            .objects
            .get(key)
            .cloned()
    }

    pub fn current(&self, resource: &str, key: &str) -> Option<u64> {
        Some(
            self.read()
                .resources
                .get(resource)?
                .objects
                .get(key)?
                .revision,
        )
    }

    pub fn count(&self, resource: &str) -> usize {
        self.read()
            .resources
            .get(resource)
            .map_or(0, |state| state.objects.len())
    }

    pub fn resources(&self) -> Vec<Arc<str>> {
        let state = self.read();
        state
            .resources
            .iter()
            .filter(|(_, resource)| !resource.objects.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    pub fn list(&self, resource: &str, prefix: &str) -> Snapshot {
        let state = self.read();
        let objects = state
            .resources
            .get(resource)
            .map_or_else(Vec::new, |found| {
                found
                    .range(prefix)
                    .map(|(key, object)| (key.clone(), object.clone()))
                    .collect()
            });
        Snapshot {
            revision: state.revision,
            objects,
        }
    }

    pub fn list_at(
        &self,
        resource: &str,
        prefix: &str,
        revision: u64,
    ) -> Result<Snapshot, SnapshotError> {
        let state = self.read();
        if revision > state.revision {
            return Err(SnapshotError::Future {
                newest: state.revision,
            });
        }
        let Some(found) = state.resources.get(resource) else {
            return Ok(Snapshot {
                revision,
                objects: Vec::new(),
            });
        };
        let forgotten = SnapshotError::Forgotten {
            oldest: found.history.floor(),
        };
        let events = found.history.after(revision).ok_or(forgotten)?;
        let mut objects: BTreeMap<Arc<str>, Arc<StoredObject>> = found
            .range(prefix)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for event in events.rev().filter(|event| event.key.starts_with(prefix)) {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), previous.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok(Snapshot {
            revision,
            objects: objects.into_iter().collect(),
        })
    }

    pub fn events_after(
        &self,
        resource: &str,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), SnapshotError> {
        let state = self.read();
        let Some(found) = state.resources.get(resource) else {
            if after < state.floor {
                return Err(SnapshotError::Forgotten {
                    oldest: state.floor,
                });
            }
            return Ok((Vec::new(), state.revision));
        };
        let forgotten = SnapshotError::Forgotten {
            oldest: found.history.floor(),
        };
        let mut events = found.history.after(after).ok_or(forgotten)?;
        let taken: Vec<Arc<Event>> = events.by_ref().take(limit).cloned().collect();
        let complete = match (events.next(), taken.last()) {
            (Some(_), Some(last)) => last.revision,
            _ => state.revision,
        };
        Ok((taken, complete))
    }

    pub fn changes(&self, resource: &str) -> watch::Receiver<u64> {
        if let Some(found) = self.read().resources.get(resource) {
            return found.changed.subscribe();
        }
        let mut state = self.write();
        let floor = state.floor;
        state
            .resources
            .entry(resource.into())
            .or_insert_with(|| ResourceState::new(floor))
            .changed
            .subscribe()
    }

    /// Makes a committed batch visible, all of it at once.
    pub fn apply(&self, revision: u64, batch: Vec<(Arc<str>, Event)>, at: Instant) {
        let mut state = self.write();
        state.revision = revision;
        let floor = state.floor;
        let mut touched: Vec<Arc<str>> = Vec::new();
        for (resource, event) in batch {
            if !touched.contains(&resource) {
                touched.push(resource.clone());
            }
            let found = state
                .resources
                .entry(resource)
                .or_insert_with(|| ResourceState::new(floor));
            if event.kind == super::EventKind::Deleted {
                found.objects.remove(&event.key);
            } else {
                found
                    .objects
                    .insert(event.key.clone(), event.object.clone());
            }
            found.history.push(Arc::new(event), at);
        }
        for resource in touched {
            if let Some(found) = state.resources.get(&resource) {
                found.changed.send_replace(revision);
            }
        }
    }

    /// Forgets events that happened before `moment`.
    pub fn forget_before(&self, moment: Instant) {
        let forgotten: Vec<Vec<Arc<Event>>> = {
            let mut state = self.write();
            let resources = state.resources.values_mut();
            resources
                .map(|found| found.history.forget_before(moment))
                .collect()
        };
        drop(forgotten);
    }

    pub fn compact(&self) {
        let mut state = self.write();
        let floor = state.revision;
        state.floor = floor;
        for resource in state.resources.values_mut() {
            resource.history.compact(floor);
        }
    }
}

//! The durable object store: redb on disk under an in-memory index with a bounded history.
//!
//! One global revision orders every write. A write is acknowledged after its batch was synced to disk.
//! It knows resources only as opaque identifiers and refuses defaults, validation and everything Kubernetes beyond `metadata.resourceVersion`.

mod disk;
mod history;
mod index;
mod object;
mod writer;

pub use history::{Event, EventKind};
pub use index::{Snapshot, SnapshotError};
pub use object::{Prepared, StoredObject};

use index::Index;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use writer::Pending;

/// How many writes may wait for the writer; more make their callers wait.
const WRITE_QUEUE: usize = 4096;

/// Why the store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has this data directory.
    #[error(
        "the data directory {0} is in use by another process; stop it or choose another --data-dir"
    )]
    Locked(PathBuf),
    /// The directory was written by another version.
    #[error(
        "the data directory {path} has format {found}, this program reads format {supported}; use the version that wrote it or choose another --data-dir"
    )]
    Version {
        /// The database file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What we read.
        supported: &'static str,
    },
    /// The content does not make sense.
    #[error("the store in {path} is damaged at {key:?}: {reason}")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// Which entry.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database refused.
    #[error("cannot {action} the store in {path}")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The object is not at the expected revision (or is gone).
    #[error("the object was changed by another write")]
    Conflict,
    /// A create found an object.
    #[error("the object exists already")]
    Exists,
    /// The store is shutting down or its disk failed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// What a write does.
pub enum Change {
    /// Stores this state.
    Put(Prepared),
    /// Removes the object; watchers see this last state.
    Delete(Prepared),
}

/// One compare-and-swap.
pub struct Write {
    /// `deployments.apps`
    pub resource: Arc<str>,
    /// `namespace/name` or `name`.
    pub key: Arc<str>,
    /// The revision that must be current; `None` = the object must not exist.
    pub expected: Option<u64>,
    /// What to do.
    pub change: Change,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    index: Arc<Index>,
    queue: mpsc::Sender<Pending>,
}

/// Owns the writer thread; the store closes when this is closed and every handle is gone.
pub struct StoreOwner {
    thread: Option<std::thread::JoinHandle<()>>,
    closing: Arc<std::sync::atomic::AtomicBool>,
    queue: mpsc::Sender<Pending>,
}

impl Store {
    /// Opens (or makes) the store in `directory`, replays and checks it.
    pub fn open(directory: &Path) -> Result<(Store, StoreOwner), StoreError> {
        let (disk, objects, revision) = disk::Disk::open(directory)?;
        let index = Arc::new(Index::new(objects, revision));
        let (queue, receiver) = mpsc::channel(WRITE_QUEUE);
        let closing = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let thread = {
            let (index, closing) = (index.clone(), closing.clone());
            std::thread::Builder::new()
                .name("store-writer".into())
                .spawn(move || writer::run(disk, index, receiver, closing))
                .map_err(|source| StoreError::File {
                    action: "start the writer thread for",
                    path: directory.to_path_buf(),
                    source,
                })?
        };
        let owner = StoreOwner {
            thread: Some(thread),
            closing,
            queue: queue.clone(),
        };
        Ok((Store { index, queue }, owner))
    }

    /// Does one write and answers when it is durable.
    pub async fn write(&self, write: Write) -> Result<Arc<StoredObject>, WriteError> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| WriteError::Unavailable("it is shutting down".into());
        self.queue
            .send(Pending::Write(write, answer))
            .await
            .map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }

    /// The current state of one object.
    pub fn get(&self, resource: &str, key: &str) -> Option<Arc<StoredObject>> {
        self.index.get(resource, key)
    }

    /// Current objects of a resource whose key starts with `prefix`, in key order.
    pub fn list(&self, resource: &str, prefix: &str) -> Snapshot {
        self.index.list(resource, prefix)
    }

    /// The objects as they were at `revision`.
    pub fn list_at(
        &self,
        resource: &str,
        prefix: &str,
        revision: u64,
    ) -> Result<Snapshot, SnapshotError> {
        self.index.list_at(resource, prefix, revision)
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &str) -> usize {
        self.index.count(resource)
    }

    /// Identifiers of resources that have objects.
    pub fn resources(&self) -> Vec<Arc<str>> {
        self.index.resources()
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.index.revision()
    }

    /// Events of a resource after a revision, at most `limit`, and the revision up to which the answer is complete.
    pub fn events_after(
        &self,
        resource: &str,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), SnapshotError> {
        self.index.events_after(resource, after, limit)
    }

    /// Wakes when the resource changed.
    pub fn changes(&self, resource: &str) -> watch::Receiver<u64> {
        self.index.changes(resource)
    }

    /// Forgets all history, as a compaction does.
    pub fn compact(&self) {
        self.index.compact();
    }
}

impl StoreOwner {
    /// Finishes what is queued, then closes the database.
    pub async fn close(mut self) {
        self.closing
            .store(true, std::sync::atomic::Ordering::Release);
        let _ = self.queue.send(Pending::Close).await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for StoreOwner {
    fn drop(&mut self) {
        self.closing
            .store(true, std::sync::atomic::Ordering::Release);
        let _ = self.queue.try_send(Pending::Close);
    }
}

/// Shorthand for tests and callers that have a tree.
pub fn put(tree: Value) -> Change {
    Change::Put(Prepared::new(tree))
}

#[cfg(test)]
mod tests;

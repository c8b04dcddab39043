//! The log service on loopback: projects, logstores and real logs, searched and counted with SQL.
//!
//! Logs are durable when they are acknowledged and are kept as many days as their logstore says. All logs of a logstore
//! lie in one shard. Refused are alerts, dashboards, consumer groups and everything else that is not about writing and
//! querying logs.

mod access;
mod api;
mod manage;
mod pull;
mod query;
mod record;
mod refusal;
mod search;
mod server;
mod sql;
mod store;

pub use store::LogStoreError;

use crate::shared::Shared;
use refusal::Refused;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

/// Most bytes of logs in the file, after compression; beyond them PutLogs is refused.
const MAX_STORED_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Most groups of logs, which PutLogs makes one of each.
const MAX_STORED_GROUPS: usize = 2_000_000;
/// Most queries that run at the same time; more wait.
const MAX_QUERIES: usize = 4;
/// How often old logs are looked for.
const BROOM_INTERVAL: Duration = Duration::from_secs(60);

/// The service behind its listener.
struct LogService {
    shared: Arc<Shared>,
    store: Arc<Store>,
    /// Changes of projects and logstores come one after the other.
    managing: Mutex<()>,
    queries: Semaphore,
}

impl LogService {
    fn now(&self) -> i64 {
        self.shared.now().as_second()
    }

    /// The logstore's number, or why there is none.
    fn logstore_id(&self, project: &str, logstore: &str) -> Result<u64, Refused> {
        let contents = self.store.contents();
        if !contents.projects.contains_key(project) {
            return Err(Refused::no_project(project));
        }
        let key = (project.to_owned(), logstore.to_owned());
        let shelf = contents.logstores.get(&key);
        shelf
            .map(|shelf| shelf.record.id)
            .ok_or_else(|| Refused::no_logstore(logstore))
    }

    async fn sweep(&self) {
        let writes = self.store.contents().expire(self.now());
        if writes.is_empty() {
            return;
        }
        if let Err(error) = self.store.write(writes).await {
            // They are not shown any more, and the next start finds and removes them.
            tracing::warn!(%error, "old logs could not be removed");
        }
    }
}

/// Opens the records in the directory and serves until the cloud shuts down.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    directory: &Path,
    listener: TcpListener,
) -> Result<SocketAddr, LogStoreError> {
    let directory = directory.to_owned();
    let address = listener
        .local_addr()
        .map_err(|source| LogStoreError::Directory {
            path: directory.clone(),
            source,
        })?;
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    let store = opened.map_err(|_| LogStoreError::Ended)??;
    let service = Arc::new(LogService {
        shared: shared.clone(),
        store: Arc::new(store),
        managing: Mutex::new(()),
        queries: Semaphore::new(MAX_QUERIES),
    });
    shared.tasks.spawn(server::serve(service.clone(), listener));
    let shutdown = shared.shutdown.clone();
    shared.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(BROOM_INTERVAL) => service.sweep().await,
            }
        }
    });
    tracing::info!(%address, "local log service serves");
    Ok(address)
}

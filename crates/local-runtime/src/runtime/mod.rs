//! The caller's side: a handle that starts shims, talks to them and finds them again.

mod cleanup;
mod client;
mod connect;
mod containers;
mod host;
mod leftovers;
mod resolve;
mod sandbox;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use leftovers::Leftovers;
pub(crate) use sandbox::image_in_use;

use crate::cgroup::{Cgroups, cluster_group};
use crate::durable::read_json;
use crate::error::RuntimeError;
use crate::id::is_safe_name;
use crate::image::ImageStore;
use crate::keyed_locks::KeyedLocks;
use crate::layout::{self, SandboxDirectory};
use crate::open_files::raise_open_files;
use crate::protocol::{Connection, Request, Response, SandboxRecord};
use crate::spec::{ResourceLimits, SandboxSpec};
use crate::status::SandboxStatus;
use sandbox::Sandbox;

/// Wake-ups kept for a slow listener; one that lags is told so and looks at everything.
const EVENT_QUEUE_LENGTH: usize = 4096;

/// Where and for whom the runtime works.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Holds images, sandboxes and exit records.
    pub state_dir: PathBuf,
    /// Names the cgroup parent `springtide-<cluster_id>`.
    pub cluster_id: String,
    /// Program and leading arguments that reach [`crate::shim::main`].
    pub shim_command: Vec<OsString>,
}

/// The handle; clones share it. Dropping it leaves all containers running.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state_dir: PathBuf,
    cluster_id: String,
    shim_command: Vec<OsString>,
    images: ImageStore,
    cgroups: Cgroups,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    /// One lock an identifier: a sandbox is created or removed once at a time.
    changing: KeyedLocks,
    events: broadcast::Sender<String>,
    shutdown: CancellationToken,
    _ends_watchers: DropGuard,
}

impl Inner {
    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Sandbox>>> {
        // The map is whole between any two statements that hold the lock.
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, RuntimeError> {
        self.sandboxes()
            .get(id)
            .cloned()
            .ok_or_else(|| RuntimeError::SandboxNotFound(id.to_owned()))
    }

    fn directory(&self, id: &str) -> SandboxDirectory {
        SandboxDirectory(layout::sandboxes(&self.state_dir).join(id))
    }

    fn wake(&self, id: &str) {
        // Nobody may be listening.
        let _ = self.events.send(id.to_owned());
    }
}

impl Runtime {
    /// Checks the host, opens the state directory, finds living shims again and clears what dead ones left.
    pub async fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let RuntimeConfig {
            state_dir,
            cluster_id,
            shim_command,
        } = config;
        if !is_safe_name(&cluster_id) {
            return Err(RuntimeError::Invalid {
                object: format!("runtime {cluster_id:?}"),
                field: "cluster_id".to_owned(),
                reason: "must be letters, digits, '-', '_' or '.'".to_owned(),
            });
        }
        host::check()?;
        raise_open_files();
        let cgroups = Cgroups::detect()?;
        let sandboxes = layout::sandboxes(&state_dir);
        fs::create_dir_all(&sandboxes).map_err(RuntimeError::io("create", &sandboxes))?;
        let state_dir =
            fs::canonicalize(&state_dir).map_err(RuntimeError::io("find", &state_dir))?;
        host::check_state_dir(&state_dir)?;
        let group = cluster_group(&cluster_id);
        cgroups.create(&group).map_err(host::cgroup_remedy)?;
        let images = ImageStore::open(&state_dir)
            .await
            .map_err(|source| RuntimeError::Image {
                container: "(store)".to_owned(),
                source,
            })?;
        let shutdown = CancellationToken::new();
        let inner = Inner {
            state_dir,
            cluster_id,
            shim_command,
            images,
            cgroups,
            sandboxes: Mutex::default(),
            changing: KeyedLocks::default(),
            events: broadcast::channel(EVENT_QUEUE_LENGTH).0,
            _ends_watchers: shutdown.clone().drop_guard(),
            shutdown,
        };
        let runtime = Self {
            inner: Arc::new(inner),
        };
        runtime.adopt_all().await?;
        Ok(runtime)
    }

    async fn adopt_all(&self) -> Result<(), RuntimeError> {
        let path = layout::sandboxes(&self.inner.state_dir);
        let entries = fs::read_dir(&path).map_err(RuntimeError::io("list", &path))?;
        let adoptions = entries
            .flatten()
            .map(|entry| self.adopt(SandboxDirectory(entry.path())));
        futures::future::join_all(adoptions).await;
        Ok(())
    }

    async fn adopt(&self, directory: SandboxDirectory) {
        let record: SandboxRecord = match read_json(&directory.record()) {
            Ok(record) => record,
            Err(error) => {
                // Its creation was cut short before anything was started.
                tracing::warn!(%error, directory = %directory.0.display(), "remove a sandbox without a record");
                let name = directory
                    .0
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                let name = name.unwrap_or_default();
                let removed =
                    cleanup::remove_sandbox(&self.inner.cgroups, &directory, &name, None).await;
                if let Err(reasons) = removed {
                    tracing::warn!(sandbox = %name, ?reasons, "clear a sandbox without a record");
                }
                return;
            }
        };
        let id = record.spec.id.clone();
        let sandbox = Arc::new(Sandbox::new(record, directory));
        match sandbox::find_again(&sandbox).await {
            Some(connection) => {
                tracing::info!(sandbox = %id, "found a sandbox again");
                self.follow(&sandbox, connection);
            }
            None => {
                tracing::warn!(sandbox = %id, "the shim of a sandbox is gone");
                sandbox.gone.cancel();
                clear_lost(self.inner.cgroups.clone(), sandbox.clone()).await;
            }
        }
        self.inner.sandboxes().insert(id, sandbox);
    }

    /// Passes a shim's changes on as events until it ends.
    fn follow(&self, sandbox: &Arc<Sandbox>, mut connection: Connection) {
        let (events, shutdown) = (self.inner.events.clone(), self.inner.shutdown.clone());
        let (cgroups, sandbox) = (self.inner.cgroups.clone(), sandbox.clone());
        // Ends with the shim or with the last clone of the handle.
        tokio::spawn(async move {
            let id = sandbox.record.spec.id.clone();
            loop {
                let change = tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sandbox.gone.cancelled() => return,
                    change = connection.receive::<Response>() => change,
                };
                if !matches!(change, Ok(Some(Response::Changed))) {
                    break;
                }
                let _ = events.send(id.clone());
            }
            let lost = !sandbox.removing.load(Ordering::SeqCst);
            if lost && !sandbox.gone.is_cancelled() {
                sandbox.gone.cancel();
                if sandbox.directory.record().exists() {
                    tracing::warn!(sandbox = %id, "the shim of a sandbox has ended");
                    clear_lost(cgroups, sandbox).await;
                }
            }
            let _ = events.send(id);
        });
    }

    /// The images.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Starts the shim of a sandbox; does nothing when it is already there.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError> {
        resolve::check_sandbox(&spec)?;
        let id = spec.id.clone();
        let _guard = self.inner.changing.lock(&id).await;
        if let Ok(existing) = self.inner.sandbox(&id) {
            return match existing.gone.is_cancelled() {
                false => Ok(()),
                true => Err(RuntimeError::ShimGone(id)),
            };
        }
        let directory = self.inner.directory(&id);
        if directory.0.exists() {
            // An earlier creation whose caller went away before its end.
            self.clear_unknown(&id, &directory).await?;
        }
        let record = SandboxRecord {
            spec,
            cluster_id: self.inner.cluster_id.clone(),
            created_at: Timestamp::now(),
        };
        let sandbox = Arc::new(Sandbox::new(record, directory));
        let started = async {
            sandbox::launch(
                &self.inner.shim_command,
                &sandbox.record,
                &sandbox.directory,
            )
            .await?;
            sandbox.watch().await.map_err(|error| RuntimeError::Shim {
                sandbox: id.clone(),
                reason: error.to_string(),
            })
        };
        match started.await {
            Ok(connection) => {
                self.follow(&sandbox, connection);
                self.inner.sandboxes().insert(id.clone(), sandbox);
                self.inner.wake(&id);
                Ok(())
            }
            Err(error) => {
                let group = Some(sandbox.group.clone());
                if let Err(reasons) =
                    cleanup::remove_sandbox(&self.inner.cgroups, &sandbox.directory, &id, group)
                        .await
                {
                    tracing::warn!(sandbox = %id, ?reasons, "clear a sandbox that failed to start");
                }
                Err(error)
            }
        }
    }

    /// Stops all containers of a sandbox.
    pub async fn stop_sandbox(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let sandbox = match self.inner.sandbox(id) {
            Ok(sandbox) if !sandbox.gone.is_cancelled() => sandbox,
            _ => return Ok(()),
        };
        let request = Request::StopAll {
            grace_ms: millis(grace),
        };
        let limit = grace + client::REQUEST_LIMIT;
        client::command(&sandbox.directory.0, id, "all", "stop", &request, limit).await
    }

    /// Removes a sandbox with all it has, except a log directory the caller chose. Unknown ones are no error.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let _guard = self.inner.changing.lock(id).await;
        let Ok(sandbox) = self.inner.sandbox(id) else {
            let directory = self.inner.directory(id);
            return match is_safe_name(id) && directory.0.exists() {
                true => self.clear_unknown(id, &directory).await,
                false => Ok(()),
            };
        };
        let group = Some(sandbox.group.clone());
        sandbox.removing.store(true, Ordering::SeqCst);
        let removed =
            cleanup::remove_sandbox(&self.inner.cgroups, &sandbox.directory, id, group).await;
        removed.map_err(|reasons| RuntimeError::Incomplete {
            object: format!("sandbox {id}"),
            reasons,
        })?;
        sandbox.gone.cancel();
        self.inner.sandboxes().remove(id);
        self.inner.wake(id);
        Ok(())
    }

    /// Removes a sandbox that is on disk and not in the map.
    async fn clear_unknown(
        &self,
        id: &str,
        directory: &SandboxDirectory,
    ) -> Result<(), RuntimeError> {
        let record: Option<SandboxRecord> = read_json(&directory.record()).ok();
        let group = record.as_ref().map(layout::sandbox_group);
        let removed = cleanup::remove_sandbox(&self.inner.cgroups, directory, id, group).await;
        removed.map_err(|reasons| RuntimeError::Incomplete {
            object: format!("sandbox {id}"),
            reasons,
        })
    }

    /// All sandboxes, by identifier.
    pub async fn sandboxes(&self) -> Vec<SandboxStatus> {
        self.inner
            .sandboxes()
            .values()
            .map(|sandbox| sandbox.status())
            .collect()
    }

    /// One sandbox.
    pub async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        self.inner.sandbox(id).map(|sandbox| sandbox.status())
    }

    /// Limits everything below a cgroup subpath together, for example a whole worker.
    pub async fn set_group_limits(
        &self,
        cgroup_subpath: &str,
        limits: &ResourceLimits,
    ) -> Result<(), RuntimeError> {
        resolve::check_subpath("group", cgroup_subpath)?;
        let group = cluster_group(&self.inner.cluster_id).join(cgroup_subpath);
        self.inner.cgroups.create(&group)?;
        self.inner.cgroups.apply(&group, limits)
    }

    /// Identifiers of sandboxes whose state changed. A lagging listener must look at all.
    pub fn events(&self) -> broadcast::Receiver<String> {
        self.inner.events.subscribe()
    }

    /// Ends every shim and container of a cluster and removes its sandboxes and cgroups; images stay. Idempotent.
    pub async fn remove_all(state_dir: &Path, cluster_id: &str) -> Result<(), RuntimeError> {
        cleanup::remove_all(state_dir, cluster_id).await
    }

    /// What is left of a cluster on this machine; empty after [`Runtime::remove_all`].
    pub fn leftovers(state_dir: &Path, cluster_id: &str) -> Leftovers {
        leftovers::leftovers(state_dir, cluster_id)
    }
}

/// Whole milliseconds, as many as a message can say.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn clear_lost(cgroups: Cgroups, sandbox: Arc<Sandbox>) {
    let clearing = tokio::task::spawn_blocking(move || {
        let outcome = cleanup::give_up(&cgroups, &sandbox.directory, &sandbox.group);
        if let Err(reason) = outcome {
            tracing::warn!(sandbox = %sandbox.record.spec.id, reason, "clear what a dead shim left");
        }
    });
    // A panic in there was logged by its own task.
    let _ = clearing.await;
}

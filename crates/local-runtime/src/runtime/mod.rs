//! The caller's side: a handle that starts shims, talks to them and finds them again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::RuntimeError;
use crate::id::ContainerId;
use crate::image::ImageStore;
use crate::logs::{LogOptions, LogStream};
use crate::session::ExecSession;
use crate::spec::{ContainerSpec, ExecSpec, ResourceLimits, SandboxSpec};
use crate::status::{ContainerStatus, ExecOutput, SandboxStatus, SandboxUsage};

/// Wake-ups kept for a slow listener; one that lags is told so and looks at everything.
const EVENT_QUEUE_LENGTH: usize = 1024;

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

/// What is left of a cluster on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Mount points of its sandboxes.
    pub mounts: Vec<PathBuf>,
    /// Its cgroup directories.
    pub cgroups: Vec<PathBuf>,
    /// Its shims and container processes.
    pub processes: Vec<i32>,
}

impl Leftovers {
    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.cgroups.is_empty() && self.processes.is_empty()
    }
}

/// The handle; clones share it. Dropping it leaves all containers running.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    images: ImageStore,
    events: broadcast::Sender<String>,
}

fn not_built(object: &str) -> RuntimeError {
    RuntimeError::Shim {
        sandbox: object.to_owned(),
        reason: "not built yet".to_owned(),
    }
}

impl Runtime {
    /// Checks the host, opens the state directory, finds living shims again and clears what dead ones left.
    pub async fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let images = ImageStore::open(&config.state_dir)
            .await
            .map_err(|source| RuntimeError::Image {
                container: String::new(),
                source,
            })?;
        let (events, _) = broadcast::channel(EVENT_QUEUE_LENGTH);
        Ok(Self {
            inner: Arc::new(Inner { images, events }),
        })
    }

    /// The images.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Starts the shim of a sandbox; does nothing when it is already there.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<(), RuntimeError> {
        Err(not_built(&spec.id))
    }

    /// Prepares a container in a sandbox; does nothing when this attempt is already there.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        spec: ContainerSpec,
    ) -> Result<ContainerId, RuntimeError> {
        let _ = spec;
        Err(not_built(sandbox_id))
    }

    /// Starts a created container; returns when its program runs.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        Err(not_built(id.sandbox()))
    }

    /// Sends the stop signal, then kills after `grace`; returns when the container has ended.
    pub async fn stop_container(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let _ = grace;
        Err(not_built(id.sandbox()))
    }

    /// Removes a container and its files (killing it when it runs); its log stays until the sandbox goes.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        Err(not_built(id.sandbox()))
    }

    /// Stops all containers of a sandbox.
    pub async fn stop_sandbox(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let _ = grace;
        Err(not_built(id))
    }

    /// Removes a sandbox with all it has, except a log directory the caller chose. Unknown ones are no error.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        Err(not_built(id))
    }

    /// All sandboxes, by identifier.
    pub async fn sandboxes(&self) -> Vec<SandboxStatus> {
        Vec::new()
    }

    /// One sandbox.
    pub async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, RuntimeError> {
        Err(RuntimeError::SandboxNotFound(id.to_owned()))
    }

    /// One container.
    pub async fn container_status(
        &self,
        id: &ContainerId,
    ) -> Result<ContainerStatus, RuntimeError> {
        Err(RuntimeError::ContainerNotFound(id.to_string()))
    }

    /// All attempts of all containers in a sandbox, by name and attempt.
    pub async fn containers(&self, sandbox_id: &str) -> Vec<ContainerStatus> {
        let _ = sandbox_id;
        Vec::new()
    }

    /// Runs a command to its end; after `timeout` it is killed and [`RuntimeError::Timeout`] returned.
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let _ = (command, timeout);
        Err(not_built(id.sandbox()))
    }

    /// Starts a command with live streams.
    pub async fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> Result<ExecSession, RuntimeError> {
        let _ = spec;
        Err(not_built(id.sandbox()))
    }

    /// Connects to the first process of a running container. `stdin` asks for its standard input.
    pub async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        let _ = stdin;
        Err(not_built(id.sandbox()))
    }

    /// Reads a container's log; following ends when the container does.
    pub async fn container_logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        let _ = options;
        Err(not_built(id.sandbox()))
    }

    /// Usage of the running containers of a sandbox.
    pub async fn usage(&self, sandbox_id: &str) -> Result<SandboxUsage, RuntimeError> {
        Err(not_built(sandbox_id))
    }

    /// Limits everything below a cgroup subpath together, for example a whole worker.
    pub async fn set_group_limits(
        &self,
        cgroup_subpath: &str,
        limits: &ResourceLimits,
    ) -> Result<(), RuntimeError> {
        let _ = limits;
        Err(not_built(cgroup_subpath))
    }

    /// Identifiers of sandboxes whose state changed. A lagging listener must look at all.
    pub fn events(&self) -> broadcast::Receiver<String> {
        self.inner.events.subscribe()
    }

    /// Ends every shim and container of a cluster and removes its sandboxes and cgroups; images stay. Idempotent.
    pub async fn remove_all(state_dir: &Path, cluster_id: &str) -> Result<(), RuntimeError> {
        let _ = state_dir;
        Err(not_built(cluster_id))
    }

    /// What is left of a cluster on this machine; empty after [`Runtime::remove_all`].
    pub fn leftovers(state_dir: &Path, cluster_id: &str) -> Leftovers {
        let _ = (state_dir, cluster_id);
        Leftovers::default()
    }
}

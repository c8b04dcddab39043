//! What runs a group's containers. The life cycle (init containers, restarts, probes, status) is decided above, in
//! the supervisor; a backend only does single things, and doing one twice is the same as doing it once.

pub mod real;
pub mod simulated;

pub use real::{RealBackend, RealBackendConfig};
pub use simulated::{SimulatedBackend, StartDelay};

use async_trait::async_trait;
use cloud_api::catalog::Size;
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest, ProbeSpec};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A group as a backend sees it.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// The group's id.
    pub id: String,
    /// What was asked for.
    pub request: Arc<CreateContainerGroupRequest>,
    /// The address it got.
    pub address: Ipv4Addr,
    /// The rounded size, the limit of all its containers together.
    pub size: Size,
    /// The zone it landed in.
    pub zone: String,
    /// Images that an image cache brought along.
    pub cached_images: Vec<String>,
    /// Directories that stand for network shares, by server.
    pub shares: BTreeMap<String, PathBuf>,
}

/// One run of one container.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The container.
    pub container: &'a ContainerSpec,
    /// The number of the run; never used twice for one name.
    pub attempt: u32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerExit {
    /// The exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Ended because memory ran out.
    pub out_of_memory: bool,
    /// When.
    pub finished_at: Timestamp,
    /// The termination message.
    pub message: Option<String>,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// Its id.
    pub id: String,
    /// It was there before.
    pub was_present: bool,
    /// How long the pull took.
    pub took: Duration,
}

/// Which part of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The newest lines.
    pub tail: Option<usize>,
    /// Lines from then on.
    pub since: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<usize>,
    /// A time before every line.
    pub timestamps: bool,
}

/// The output of a finished command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// The exit code.
    pub exit_code: i32,
    /// Standard output, then standard error.
    pub output: Vec<u8>,
}

/// A running command with its streams.
pub struct CommandSession {
    /// Standard input, when it was asked for.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; empty with a terminal.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Takes (columns, rows) of the terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code.
    pub exit: BoxFuture<'static, Result<i32, BackendError>>,
}

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// The container.
    pub name: String,
    /// Processor time since its start.
    pub cpu_nanos: u64,
    /// Memory that cannot be given back.
    pub working_set_bytes: u64,
    /// All memory charged to it.
    pub usage_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
}

/// What went over one of a group's network interfaces since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// The interface.
    pub name: String,
    /// Bytes, packets, errors and drops received.
    pub received: [u64; 4],
    /// Bytes, packets, errors and drops sent.
    pub sent: [u64; 4],
}

impl GroupPlan {
    /// Whether the group reaches service addresses: unless a tag says no.
    pub(crate) fn reaches_services(&self) -> bool {
        let mut tags = self.request.tag.iter();
        !tags.any(|tag| tag.key == SERVICE_ADDRESSES_TAG && tag.value == "false")
    }
}

/// Why a backend could not do something: a reason in one word, as events have it, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// Such as `ErrImagePull`.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

impl BackendError {
    /// A reason and a sentence.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// A reason and the whole chain of an error.
    pub fn from_error(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        let chain: Vec<String> = std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        Self::new(reason, chain.join(": "))
    }
}

/// The tag by which a group is kept from the addresses of services.
const SERVICE_ADDRESSES_TAG: &str = "springtide/service-addresses";

/// Runs groups.
#[async_trait]
pub trait GroupBackend: Send + Sync + 'static {
    /// Whether its containers exist on paper only.
    fn is_simulated(&self) -> bool;

    /// Makes the group's surroundings: network, volumes.
    async fn prepare(&self, plan: &GroupPlan) -> Result<(), BackendError>;

    /// Makes a container's image present.
    async fn pull(
        &self,
        plan: &GroupPlan,
        container: &ContainerSpec,
    ) -> Result<PulledImage, BackendError>;

    /// Starts a run, unless it has been started before; says since when it runs.
    async fn start(&self, plan: &GroupPlan, run: Run<'_>) -> Result<Timestamp, BackendError>;

    /// Waits for a run's end. May be dropped and called again.
    async fn wait(&self, plan: &GroupPlan, run: Run<'_>) -> Result<ContainerExit, BackendError>;

    /// Stops a run: the stop signal, and after the grace period the kill.
    async fn stop(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        grace: Duration,
    ) -> Result<(), BackendError>;

    /// Makes one check; the error says what was wrong.
    async fn probe(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        probe: &ProbeSpec,
    ) -> Result<(), BackendError>;

    /// Runs a command to its end.
    async fn exec_sync(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<CommandOutput, BackendError>;

    /// Runs a command with streams.
    async fn exec(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        command: Vec<String>,
        tty: bool,
        stdin: bool,
    ) -> Result<CommandSession, BackendError>;

    /// Reads a run's log.
    async fn logs(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        query: &LogQuery,
    ) -> Result<String, BackendError>;

    /// Makes an image of what a running container has written, under this name.
    async fn commit(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        reference: &str,
    ) -> Result<(), BackendError>;

    /// What the running containers use.
    async fn usage(&self, plan: &GroupPlan) -> Result<Vec<ContainerUsage>, BackendError>;

    /// What went over the group's network.
    async fn traffic(&self, plan: &GroupPlan) -> Result<Vec<InterfaceUsage>, BackendError>;

    /// Ends the group for good: everything is stopped and given back, only logs stay.
    async fn end(&self, plan: &GroupPlan) -> Result<(), BackendError>;

    /// Removes the rest.
    async fn forget(&self, group_id: &str) -> Result<(), BackendError>;

    /// The groups that the backend still has something of, for finding what nobody owns.
    async fn known_groups(&self) -> Result<Vec<String>, BackendError>;
}

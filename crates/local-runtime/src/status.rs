//! What the runtime reports: states, exits, usage.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// Whether a sandbox can run containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Its shim lives.
    Ready,
    /// Its shim is gone or it was stopped; only removal is left.
    NotReady,
}

/// One sandbox as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// The caller's identifier.
    pub id: String,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Ready or not.
    pub state: SandboxState,
    /// When it was created.
    pub created_at: Timestamp,
    /// The network namespace it was given.
    pub netns_path: Option<PathBuf>,
    /// The path it was given below the cluster's cgroup.
    pub cgroup_subpath: String,
    /// Where its logs go.
    pub log_directory: PathBuf,
    /// The shim's process, while it lives.
    pub shim_pid: Option<i32>,
}

/// A container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Not started yet.
    Created,
    /// Its first process lives.
    Running,
    /// Its first process has ended.
    Exited,
}

/// One container as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its identifier.
    pub id: ContainerId,
    /// Its name in the sandbox.
    pub name: String,
    /// 0 for the first start.
    pub attempt: u32,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Created, running or exited.
    pub state: ContainerState,
    /// The first process as the host sees it, while it runs.
    pub pid: Option<i32>,
    /// Exit code, 128 + signal when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Ended because the memory limit was reached.
    pub oom_killed: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its process began.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// The reference it was created with.
    pub image: String,
    /// The image's identifier (`sha256:…` of its configuration).
    pub image_id: String,
    /// The current log file.
    pub log_path: PathBuf,
    /// Termination message, or why it could not be started or got lost.
    pub message: Option<String>,
}

/// What a finished command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code, 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The first megabyte of standard output.
    pub stdout: Vec<u8>,
    /// The first megabyte of standard error.
    pub stderr: Vec<u8>,
}

/// One container's usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// The container's name.
    pub name: String,
    /// CPU time since its start.
    pub cpu_usage_nanos: u64,
    /// Usage without reclaimable page cache.
    pub memory_working_set_bytes: u64,
    /// All memory charged to it.
    pub memory_usage_bytes: u64,
    /// Anonymous memory.
    pub memory_rss_bytes: u64,
}

/// Usage of a sandbox's running containers, sampled together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxUsage {
    /// When it was sampled.
    pub timestamp: Timestamp,
    /// One entry a running container.
    pub containers: Vec<ContainerUsage>,
}

//! What the caller asks for: sandboxes, containers, mounts, limits, commands.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Limits of a container, a sandbox or a whole group. Absent means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// Relative share of CPU under contention, in thousandths of a core.
    pub cpu_request_milli: Option<u64>,
    /// Hard CPU limit in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Hard memory limit; exceeding it kills a process of the container.
    pub memory_limit_bytes: Option<u64>,
    /// Number of processes and threads.
    pub pids_limit: Option<u64>,
}

/// One pod's surroundings. The identifier is chosen by the caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Letters, digits, `-`, `_`, `.`; at most 200 bytes.
    pub id: String,
    /// Kept for the caller and given back in [`crate::SandboxStatus`].
    pub labels: BTreeMap<String, String>,
    /// The UTS host name.
    pub hostname: String,
    /// The network namespace to join; `None` shares the host's.
    pub netns_path: Option<PathBuf>,
    /// Content of `/etc/resolv.conf`; empty leaves the image's file.
    pub resolv_conf: String,
    /// Content of `/etc/hosts`; empty leaves the image's file.
    pub hosts: String,
    /// Path below `springtide-<cluster-id>/`, for example `worker-1`; may be empty.
    pub cgroup_subpath: String,
    /// Limits of all the sandbox's containers together.
    pub limits: ResourceLimits,
    /// Namespaced sysctls only (`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`).
    pub sysctls: BTreeMap<String, String>,
    /// One process namespace for all containers instead of one each.
    pub share_process_namespace: bool,
    /// Where container logs go: `<log_directory>/<container>/<attempt>.log`. `None`: inside the state directory.
    pub log_directory: Option<PathBuf>,
}

/// A file, directory or fresh tmpfs that appears inside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Host path to bind; ignored for a tmpfs. It must exist.
    pub source: PathBuf,
    /// Absolute path in the container; created when missing.
    pub target: String,
    /// Refuses writes.
    pub read_only: bool,
    /// A fresh tmpfs of this size instead of a bind mount.
    pub tmpfs_size: Option<u64>,
}

/// One limit of `setrlimit`, by name (`nofile`, `nproc`, `core`, `memlock`, `stack`, …).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Lower case, without the `RLIMIT_` prefix.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A user or group: a number, or a name that is looked up in the image's `/etc/passwd` or `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UserSpec {
    /// A numeric identifier.
    Id(u32),
    /// A name in the image.
    Name(String),
}

/// One container of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name, unique in the sandbox.
    pub name: String,
    /// 0 for the first start, one more for each restart.
    pub attempt: u32,
    /// Image reference or image identifier; must be in the store.
    pub image: String,
    /// Replaces the image's entrypoint (and drops its command).
    pub command: Option<Vec<String>>,
    /// Replaces the image's command.
    pub args: Option<Vec<String>>,
    /// Added to the image's environment; later ones win.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Bind mounts and tmpfs, in order.
    pub mounts: Vec<Mount>,
    /// Replaces the image's user.
    pub run_as_user: Option<UserSpec>,
    /// Replaces the image's or user's group.
    pub run_as_group: Option<u32>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// Refuses a start as user 0 (`runAsNonRoot`).
    pub must_run_as_non_root: bool,
    /// Capabilities beyond the default set, without `CAP_`; `ALL` is understood.
    pub added_capabilities: Vec<String>,
    /// Capabilities taken from the default set; `ALL` is understood.
    pub dropped_capabilities: Vec<String>,
    /// Always refused.
    pub privileged: bool,
    /// Refuses writes to the image's files.
    pub read_only_rootfs: bool,
    /// Set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// The container's own limits.
    pub resources: ResourceLimits,
    /// Process limits.
    pub rlimits: Vec<Rlimit>,
    /// `oom_score_adj` of the first process.
    pub oom_score_adj: Option<i32>,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Keeps standard input open for attach.
    pub stdin: bool,
    /// Closes standard input after the first attached session ends.
    pub stdin_once: bool,
    /// File in the container whose end becomes [`crate::ContainerStatus::message`]; made by the runtime.
    pub termination_message_path: Option<String>,
    /// Replaces the image's stop signal, `SIGTERM` or `15`.
    pub stop_signal: Option<String>,
    /// Kept for the caller and given back in [`crate::ContainerStatus`].
    pub labels: BTreeMap<String, String>,
}

/// A command to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal; standard error then comes on standard output.
    pub tty: bool,
    /// With standard input.
    pub stdin: bool,
}

//! Containers without a daemon: images, sandboxes, containers, logs, exec, limits and usage.
//!
//! One *sandbox* (what Kubernetes calls a pod) is one single-threaded shim process, a re-exec of the program
//! (see [`shim::main`]). The shim outlives this process; [`Runtime::open`] finds it again.
//!
//! Refuses: knowing Kubernetes, creating network namespaces (it is handed one), privileged containers.
#![allow(unsafe_code)] // Creating processes, namespaces and mounts needs raw system calls; each use says why it is sound.

mod capability;
mod cgroup;
mod durable;
mod error;
mod fd_stream;
mod id;
pub mod image;
mod keyed_locks;
mod layout;
pub mod logs;
mod open_files;
mod protocol;
mod runtime;
mod session;
pub mod shim;
mod spec;
mod status;

pub use error::RuntimeError;
pub use id::ContainerId;
pub use image::{ImageError, ImageStore};
pub use runtime::{Leftovers, Runtime, RuntimeConfig};
pub use session::{ExecSession, InputStream, OutputStream};
pub use spec::{ContainerSpec, ExecSpec, Mount, ResourceLimits, Rlimit, SandboxSpec, UserSpec};
pub use status::{
    ContainerState, ContainerStatus, ContainerUsage, ExecOutput, SandboxState, SandboxStatus,
    SandboxUsage,
};

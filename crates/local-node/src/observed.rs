//! What a worker sees of one pod at one moment, as plain data for the decisions.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use local_runtime::ContainerStatus;

/// How far an image has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageState {
    /// In the store.
    Present,
    /// Being fetched.
    Pulling,
    /// The last attempt failed; the next one is due at this time.
    Failed {
        reason: &'static str,
        message: String,
        retry_at: Timestamp,
    },
}

/// What probes have said about a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults {
    /// The startup probe succeeded, or there is none.
    pub started: bool,
    /// The readiness probe's last word, or `started` without one.
    pub ready: bool,
    /// Liveness or startup failed for good: the container has to be restarted.
    pub must_restart: bool,
}

/// A start that did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub reason: &'static str,
    pub message: String,
    pub retry_at: Timestamp,
}

/// One pod as seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Network, volumes and sandbox are there.
    pub sandbox_ready: bool,
    /// Why they are not, when that was tried.
    pub sandbox_failure: Option<StartFailure>,
    /// The pod's address.
    pub ip: Option<Ipv4Addr>,
    /// Newest attempt of each container.
    pub containers: BTreeMap<String, ContainerStatus>,
    /// The attempt before the newest, where there was one.
    pub previous: BTreeMap<String, ContainerStatus>,
    /// By container name.
    pub images: BTreeMap<String, ImageState>,
    /// By container name, only of running ones.
    pub probes: BTreeMap<String, ProbeResults>,
    /// By container name: creating or starting it failed.
    pub start_failures: BTreeMap<String, StartFailure>,
}

//! Where things lie in the state directory.

use std::path::{Path, PathBuf};

use crate::cgroup::cluster_group;
use crate::id::ContainerId;
use crate::protocol::SandboxRecord;

/// The directory of all sandboxes.
pub(crate) fn sandboxes(state_dir: &Path) -> PathBuf {
    state_dir.join("sandboxes")
}

/// One sandbox's directory.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDirectory(pub(crate) PathBuf);

impl SandboxDirectory {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("sandbox.json")
    }

    /// Held by the shim for as long as it lives, and by whoever clears up after it. Holds the shim's process number.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("shim.lock")
    }

    /// Says that the sandbox was found without a shim: one that comes late must not begin.
    pub(crate) fn tombstone(&self) -> PathBuf {
        self.0.join("dead")
    }

    pub(crate) fn shared_memory(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// A file of the sandbox that appears in its containers' `/etc`.
    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.0.join("etc").join(name)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.directory_name())
    }

    /// Where logs go when the caller did not choose.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
}

/// The socket's name in a sandbox directory.
pub(crate) const SOCKET_NAME: &str = "shim.sock";
/// What a shim reports about itself goes here.
pub(crate) const SHIM_LOG_NAME: &str = "shim.log";
/// Files of a container's directory.
pub(crate) const STATUS_NAME: &str = "status.json";
pub(crate) const RECORD_NAME: &str = "record.json";

/// The cgroup of a sandbox.
pub(crate) fn sandbox_group(record: &SandboxRecord) -> PathBuf {
    cluster_group(&record.cluster_id)
        .join(&record.spec.cgroup_subpath)
        .join(&record.spec.id)
}

/// A socket address in `directory` that does not depend on how long its path is: Unix socket paths end at 108 bytes.
/// The returned descriptor must live as long as the address is used.
pub(crate) fn socket_address(directory: &Path) -> std::io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let handle = std::fs::File::open(directory)?;
    let address = PathBuf::from(format!(
        "/proc/self/fd/{}/{SOCKET_NAME}",
        handle.as_raw_fd()
    ));
    Ok((handle, address))
}

//! Taking away what shims left.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client;
use super::leftovers::{absolute, mounts_below, shims};
use crate::cgroup::{Cgroups, cluster_group};
use crate::durable::read_json;
use crate::error::RuntimeError;
use crate::layout::{self, SandboxDirectory};
use crate::protocol::{Connection, Request, Response, SandboxRecord};

/// A killed process, or a cgroup after its last process, is gone long before.
const PATIENCE: Duration = Duration::from_secs(5);
/// A shim that removes a sandbox waits for its own retries.
const REMOVE_LIMIT: Duration = Duration::from_secs(40);
/// Sandboxes removed side by side.
const PARALLEL_REMOVALS: usize = 16;
const POLL: Duration = Duration::from_millis(2);
/// Between two questions to a shim that is being started.
const START_POLL: Duration = Duration::from_millis(20);

/// Removes the mounts, processes and cgroups of a sandbox whose shim is gone; its files stay. Blocks.
pub(super) fn clear_dead(
    cgroups: &Cgroups,
    directory: &SandboxDirectory,
    group: &Path,
) -> Result<(), String> {
    // A namespace's first process dies with its shim; this ends whatever did not.
    let ended = cgroups.kill_all(group, PATIENCE);
    let shared_memory = directory.shared_memory();
    while umount2(&shared_memory, MntFlags::MNT_DETACH).is_ok() {}
    if !cgroups.remove(group, PATIENCE) {
        let what = if ended {
            "cgroup cannot be removed"
        } else {
            "processes do not end"
        };
        return Err(format!("{what}: {}", group.display()));
    }
    Ok(())
}

/// Keeps shims off a sandbox: waits until its shim has ended, kills one that does not end.
/// Nothing when the sandbox's directory is not there.
fn take_over(directory: &SandboxDirectory) -> Option<File> {
    let path = directory.lock();
    let mut options = File::options();
    let lock = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .ok()?;
    let mut deadline = Instant::now() + PATIENCE;
    let mut killed = false;
    while let Err(TryLockError::WouldBlock) = lock.try_lock() {
        if Instant::now() > deadline {
            let pid = fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.parse().ok());
            let pid = pid.filter(|_| !killed)?;
            // It holds the lock, so the number is its own. Its containers are cleared right after.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            killed = true;
            deadline = Instant::now() + PATIENCE;
        }
        std::thread::sleep(POLL);
    }
    Some(lock)
}

/// Clears up after a shim that is gone, for good: one that comes late will not begin. Blocks.
pub(super) fn give_up(
    cgroups: &Cgroups,
    directory: &SandboxDirectory,
    group: &Path,
) -> Result<(), String> {
    let _lock = take_over(directory);
    let tombstone = directory.tombstone();
    File::create(&tombstone).map_err(|error| format!("create {}: {error}", tombstone.display()))?;
    clear_dead(cgroups, directory, group)
}

/// Asks the shim to remove everything; without a shim does it itself. Removes the sandbox's directory.
pub(super) async fn remove_sandbox(
    cgroups: &Cgroups,
    directory: &SandboxDirectory,
    id: &str,
    group: Option<PathBuf>,
) -> Result<(), Vec<String>> {
    let connected = client::connect_with_pid(&directory.0).await.ok();
    let pid = connected.and_then(|(_, pid)| pid);
    match ask_to_remove(directory, id).await {
        Ok((Response::Done, _)) | Err(RuntimeError::ShimGone(_)) => {}
        Ok((Response::Failed { reason, .. }, _)) => {
            tracing::warn!(sandbox = id, reason, "shim could not remove all");
        }
        Ok((other, _)) => tracing::warn!(sandbox = id, ?other, "shim answered out of place"),
        Err(error) => {
            tracing::warn!(sandbox = id, %error, "shim could not be asked to remove its sandbox");
        }
    }
    let (cgroups, directory) = (cgroups.clone(), directory.clone());
    let rest = move || {
        if let Some(pid) = pid {
            wait_or_kill(pid);
        }
        remove_files(&cgroups, &directory, group.as_deref())
    };
    let reasons = match tokio::task::spawn_blocking(rest).await {
        Ok(reasons) => reasons,
        Err(error) => vec![error.to_string()],
    };
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons)
    }
}

/// A shim that has only just begun to live answers in a moment.
async fn ask_to_remove(
    directory: &SandboxDirectory,
    id: &str,
) -> Result<(Response, Connection), RuntimeError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = client::ask(&directory.0, id, &Request::RemoveSandbox, REMOVE_LIMIT).await;
        let starting =
            matches!(asked, Err(RuntimeError::ShimGone(_))) && client::is_alive(directory);
        if !starting || Instant::now() > deadline {
            return asked;
        }
        tokio::time::sleep(START_POLL).await;
    }
}

/// What is left once the shim is gone. Blocks.
fn remove_files(
    cgroups: &Cgroups,
    directory: &SandboxDirectory,
    group: Option<&Path>,
) -> Vec<String> {
    // A shim that was being started when its program ended may still come; it finds the lock taken, or its file gone.
    let _lock = take_over(directory);
    let mut reasons = Vec::new();
    if let Some(group) = group {
        reasons.extend(clear_dead(cgroups, directory, group).err());
    }
    match fs::remove_dir_all(&directory.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            reasons.push(format!("remove {}: {error}", directory.0.display()));
        }
        _ => {}
    }
    reasons
}

/// A shim ends by itself after its last answer; one that does not is killed.
fn wait_or_kill(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    while is_running(pid) {
        if Instant::now() > deadline {
            // Its containers are cleared right after.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// False for a process that is gone or only waits to be reaped.
fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.split_whitespace().next(), Some("Z" | "X")))
}

pub(super) async fn remove_all(state_dir: &Path, cluster_id: &str) -> Result<(), RuntimeError> {
    let cgroups = Cgroups::detect()?;
    let state_dir = absolute(state_dir);
    let directories: Vec<PathBuf> = match fs::read_dir(layout::sandboxes(&state_dir)) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    let removals = directories.into_iter().map(|path| {
        let (cgroups, directory) = (&cgroups, SandboxDirectory(path));
        async move {
            let record: Option<SandboxRecord> = read_json(&directory.record()).ok();
            let name = directory
                .0
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            remove_sandbox(
                cgroups,
                &directory,
                &name,
                record.as_ref().map(layout::sandbox_group),
            )
            .await
        }
    });
    let results: Vec<_> = futures::stream::iter(removals)
        .buffer_unordered(PARALLEL_REMOVALS)
        .collect()
        .await;
    let mut reasons: Vec<String> = results
        .into_iter()
        .filter_map(Result::err)
        .flatten()
        .collect();
    let owned_id = cluster_id.to_owned();
    let rest = tokio::task::spawn_blocking(move || remove_rest(&cgroups, &state_dir, &owned_id));
    match rest.await {
        Ok(more) => reasons.extend(more),
        Err(error) => reasons.push(error.to_string()),
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(RuntimeError::Incomplete {
        object: format!("cluster {cluster_id}"),
        reasons,
    })
}

/// Whatever no sandbox directory spoke of.
fn remove_rest(cgroups: &Cgroups, state_dir: &Path, cluster_id: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    for pid in shims(cluster_id) {
        // Without its directory a shim has nothing left to keep.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        wait_or_kill(pid);
    }
    let group = cluster_group(cluster_id);
    cgroups.kill_all(&group, PATIENCE);
    if !cgroups.remove(&group, PATIENCE) {
        reasons.push(format!("cgroup {} is still in use", group.display()));
    }
    for point in mounts_below(state_dir) {
        if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
            reasons.push(format!("unmount {}: {error}", point.display()));
        }
    }
    match fs::remove_dir_all(layout::sandboxes(state_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            reasons.push(format!("remove sandboxes: {error}"))
        }
        _ => {}
    }
    reasons
}

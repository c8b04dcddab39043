//! One sandbox as the handle knows it: starting its shim, finding it again, noticing its end.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client;
use crate::durable::{Durability, read_json, write_json};
use crate::error::RuntimeError;
use crate::layout::{self, RECORD_NAME, SHIM_LOG_NAME, STATUS_NAME, SandboxDirectory};
use crate::protocol::{Connection, ContainerRecord, Request, Response, SandboxRecord};
use crate::shim::{CLUSTER_ARGUMENT, READY, SANDBOX_ARGUMENT};
use crate::status::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

/// A shim is ready in milliseconds; an overloaded machine gets patience.
const START_LIMIT: Duration = Duration::from_secs(30);
/// What a failing shim may say.
const REASON_BYTES_MAX: u64 = 16 << 10;
/// A shim that was being started when this program ended has its socket soon.
const ADOPT_LIMIT: Duration = Duration::from_secs(5);
const ADOPT_RETRY: Duration = Duration::from_millis(20);
/// The exit code of a container that ended without anyone seeing it: as if killed.
const LOST_CODE: i32 = 137;

/// A sandbox that this handle knows.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) record: SandboxRecord,
    pub(super) directory: SandboxDirectory,
    pub(super) group: PathBuf,
    /// Cancelled when the shim has ended.
    pub(super) gone: CancellationToken,
    /// True while it is being removed: then the shim's end is wanted and not a loss.
    pub(super) removing: AtomicBool,
    pub(super) shim_pid: OnceLock<i32>,
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord, directory: SandboxDirectory) -> Self {
        let group = layout::sandbox_group(&record);
        Self {
            record,
            directory,
            group,
            gone: CancellationToken::new(),
            removing: AtomicBool::new(false),
            shim_pid: OnceLock::new(),
        }
    }

    pub(super) fn log_directory(&self) -> PathBuf {
        self.record
            .spec
            .log_directory
            .clone()
            .unwrap_or_else(|| self.directory.logs())
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let alive = !self.gone.is_cancelled();
        SandboxStatus {
            id: self.record.spec.id.clone(),
            labels: self.record.spec.labels.clone(),
            state: if alive {
                SandboxState::Ready
            } else {
                SandboxState::NotReady
            },
            created_at: self.record.created_at,
            netns_path: self.record.spec.netns_path.clone(),
            cgroup_subpath: self.record.spec.cgroup_subpath.clone(),
            log_directory: self.log_directory(),
            shim_pid: self.shim_pid.get().copied().filter(|_| alive),
        }
    }

    /// Opens the connection on which the shim tells of changes, and waits for its first word.
    pub(super) async fn watch(&self) -> io::Result<Connection> {
        let (mut connection, pid) = client::connect_with_pid(&self.directory.0).await?;
        if let Some(pid) = pid {
            // Set already when found again; it is the same shim.
            let _ = self.shim_pid.set(pid);
        }
        connection.send(&Request::Watch).await?;
        match connection.receive::<Response>().await? {
            Some(Response::Changed) => Ok(connection),
            other => Err(io::Error::other(format!("the shim answered {other:?}"))),
        }
    }

    /// The containers as their files tell, for when the shim is gone.
    pub(super) fn lost_containers(&self) -> Vec<ContainerStatus> {
        let Ok(entries) = fs::read_dir(self.directory.containers()) else {
            return Vec::new();
        };
        let mut statuses: Vec<ContainerStatus> = entries
            .flatten()
            .filter_map(|entry| read_json(&entry.path().join(STATUS_NAME)).ok())
            .collect();
        for status in &mut statuses {
            if status.state == ContainerState::Running {
                status.state = ContainerState::Exited;
                status.pid = None;
                status.exit_code = Some(LOST_CODE);
                status.finished_at = status.started_at;
                status.message =
                    Some("its shim ended unexpectedly, and the container with it".to_owned());
            }
        }
        statuses.sort_by(|left, right| left.id.cmp(&right.id));
        statuses
    }
}

/// The image that a container directory uses, and the container's name.
pub(crate) fn image_in_use(container_directory: &std::path::Path) -> Option<(String, String)> {
    let record: ContainerRecord = read_json(&container_directory.join(RECORD_NAME)).ok()?;
    Some((record.image_id, record.id.to_string()))
}

/// Makes the sandbox's directory and starts its shim; returns when the shim answers.
pub(super) async fn launch(
    shim_command: &[OsString],
    record: &SandboxRecord,
    directory: &SandboxDirectory,
) -> Result<(), RuntimeError> {
    let path = &directory.0;
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(RuntimeError::io("create sandbox directory", path))?;
    let record_path = directory.record();
    write_json(&record_path, record, Durability::Process)
        .map_err(RuntimeError::io("write", record_path))?;
    let failed = |reason: String| RuntimeError::Shim {
        sandbox: record.spec.id.clone(),
        reason,
    };
    let (program, leading) = shim_command
        .split_first()
        .ok_or_else(|| failed("no shim command is set".to_owned()))?;
    let log_path = path.join(SHIM_LOG_NAME);
    let log = File::create(&log_path).map_err(RuntimeError::io("create", log_path))?;
    let mut child = Command::new(program)
        .args(leading)
        .args([
            SANDBOX_ARGUMENT.as_ref(),
            path.as_os_str(),
            CLUSTER_ARGUMENT.as_ref(),
            record.cluster_id.as_ref(),
        ])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("start {}: {error}", program.display())))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(failed("no pipe to the shim".to_owned()));
    };
    let mut said = String::new();
    let hear = async {
        // The shim closes its side once it is ready or has failed.
        stdout
            .take(REASON_BYTES_MAX)
            .read_to_string(&mut said)
            .await?;
        child.wait().await.map(drop)
    };
    match timeout(START_LIMIT, hear).await {
        Err(_) => Err(failed("it did not get ready".to_owned())),
        Ok(Err(error)) => Err(failed(format!("hear from it: {error}"))),
        Ok(Ok(())) if said == READY => Ok(()),
        Ok(Ok(())) if said.is_empty() => Err(failed(last_words(directory))),
        Ok(Ok(())) => Err(failed(said)),
    }
}

/// What a shim that ended without a word wrote to its log.
fn last_words(directory: &SandboxDirectory) -> String {
    let text = fs::read_to_string(directory.0.join(SHIM_LOG_NAME)).unwrap_or_default();
    match text.trim().lines().next_back() {
        Some(line) => format!("it ended unexpectedly: {line}"),
        None => "it ended without a word; does the shim command reach local_runtime::shim::main?"
            .to_owned(),
    }
}

/// Finds a living shim again: its first connection, or nothing when it is dead.
pub(super) async fn find_again(sandbox: &Sandbox) -> Option<Connection> {
    let search = async {
        loop {
            match sandbox.watch().await {
                Ok(connection) => return Some(connection),
                Err(_) if client::is_alive(&sandbox.directory) => {
                    tokio::time::sleep(ADOPT_RETRY).await
                }
                Err(_) => return None,
            }
        }
    };
    timeout(ADOPT_LIMIT, search).await.unwrap_or_default()
}

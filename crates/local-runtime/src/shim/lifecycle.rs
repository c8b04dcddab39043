//! Creating, starting, stopping and removing containers, and what happens when one ends.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::log_writer::{FILES_MAX, LogWriter, Source, rotated};
use super::output::{Taps, pump};
use super::process;
use super::rootfs::{self, RootfsPlan};
use super::spawn::{self, Spawned};
use super::state::{Container, Ended, Refusal, Shim, Streams};
use super::step::InStep;
use crate::durable::{Durability, write_json};
use crate::fd_stream::FdStream;
use crate::id::ContainerId;
use crate::layout::RECORD_NAME;
use crate::protocol::{ContainerRecord, Failure};
use crate::status::{ContainerState, ContainerStatus};

/// After the last process has ended, its output is in the pipes already.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// A killed process that is still there is stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// Between attempts to remove a cgroup, and how many.
const CGROUP_RETRY: Duration = Duration::from_millis(10);
const CGROUP_RETRIES: usize = 300;
/// The exit code of a container whose program could not be started.
const START_FAILURE_CODE: i32 = 128;
/// What a termination message may have.
const MESSAGE_BYTES_MAX: u64 = 4096;

const TERMINATION_LOG: &str = "termination-log";

impl Shim {
    pub(super) fn create(&self, record: ContainerRecord) -> Result<(), Refusal> {
        self.refuse_when_closing()?;
        if self.containers.borrow().contains_key(&record.id) {
            return Ok(());
        }
        let directory = self.directory.container(&record.id);
        let status = ContainerStatus {
            id: record.id.clone(),
            name: record.spec.name.clone(),
            attempt: record.spec.attempt,
            labels: record.spec.labels.clone(),
            state: ContainerState::Created,
            pid: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            created_at: record.created_at,
            started_at: None,
            finished_at: None,
            image: record.spec.image.clone(),
            image_id: record.image_id.clone(),
            log_path: record.log_path.clone(),
            message: None,
        };
        let container = Container {
            group: self.group.join(record.id.directory_name()),
            directory,
            status: RefCell::new(status),
            streams: RefCell::default(),
            taps: Taps::default(),
            ended: watch::Sender::new(false),
            lifecycle: Mutex::new(()),
            record,
        };
        write_container(&container)
            .map_err(|error| Refusal::other(format!("keep the container's record: {error}")))?;
        self.containers
            .borrow_mut()
            .insert(container.record.id.clone(), Rc::new(container));
        self.changed();
        Ok(())
    }

    pub(super) async fn start(self: &Rc<Self>, id: &ContainerId) -> Result<(), Refusal> {
        self.refuse_when_closing()?;
        let container = self.container(id)?;
        let _guard = container.lifecycle.lock().await;
        match container.state() {
            ContainerState::Created => {}
            ContainerState::Running => return Ok(()),
            state => {
                return Err(Refusal {
                    kind: Failure::WrongState,
                    reason: format!("{state:?}"),
                });
            }
        }
        match self.launch(&container).await {
            Ok(()) => Ok(()),
            Err(reason) => {
                self.record_start_failure(&container, &reason);
                Err(Refusal {
                    kind: Failure::Start,
                    reason,
                })
            }
        }
    }

    async fn launch(self: &Rc<Self>, container: &Rc<Container>) -> Result<(), String> {
        let record = &container.record;
        self.cgroups.create(&container.group).map_err(with_cause)?;
        self.cgroups
            .apply(&container.group, &record.spec.resources)
            .map_err(with_cause)?;
        let log = LogWriter::open(&record.log_path)
            .map_err(|error| format!("open log {}: {error}", record.log_path.display()))?;
        let spawned = self
            .fork_container(container)
            .map_err(|error| format!("fork: {error}"))?;
        let ended = self.when_ended(spawned.pid);
        let started_at = Timestamp::now();
        let Spawned {
            pid,
            control,
            stdin,
            stdout,
            stderr,
        } = spawned;
        let terminal = match spawn::wait_for_program(control).await {
            Ok(terminal) => terminal,
            Err(reason) => {
                // It has nothing left to do but end.
                let _ = ended.await;
                return Err(reason);
            }
        };
        let streams =
            [stdin, stdout, stderr, terminal].map(|stream| stream.map(FdStream::new).transpose());
        let [stdin, stdout, stderr, terminal] = streams;
        let log = Rc::new(RefCell::new(log));
        let start_pump = |stream: FdStream, source| {
            spawn_local(pump(stream, source, log.clone(), container.taps.clone()))
        };
        let text = |error: io::Error| format!("read the container's output: {error}");
        let terminal = terminal.map_err(text)?;
        let mut pumps = Vec::new();
        pumps.extend(
            stdout
                .map_err(text)?
                .map(|stream| start_pump(stream, Source::Stdout)),
        );
        pumps.extend(
            stderr
                .map_err(text)?
                .map(|stream| start_pump(stream, Source::Stderr)),
        );
        pumps.extend(
            terminal
                .clone()
                .map(|stream| start_pump(stream, Source::Stdout)),
        );
        *container.streams.borrow_mut() = Streams {
            stdin: stdin.map_err(text)?,
            terminal,
        };
        {
            let mut status = container.status.borrow_mut();
            status.state = ContainerState::Running;
            status.pid = Some(pid.as_raw());
            status.started_at = Some(started_at);
        }
        save(container, Durability::Process);
        spawn_local(self.clone().supervise(container.clone(), ended, pumps));
        self.changed();
        Ok(())
    }

    fn fork_container(&self, container: &Container) -> io::Result<Spawned> {
        let record = &container.record;
        rootfs::make_directories(&container.directory)?;
        let mut files = Vec::new();
        for (name, text) in [
            ("hosts", &self.record.spec.hosts),
            ("resolv.conf", &self.record.spec.resolv_conf),
        ] {
            if !text.is_empty() {
                files.push((self.directory.etc(name), format!("/etc/{name}")));
            }
        }
        if !self.record.spec.hostname.is_empty() {
            files.push((self.directory.etc("hostname"), "/etc/hostname".to_owned()));
        }
        if let Some(target) = record
            .spec
            .termination_message_path
            .as_ref()
            .filter(|path| !path.is_empty())
        {
            files.push((termination_log(container)?, target.clone()));
        }
        let shared_memory = self.directory.shared_memory();
        let plan = RootfsPlan {
            record,
            directory: &container.directory,
            files,
            shared_memory: &shared_memory,
            hierarchy: self.cgroups.hierarchy(),
            cgroup: &container.group,
        };
        let join_files = self.cgroups.join_files(&container.group);
        let oom_score = record.spec.oom_score_adj.unwrap_or(0).to_string();
        let (tty, stdin) = (record.spec.tty, record.spec.stdin);
        spawn::spawn(
            self.own_pid_namespace(),
            self.container_pid_namespace(),
            tty,
            stdin,
            |stdio, control| {
                setsid().in_step(|| "begin a session".to_owned())?;
                process::join_cgroup(&join_files)?;
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)
                    .in_step(|| "make mount and cgroup namespaces".to_owned())?;
                fs::write("/proc/self/oom_score_adj", &oom_score)
                    .in_step(|| "set oom_score_adj".to_owned())?;
                rootfs::enter(&plan)?;
                process::become_program(record, &record.arguments, tty, stdio, control)
            },
        )
    }

    fn record_start_failure(self: &Rc<Self>, container: &Rc<Container>, reason: &str) {
        {
            let mut status = container.status.borrow_mut();
            let now = Timestamp::now();
            status.state = ContainerState::Exited;
            status.exit_code = Some(START_FAILURE_CODE);
            status.started_at = status.started_at.or(Some(now));
            status.finished_at = Some(now);
            status.message = Some(reason.to_owned());
        }
        save(container, Durability::Machine);
        container.ended.send_replace(true);
        self.changed();
        spawn_local(self.clone().remove_group(container.group.clone()));
    }

    /// Owns a running container until its end is recorded.
    async fn supervise(
        self: Rc<Self>,
        container: Rc<Container>,
        ended: oneshot::Receiver<Ended>,
        pumps: Vec<JoinHandle<()>>,
    ) {
        let Ok(ended) = ended.await else { return };
        let finished_at = Timestamp::now();
        if self.pause.is_some() {
            // In a shared PID namespace the kernel leaves the first process's children alive.
            self.cgroups.kill_all(&container.group, OUTPUT_PATIENCE);
        }
        for mut pump in pumps {
            if timeout(OUTPUT_PATIENCE, &mut pump).await.is_err() {
                pump.abort();
            }
        }
        *container.streams.borrow_mut() = Streams::default();
        container.taps.clear();
        let oom_killed = ended.code != 0 && self.cgroups.oom_kills(&container.group) > 0;
        {
            let mut status = container.status.borrow_mut();
            status.state = ContainerState::Exited;
            status.pid = None;
            status.exit_code = Some(ended.code);
            status.signal = ended.signal;
            status.oom_killed = oom_killed;
            status.finished_at = Some(finished_at);
            status.message = read_termination_message(&container);
        }
        // A sandbox that is going takes its records along.
        let lasting = !self.closing.get();
        save(
            &container,
            if lasting {
                Durability::Machine
            } else {
                Durability::Process
            },
        );
        container.ended.send_replace(true);
        self.changed();
        self.remove_group(container.group.clone()).await;
    }

    async fn remove_group(self: Rc<Self>, group: PathBuf) {
        for _ in 0..CGROUP_RETRIES {
            if self.cgroups.remove_once(&group) {
                return;
            }
            tokio::time::sleep(CGROUP_RETRY).await;
        }
        tracing::warn!(group = %group.display(), "a cgroup could not be removed");
    }

    /// Sends the stop signal, waits, kills.
    pub(super) async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Refusal> {
        let container = self.container(id)?;
        let pid = {
            // A start that is under way comes first.
            let _guard = container.lifecycle.lock().await;
            if container.state() != ContainerState::Running {
                return Ok(());
            }
            self.live_pid(&container)
        };
        if !grace.is_zero() {
            if let Some(pid) = pid {
                send_signal(pid, container.record.stop_signal);
            }
            if timeout(grace, container.wait_ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.kill(&container).await
    }

    async fn kill(&self, container: &Container) -> Result<(), Refusal> {
        if let Some(pid) = self.live_pid(container) {
            // Ending process 1 ends its whole PID namespace.
            let _ = kill(pid, Signal::SIGKILL);
        }
        let waiting = timeout(KILL_PATIENCE, container.wait_ended()).await;
        waiting.map_err(|_| {
            Refusal::other(format!(
                "container {} does not end after SIGKILL",
                container.record.id
            ))
        })
    }

    pub(super) async fn stop_all(&self, grace: Duration) -> Result<(), Refusal> {
        let ids: Vec<ContainerId> = self.containers.borrow().keys().cloned().collect();
        let results = futures::future::join_all(ids.iter().map(|id| self.stop(id, grace))).await;
        results.into_iter().collect()
    }

    pub(super) async fn remove(&self, id: &ContainerId) -> Result<(), Refusal> {
        let Ok(container) = self.container(id) else {
            return Ok(());
        };
        self.stop(id, Duration::ZERO).await?;
        let _guard = container.lifecycle.lock().await;
        match fs::remove_dir_all(&container.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Refusal::other(format!(
                    "remove {}: {error}",
                    container.directory.display()
                )));
            }
            _ => {}
        }
        if self.record.spec.log_directory.is_none() {
            remove_log(&container.record.log_path);
        }
        self.containers.borrow_mut().remove(id);
        self.changed();
        Ok(())
    }

    /// Ends everything and takes away mounts and cgroups; goes on after failures and tells them together.
    pub(super) async fn close(&self) -> Result<(), Refusal> {
        self.closing.set(true);
        let mut failures = Vec::new();
        if let Err(refusal) = self.stop_all(Duration::ZERO).await {
            failures.push(refusal.reason);
        }
        self.cgroups.kill_once(&self.group);
        let mut removed = false;
        for _ in 0..CGROUP_RETRIES {
            self.reap();
            removed = self.cgroups.remove_once(&self.group);
            if removed {
                break;
            }
            self.cgroups.kill_once(&self.group);
            tokio::time::sleep(CGROUP_RETRY).await;
        }
        if !removed {
            failures.push(format!("cgroup {} is still in use", self.group.display()));
        }
        let shared_memory = self.directory.shared_memory();
        if let Err(error) = umount2(&shared_memory, MntFlags::MNT_DETACH)
            && shared_memory.exists()
        {
            failures.push(format!("unmount {}: {error}", shared_memory.display()));
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Refusal::other(failures.join("; ")))
        }
    }
}

/// The text of an error with its causes.
fn with_cause(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn send_signal(pid: Pid, signal: i32) {
    // SAFETY: plain numbers; real-time signals are not in nix's list. The process was not reaped, so the number is its own.
    unsafe { nix::libc::kill(pid.as_raw(), signal) };
}

fn write_container(container: &Container) -> io::Result<()> {
    fs::create_dir_all(&container.directory)?;
    write_json(
        &container.directory.join(RECORD_NAME),
        &container.record,
        Durability::Process,
    )?;
    container.save(Durability::Process)
}

fn save(container: &Container, durability: Durability) {
    if let Err(error) = container.save(durability) {
        tracing::error!(%error, container = %container.record.id, "keep the container's status");
    }
}

/// The caller cannot ask for this log any more.
fn remove_log(path: &Path) {
    for index in 0..FILES_MAX {
        // Most logs were never rotated.
        let _ = fs::remove_file(rotated(path, index));
    }
}

/// Makes the file that the program may leave its last words in.
fn termination_log(container: &Container) -> io::Result<PathBuf> {
    let path = container.directory.join(TERMINATION_LOG);
    fs::write(&path, "")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

fn read_termination_message(container: &Container) -> Option<String> {
    container.record.spec.termination_message_path.as_ref()?;
    let mut file = fs::File::open(container.directory.join(TERMINATION_LOG)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES_MAX)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|message| !message.is_empty())
}

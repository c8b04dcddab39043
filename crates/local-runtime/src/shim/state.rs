//! What a shim knows: its sandbox, its containers, and who waits for which process.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::{Mutex, oneshot, watch};

use super::output::Taps;
use super::setup::Prepared;
use super::spawn::PidNamespace;
use crate::cgroup::Cgroups;
use crate::durable::{Durability, write_json};
use crate::fd_stream::FdStream;
use crate::id::ContainerId;
use crate::layout::{STATUS_NAME, SandboxDirectory};
use crate::protocol::{ContainerRecord, Failure, SandboxRecord};
use crate::status::{ContainerState, ContainerStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: Failure,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn other(reason: impl ToString) -> Self {
        Self {
            kind: Failure::Other,
            reason: reason.to_string(),
        }
    }
}

/// The streams of a running container that are kept open.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<FdStream>,
    pub(super) terminal: Option<FdStream>,
}

/// One container.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) directory: PathBuf,
    pub(super) group: PathBuf,
    pub(super) status: RefCell<ContainerStatus>,
    pub(super) streams: RefCell<Streams>,
    pub(super) taps: Taps,
    /// True once it has ended and its record is on disk.
    pub(super) ended: watch::Sender<bool>,
    /// Held while it is started or removed.
    pub(super) lifecycle: Mutex<()>,
}

impl Container {
    pub(super) fn state(&self) -> ContainerState {
        self.status.borrow().state
    }

    pub(super) fn save(&self, durability: Durability) -> io::Result<()> {
        write_json(
            &self.directory.join(STATUS_NAME),
            &*self.status.borrow(),
            durability,
        )
    }

    /// Waits until it has ended.
    pub(super) async fn wait_ended(&self) {
        // The sender lives in this container, so the channel cannot close while we wait.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// The whole shim.
pub(super) struct Shim {
    pub(super) record: SandboxRecord,
    pub(super) directory: SandboxDirectory,
    pub(super) cgroups: Cgroups,
    pub(super) group: PathBuf,
    pub(super) containers: RefCell<BTreeMap<ContainerId, Rc<Container>>>,
    /// Set once the sandbox is being removed; nothing new starts then.
    pub(super) closing: Cell<bool>,
    pub(super) changes: watch::Sender<u64>,
    own_pid_namespace: OwnedFd,
    pub(super) pause: Option<(Pid, OwnedFd)>,
    waiting: RefCell<HashMap<i32, oneshot::Sender<Ended>>>,
    _lock: File,
}

impl Shim {
    pub(super) fn new(prepared: Prepared) -> (Self, std::os::unix::net::UnixListener) {
        let shim = Self {
            record: prepared.record,
            directory: prepared.directory,
            cgroups: prepared.cgroups,
            group: prepared.group,
            containers: RefCell::default(),
            closing: Cell::new(false),
            changes: watch::Sender::new(0),
            own_pid_namespace: prepared.own_pid_namespace,
            pause: prepared.pause,
            waiting: RefCell::default(),
            _lock: prepared.lock,
        };
        (shim, prepared.listener)
    }

    pub(super) fn own_pid_namespace(&self) -> std::os::fd::BorrowedFd<'_> {
        self.own_pid_namespace.as_fd()
    }

    /// Where a new container's processes are numbered.
    pub(super) fn container_pid_namespace(&self) -> PidNamespace<'_> {
        match &self.pause {
            Some((_, namespace)) => PidNamespace::Join(namespace.as_fd()),
            None => PidNamespace::New,
        }
    }

    pub(super) fn container(&self, id: &ContainerId) -> Result<Rc<Container>, Refusal> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Refusal {
            kind: Failure::NotFound,
            reason: format!("container {id} is not known"),
        })
    }

    pub(super) fn statuses(&self) -> Vec<ContainerStatus> {
        self.containers
            .borrow()
            .values()
            .map(|container| container.status.borrow().clone())
            .collect()
    }

    /// A container that runs, and its first process.
    pub(super) fn running(&self, id: &ContainerId) -> Result<(Rc<Container>, Pid), Refusal> {
        let container = self.container(id)?;
        let Some(pid) = self.live_pid(&container) else {
            return Err(Refusal {
                kind: Failure::WrongState,
                reason: format!("{:?}", container.state()),
            });
        };
        Ok((container, pid))
    }

    /// A container's first process. Once it is reaped its number may be another's, long before its end is recorded.
    pub(super) fn live_pid(&self, container: &Container) -> Option<Pid> {
        let pid = container.status.borrow().pid?;
        self.is_unreaped(Pid::from_raw(pid))
            .then_some(Pid::from_raw(pid))
    }

    /// Whether a process of ours still owns its number.
    pub(super) fn is_unreaped(&self, pid: Pid) -> bool {
        self.waiting.borrow().contains_key(&pid.as_raw())
    }

    pub(super) fn refuse_when_closing(&self) -> Result<(), Refusal> {
        match self.closing.get() {
            true => Err(Refusal::other("the sandbox is being removed")),
            false => Ok(()),
        }
    }

    /// Wakes everyone who watches.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// To be called right after a process was made, before anything is awaited.
    pub(super) fn when_ended(&self, pid: Pid) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid.as_raw(), sender);
        receiver
    }

    /// Collects every process that has ended.
    pub(super) fn reap(&self) {
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ended { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (
                    pid,
                    Ended {
                        code: 128 + signal as i32,
                        signal: Some(signal as i32),
                    },
                ),
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(sender) = self.waiting.borrow_mut().remove(&pid.as_raw()) {
                // Nobody may be interested any more.
                let _ = sender.send(ended);
            }
        }
    }
}

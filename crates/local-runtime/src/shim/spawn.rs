//! Forking a process into a PID namespace, with its standard streams and a channel for what it has to say
//! before it becomes its program.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::unix::AsyncFd;

use super::step::{InStep, StepError};
use crate::protocol::receive_once;

/// First byte of what a child says: a terminal's descriptor comes with it, or the rest is an error.
const TERMINAL: u8 = b'T';
const ERROR: u8 = b'E';
/// The pause process has only two files to write.
const PAUSE_LIMIT_MILLIS: u16 = 10_000;
/// The longest error text.
const ERROR_BYTES_MAX: usize = 4096;

/// Where the child's process numbers live.
pub(super) enum PidNamespace<'a> {
    /// A new one; the child is its process 1.
    New,
    /// An existing one.
    Join(BorrowedFd<'a>),
}

/// The child's ends.
pub(super) enum ChildStdio {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The child opens a terminal inside its own mounts and sends it up.
    Terminal,
}

/// The shim's ends; a terminal comes later over `control`.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) control: OwnedFd,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// The child's end of the channel.
pub(super) struct ControlSender(OwnedFd);

impl ControlSender {
    pub(super) fn send_terminal(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        let raw = [master.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&[TERMINAL])],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    fn send_error(&self, error: &StepError) {
        let mut bytes = vec![ERROR];
        bytes.extend(error.0.bytes().take(ERROR_BYTES_MAX - 1));
        // Without a listener there is nobody to tell.
        let _ = sendmsg::<UnixAddr>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &[],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
    }
}

/// Waits until the child has become its program; gives the terminal it opened, if any.
pub(super) async fn wait_for_program(control: OwnedFd) -> Result<Option<OwnedFd>, String> {
    let text = |error: io::Error| format!("hear from the new process: {error}");
    // SAFETY: the descriptor is owned by the registration and open until it is dropped.
    let control = unsafe { AsyncFd::register(control) }.map_err(|error| text(error.into()))?;
    let mut terminal = None;
    let mut chunk = [0_u8; ERROR_BYTES_MAX];
    loop {
        let received = control.async_io(tokio::io::Interest::READABLE, |socket| {
            receive_once(socket.as_raw_fd(), &mut chunk)
        });
        match received.await {
            // The channel closes by itself when the program takes over.
            Ok((0, _)) => return Ok(terminal),
            Ok((count, _)) if chunk[0] == ERROR => {
                return Err(String::from_utf8_lossy(&chunk[1..count]).into_owned());
            }
            Ok((_, descriptors)) => terminal = descriptors.into_iter().next(),
            Err(error) => return Err(text(error)),
        }
    }
}

/// Forks. `child` runs in the new process and only returns when it failed.
///
/// `own_pid_namespace` is the shim's own, to come back to. The shim must be single-threaded.
pub(super) fn spawn(
    own_pid_namespace: BorrowedFd<'_>,
    namespace: PidNamespace<'_>,
    tty: bool,
    with_stdin: bool,
    child: impl FnOnce(ChildStdio, &ControlSender) -> Result<Infallible, StepError>,
) -> io::Result<Spawned> {
    let (control, sender) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    let (mut ours, theirs) = streams(tty, with_stdin)?;
    match &namespace {
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Join(descriptor) => setns(descriptor, CloneFlags::CLONE_NEWPID)?,
    }
    // SAFETY: the shim has one thread, so no lock can be held by another one in the copy; the child does not return
    // into the async runtime, it becomes another program or ends.
    let forked = unsafe { fork() };
    if let Ok(ForkResult::Child) = forked {
        drop(ours);
        drop(control);
        run_child(sender, theirs, child);
    }
    setns(own_pid_namespace, CloneFlags::CLONE_NEWPID)?;
    let ForkResult::Parent { child: pid } = forked? else {
        return Err(io::Error::other("the child came back"));
    };
    Ok(Spawned {
        pid,
        control,
        stdin: ours[0].take(),
        stdout: ours[1].take(),
        stderr: ours[2].take(),
    })
}

type Streams = ([Option<OwnedFd>; 3], ChildStdio);

fn streams(tty: bool, with_stdin: bool) -> io::Result<Streams> {
    if tty {
        return Ok(([None, None, None], ChildStdio::Terminal));
    }
    let (stdin, our_stdin) = match with_stdin {
        true => io::pipe().map(|(reader, writer)| (Some(reader.into()), Some(writer.into())))?,
        false => (None, None),
    };
    let (our_stdout, stdout) = io::pipe()?;
    let (our_stderr, stderr) = io::pipe()?;
    let theirs = ChildStdio::Pipes {
        stdin,
        stdout: stdout.into(),
        stderr: stderr.into(),
    };
    Ok((
        [our_stdin, Some(our_stdout.into()), Some(our_stderr.into())],
        theirs,
    ))
}

fn run_child(
    sender: OwnedFd,
    stdio: ChildStdio,
    child: impl FnOnce(ChildStdio, &ControlSender) -> Result<Infallible, StepError>,
) -> ! {
    reset_signals();
    let sender = ControlSender(sender);
    match child(stdio, &sender) {
        Ok(never) => match never {},
        Err(error) => sender.send_error(&error),
    }
    // SAFETY: ends this copy at once, without running the shim's exit handlers a second time.
    unsafe { libc::_exit(1) }
}

/// The shim's handlers and mask are not for the program to inherit.
fn reset_signals() {
    for number in Signal::iterator() {
        // SAFETY: the default action has no handler whose safety could matter; SIGKILL and SIGSTOP refuse, as they may.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
    // Cannot fail with a valid `how`.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Keeps a PID namespace alive: a process that does nothing but reap.
pub(super) fn spawn_pause(
    own_pid_namespace: BorrowedFd<'_>,
    join_files: &[std::path::PathBuf],
) -> io::Result<Pid> {
    let spawned = spawn(
        own_pid_namespace,
        PidNamespace::New,
        false,
        false,
        |_, _| {
            super::process::join_cgroup(join_files)?;
            super::process::die_with_parent()?;
            let_go_of_files().in_step(|| "let go of the shim's files".to_owned())?;
            loop {
                if nix::sys::wait::wait().is_err() {
                    nix::unistd::pause();
                }
            }
        },
    )?;
    let mut waiting = [PollFd::new(spawned.control.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PAUSE_LIMIT_MILLIS)?;
    let mut chunk = [0_u8; ERROR_BYTES_MAX];
    match receive_once(spawned.control.as_raw_fd(), &mut chunk)? {
        (0, _) => Ok(spawned.pid),
        (count, _) => Err(io::Error::other(
            String::from_utf8_lossy(&chunk[1..count]).into_owned(),
        )),
    }
}

/// Keeps no pipe of the shim open: whoever reads from one waits for its last writer.
fn let_go_of_files() -> io::Result<()> {
    let nowhere = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&nowhere)?;
    nix::unistd::dup2_stdout(&nowhere)?;
    nix::unistd::dup2_stderr(&nowhere)?;
    // Closed with all others below; closing it twice would be an error.
    std::mem::forget(nowhere);
    // SAFETY: this process runs nothing afterwards that would use a file.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

/// Opens a namespace of a process.
pub(super) fn namespace_of(pid: Pid, kind: &str) -> io::Result<OwnedFd> {
    let file = std::fs::File::open(format!("/proc/{pid}/ns/{kind}"))?;
    file.as_fd().try_clone_to_owned()
}

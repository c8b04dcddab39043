//! Running further commands in a container, and attaching to its first one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, setsid};

use super::output::Tap;
use super::process;
use super::spawn::{self, PidNamespace, Spawned, namespace_of};
use super::state::{Container, Refusal, Shim};
use super::step::{InStep, StepError};
use crate::fd_stream::FdStream;
use crate::id::ContainerId;
use crate::protocol::{Connection, Failure, Response, StreamSet};
use crate::spec::ExecSpec;

impl Shim {
    /// Runs a command and stays until it has ended or the client has gone; a client that goes takes the command with it.
    pub(super) async fn exec(
        &self,
        connection: &mut Connection,
        id: &ContainerId,
        spec: &ExecSpec,
    ) -> Result<(), Refusal> {
        self.refuse_when_closing()?;
        let (container, pid) = self.running(id)?;
        let spawned = self
            .fork_command(&container, pid, spec)
            .map_err(|error| Refusal::other(format!("fork: {error}")))?;
        let mut ended = self.when_ended(spawned.pid);
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
                let _ = ended.await;
                return Err(Refusal {
                    kind: Failure::Start,
                    reason,
                });
            }
        };
        let set = StreamSet {
            terminal: terminal.is_some(),
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        };
        let descriptors = [terminal, stdin, stdout, stderr];
        let borrowed: Vec<BorrowedFd<'_>> = descriptors
            .iter()
            .flatten()
            .map(|stream| stream.as_fd())
            .collect();
        let sent = connection
            .send_with(&Response::Streams(set), &borrowed)
            .await;
        drop(borrowed);
        // The client's copies are now the only ones, so that both sides notice the other's end.
        drop(descriptors);
        if sent.is_err() {
            self.kill_session(pid);
            return Ok(());
        }
        tokio::select! {
            biased;
            result = &mut ended => {
                let code = result.map_or(libc::SIGKILL + 128, |ended| ended.code);
                // A client that has gone needs no answer.
                let _ = connection.send(&Response::Exit { code }).await;
            }
            () = connection.closed() => self.kill_session(pid),
        }
        Ok(())
    }

    fn fork_command(
        &self,
        container: &Container,
        pid: Pid,
        spec: &ExecSpec,
    ) -> io::Result<Spawned> {
        let pid_namespace = namespace_of(pid, "pid")?;
        let mounts = namespace_of(pid, "mnt")?;
        let cgroups = namespace_of(pid, "cgroup")?;
        let join_files = self.cgroups.join_files(&container.group);
        let namespace = PidNamespace::Join(pid_namespace.as_fd());
        let oom_score = container.record.spec.oom_score_adj.unwrap_or(0).to_string();
        spawn::spawn(
            self.own_pid_namespace(),
            namespace,
            spec.tty,
            spec.stdin,
            |stdio, control| {
                setsid().in_step(|| "begin a session".to_owned())?;
                process::join_cgroup(&join_files)?;
                std::fs::write("/proc/self/oom_score_adj", &oom_score)
                    .in_step(|| "set oom_score_adj".to_owned())?;
                setns(&cgroups, CloneFlags::CLONE_NEWCGROUP)
                    .in_step(|| "join the cgroup namespace".to_owned())?;
                setns(&mounts, CloneFlags::CLONE_NEWNS).in_step(|| "join the mounts".to_owned())?;
                if spec.command.is_empty() {
                    return Err(StepError("no command is given".to_owned()));
                }
                process::become_program(&container.record, &spec.command, spec.tty, stdio, control)
            },
        )
    }

    /// The command leads a session and process group of its own; its children go with it.
    fn kill_session(&self, pid: Pid) {
        if self.is_unreaped(pid) {
            // Gone already is as good.
            let _ = nix::sys::signal::killpg(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Connects a client to a container's first process until either ends.
    pub(super) async fn attach(
        &self,
        connection: &mut Connection,
        id: &ContainerId,
        with_stdin: bool,
    ) -> Result<(), Refusal> {
        let (container, _) = self.running(id)?;
        let tap = attach_streams(connection, &container, with_stdin)
            .await
            .map_err(Refusal::other)?;
        tokio::select! {
            () = container.wait_ended() => {
                let code = container.status.borrow().exit_code.unwrap_or_default();
                let _ = connection.send(&Response::Exit { code }).await;
            }
            () = connection.closed() => {}
        }
        container.taps.remove(&tap);
        Ok(())
    }
}

async fn attach_streams(
    connection: &Connection,
    container: &Container,
    with_stdin: bool,
) -> io::Result<Rc<Tap>> {
    let (terminal, stdin) = {
        let mut streams = container.streams.borrow_mut();
        let stdin = match with_stdin && container.record.spec.stdin_once {
            // The client's end becomes the only one: closing it is end-of-file for the container.
            true => streams.stdin.take(),
            false => streams.stdin.clone().filter(|_| with_stdin),
        };
        (streams.terminal.clone(), stdin)
    };
    let (stdout, our_stdout) = io::pipe()?;
    let stderr = match terminal {
        Some(_) => None,
        None => Some(io::pipe()?),
    };
    let (stderr, our_stderr) = stderr.map_or((None, None), |(reader, writer)| {
        (Some(reader), Some(writer))
    });
    let tap = Tap {
        stdout: FdStream::new(our_stdout.into())?,
        stderr: our_stderr
            .map(|stream| FdStream::new(stream.into()))
            .transpose()?,
    };
    let set = StreamSet {
        terminal: terminal.is_some(),
        stdin: stdin.is_some(),
        stdout: true,
        stderr: stderr.is_some(),
    };
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    descriptors.extend(terminal.iter().map(FdStream::descriptor));
    descriptors.extend(stdin.iter().map(FdStream::descriptor));
    descriptors.push(stdout.as_fd());
    descriptors.extend(stderr.iter().map(|stream| stream.as_fd()));
    let tap = container.taps.add(tap);
    connection
        .send_with(&Response::Streams(set), &descriptors)
        .await?;
    Ok(tap)
}

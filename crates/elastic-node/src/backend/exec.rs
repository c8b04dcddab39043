//! Commands in a container, over the cloud's WebSocket.

use bytes::Bytes;
use cloud_api::exec::{self, Frame};
use cloud_api::model::manage::ExecContainerCommandRequest;
use kubelet_api::{BackendError, ByteReader, ByteWriter, ExecRequest, ExecSession, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};

use super::cloud_error;
use crate::engine::Shared;

/// Bytes that wait on each side of a session.
const BUFFER_BYTES: usize = 64 << 10;
/// Changes of the terminal's size that wait.
const MAX_RESIZES: usize = 16;
/// Most arguments and characters the cloud takes.
const MAX_ARGUMENTS: usize = 20;
const MAX_ARGUMENT_LENGTH: usize = 256;

pub(super) async fn session(
    shared: &Shared,
    group: String,
    container: String,
    request: ExecRequest,
) -> Result<ExecSession, BackendError> {
    check(&request.command)?;
    let attempted = format!("run a command in container {container} of group {group}");
    let ask = ExecContainerCommandRequest {
        container_group_id: group,
        container_name: container,
        command: request.command.clone(),
        tty: Some(request.tty),
        stdin: Some(request.stdin),
        sync: Some(false),
        ..ExecContainerCommandRequest::default()
    };
    let answer = shared
        .cloud
        .call(&ask)
        .await
        .map_err(|error| cloud_error(attempted.clone(), error))?;
    let uri = answer.web_socket_uri.unwrap_or_default();
    let (sender, receiver) =
        exec::connect(&uri)
            .await
            .map_err(|source| BackendError::Internal {
                attempted: attempted.clone(),
                source: Box::new(source),
            })?;
    let (stdin, stdin_end) = duplex(BUFFER_BYTES);
    let (stdout, stdout_end) = duplex(BUFFER_BYTES);
    let (stderr, stderr_end) = duplex(BUFFER_BYTES);
    let (resize, resizes) = mpsc::channel(MAX_RESIZES);
    let (exit, exited) = oneshot::channel();
    let wants_stdin = request.stdin;
    shared.tracker.spawn(async move {
        // Ends with the command; input that nobody reads any more is dropped with it.
        tokio::select! {
            () = send(sender, stdin_end, resizes, wants_stdin) => {}
            code = receive(receiver, stdout_end, stderr_end) => drop(exit.send(code)),
        }
    });
    let exit = Box::pin(async move {
        match exited.await {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(message)) => Err(BackendError::Internal {
                attempted,
                source: message.into(),
            }),
            Err(_) => Err(BackendError::Internal {
                attempted,
                source: "the session broke off".into(),
            }),
        }
    });
    let boxed_writer = |end: DuplexStream| Box::new(end) as ByteWriter;
    let boxed_reader = |end: DuplexStream| Box::new(end) as ByteReader;
    Ok(ExecSession {
        stdin: wants_stdin.then(|| boxed_writer(stdin)),
        stdout: request.stdout.then(|| boxed_reader(stdout)),
        stderr: (request.stderr && !request.tty).then(|| boxed_reader(stderr)),
        resize: request.tty.then_some(resize),
        exit,
    })
}

fn check(command: &[String]) -> Result<(), BackendError> {
    let refused = |message: String| Err(BackendError::BadRequest { message });
    if command.is_empty() {
        return refused("the command is empty".to_owned());
    }
    if command.len() > MAX_ARGUMENTS {
        return refused(format!(
            "a command in a container group takes at most {MAX_ARGUMENTS} words; use a script"
        ));
    }
    if command.iter().any(|word| word.len() > MAX_ARGUMENT_LENGTH) {
        return refused(format!(
            "a word of a command in a container group has at most {MAX_ARGUMENT_LENGTH} characters; use a script"
        ));
    }
    Ok(())
}

/// Input and resizes to the cloud; never returns.
async fn send(
    mut sender: exec::ExecSender,
    mut stdin: DuplexStream,
    mut resizes: mpsc::Receiver<TerminalSize>,
    wants_stdin: bool,
) {
    let mut buffer = vec![0; BUFFER_BYTES / 4];
    let (mut reading, mut resizing) = (wants_stdin, true);
    while reading || resizing {
        let frame = tokio::select! {
            read = stdin.read(&mut buffer), if reading => match read {
                Ok(0) | Err(_) => {
                    reading = false;
                    Frame::CloseStdin
                }
                Ok(count) => Frame::Stdin(Bytes::copy_from_slice(&buffer[..count])),
            },
            size = resizes.recv(), if resizing => match size {
                Some(size) => Frame::Resize { width: size.width, height: size.height },
                None => {
                    resizing = false;
                    continue;
                }
            },
        };
        if sender.send(frame).await.is_err() {
            // The command may have ended before its input did: what it said last is still to be read.
            break;
        }
    }
    // Nothing more to send; the end comes from the other side.
    std::future::pending::<()>().await;
}

async fn receive(
    mut receiver: exec::ExecReceiver,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
) -> Result<i32, String> {
    while let Some(frame) = receiver.next().await {
        let frame = frame.map_err(|error| error.to_string())?;
        // A reader that went away does not stop the command.
        match frame {
            Frame::Stdout(bytes) => drop(stdout.write_all(&bytes).await),
            Frame::Stderr(bytes) => drop(stderr.write_all(&bytes).await),
            Frame::Exit(code) => return Ok(code),
            Frame::Failed(message) => return Err(message),
            Frame::Stdin(_) | Frame::Resize { .. } | Frame::CloseStdin => {}
        }
    }
    Err("the cloud closed the session without an exit code".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_the_cloud_would_not_take_is_refused_with_the_way_out() {
        assert!(check(&["ls".to_owned()]).is_ok());
        for command in [vec![], vec!["a".to_owned(); 21], vec!["x".repeat(257)]] {
            assert!(matches!(
                check(&command),
                Err(BackendError::BadRequest { .. })
            ));
        }
    }
}

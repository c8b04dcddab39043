//! Making sessions out of what a shim sends.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::fd_stream::{ClosingWriter, FdStream};
use crate::protocol::{Connection, Response, StreamSet};
use crate::session::{ExecSession, InputStream, OutputStream};
use crate::status::ExecOutput;

/// Terminal sizes waiting to be set.
const RESIZE_QUEUE_LENGTH: usize = 8;
/// Output of a finished command that is kept.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// A finished command's children may keep its streams open; nobody waits longer for them.
const DRAIN_LIMIT: Duration = Duration::from_millis(250);

/// Builds the session from descriptors that came with a [`Response::Streams`].
pub(super) fn session(
    mut connection: Connection,
    set: StreamSet,
    with_stdin: bool,
) -> io::Result<ExecSession> {
    let mut take = |wanted: bool| match wanted {
        true => connection
            .take_descriptor()
            .and_then(FdStream::new)
            .map(Some),
        false => Ok(None),
    };
    let terminal = take(set.terminal)?;
    let stdin = take(set.stdin)?;
    let stdout = take(set.stdout)?.or_else(|| terminal.clone());
    let stderr = take(set.stderr)?;
    let input = match (stdin, &terminal) {
        (Some(pipe), _) => Some(ClosingWriter::new(pipe, false)),
        (None, Some(terminal)) if with_stdin => Some(ClosingWriter::new(terminal.clone(), true)),
        _ => None,
    };
    Ok(ExecSession {
        stdin: input.map(|input| Box::new(input) as InputStream),
        stdout: output(stdout),
        stderr: output(stderr),
        resize: resizer(terminal),
        exit: Box::pin(exit_code(connection)),
    })
}

fn output(stream: Option<FdStream>) -> OutputStream {
    match stream {
        Some(stream) => Box::new(stream),
        None => Box::new(tokio::io::empty()),
    }
}

/// Sets sizes for as long as someone may send them.
fn resizer(terminal: Option<FdStream>) -> mpsc::Sender<(u16, u16)> {
    let (sender, mut receiver) = mpsc::channel::<(u16, u16)>(RESIZE_QUEUE_LENGTH);
    // Ends when the session's sender is dropped.
    tokio::spawn(async move {
        while let Some((columns, rows)) = receiver.recv().await {
            // The terminal of a process that has ended needs no size.
            let _ = terminal
                .as_ref()
                .map(|terminal| terminal.resize(columns, rows));
        }
    });
    sender
}

async fn exit_code(mut connection: Connection) -> io::Result<i32> {
    match connection.receive::<Response>().await? {
        Some(Response::Exit { code }) => Ok(code),
        Some(other) => Err(io::Error::other(format!("the shim answered {other:?}"))),
        None => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the shim ended before the command",
        )),
    }
}

/// Runs a session to its end.
pub(super) async fn run_to_end(session: ExecSession) -> io::Result<ExecOutput> {
    let ExecSession {
        stdin,
        mut stdout,
        mut stderr,
        resize,
        exit,
    } = session;
    drop((stdin, resize));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit_code = {
        let reading = async {
            tokio::join!(
                collect(&mut stdout, &mut out),
                collect(&mut stderr, &mut err)
            )
        };
        tokio::pin!(reading, exit);
        let mut at_end = false;
        let code = loop {
            tokio::select! {
                code = &mut exit => break code?,
                _ = &mut reading, if !at_end => at_end = true,
            }
        };
        if !at_end {
            // Late output is lost, as the streams are not the command's own any more.
            let _ = timeout(DRAIN_LIMIT, &mut reading).await;
        }
        code
    };
    Ok(ExecOutput {
        exit_code,
        stdout: out,
        stderr: err,
    })
}

/// Reads to the end; keeps only the first part.
async fn collect(stream: &mut OutputStream, kept: &mut Vec<u8>) {
    let mut chunk = vec![0_u8; 8 << 10];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let room = OUTPUT_BYTES_MAX - kept.len();
                kept.extend_from_slice(&chunk[..count.min(room)]);
            }
        }
    }
}

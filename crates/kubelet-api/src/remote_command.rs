//! exec and attach: what both framings share, and the session over SPDY streams.
//!
//! The client opens one stream for each of input, output, error output, the final status and (with a terminal) its size;
//! the first header of each says which. `v4.channel.k8s.io` ends with a `Status`, older versions with a sentence.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::backend::{BackendError, ByteReader, ByteWriter, ExecSession, TerminalSize};
use crate::spdy::stream::{Stream, StreamReader, StreamWriter};

/// A client opens all its streams within this time, as upstream allows.
pub(crate) const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read from a process at once.
pub(crate) const CHUNK_BYTES: usize = 32 * 1024;
/// Longest message about the size of a terminal.
const RESIZE_BYTES_MAX: usize = 1024;

/// Versions of the protocol that Kubernetes speaks over SPDY and WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CommandVersion {
    V1,
    V2,
    /// With the size of the terminal.
    V3,
    /// Ends with a `Status`.
    V4,
    /// Input can end before the session (WebSocket only).
    V5,
}

impl CommandVersion {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "channel.k8s.io",
            Self::V2 => "v2.channel.k8s.io",
            Self::V3 => "v3.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// The last words of a session; empty when older versions have nothing to say.
    pub(crate) fn last_words(self, exit: Result<i32, BackendError>) -> Vec<u8> {
        let status = exit_status(exit);
        if self >= Self::V4 {
            return status.to_string().into_bytes();
        }
        let message = status["message"].as_str().unwrap_or_default();
        message.as_bytes().to_vec()
    }
}

/// The `Status` that ends a session; kubectl takes its exit code from the cause.
fn exit_status(exit: Result<i32, BackendError>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": error.full_text(),
            "reason": "InternalError",
            "code": 500,
        }),
    }
}

#[derive(Deserialize)]
struct ResizeMessage {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// The size in a message of the resize channel.
pub(crate) fn terminal_size(message: &[u8]) -> Option<TerminalSize> {
    let ResizeMessage { width, height } = serde_json::from_slice(message).ok()?;
    Some(TerminalSize { width, height })
}

/// Streams that a client said it would open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Default)]
struct Streams {
    /// Ended in our direction, it tells the client that the process no longer reads.
    stdin: Option<(StreamReader, StreamWriter)>,
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    error: Option<StreamWriter>,
    resize: Option<(StreamReader, StreamWriter)>,
}

impl Streams {
    fn complete(&self, wanted: Wanted, version: CommandVersion) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            // A terminal has one output.
            && self.stderr.is_some() == (wanted.stderr && !wanted.tty)
            && self.resize.is_some() == (wanted.tty && version >= CommandVersion::V3)
    }

    /// Takes a stream that is wanted and not there yet.
    async fn take(&mut self, stream: Stream, wanted: Wanted) {
        let kind = stream.header("streamtype").unwrap_or_default().to_string();
        let fits = match kind.as_str() {
            "stdin" => wanted.stdin && self.stdin.is_none(),
            "stdout" => wanted.stdout && self.stdout.is_none(),
            "stderr" => wanted.stderr && !wanted.tty && self.stderr.is_none(),
            "error" => self.error.is_none(),
            "resize" => wanted.tty && self.resize.is_none(),
            _ => false,
        };
        if !fits {
            tracing::debug!(
                kind,
                "a stream that does not belong to the session was refused"
            );
            return stream.refuse().await;
        }
        let Ok((reader, writer)) = stream.accept().await else {
            return;
        };
        match kind.as_str() {
            "stdin" => self.stdin = Some((reader, writer)),
            "resize" => self.resize = Some((reader, writer)),
            "stdout" => self.stdout = Some(writer),
            "stderr" => self.stderr = Some(writer),
            _ => self.error = Some(writer),
        }
    }
}

/// Carries a session over SPDY streams until the process has ended and its output is delivered.
pub(crate) async fn serve(
    version: CommandVersion,
    wanted: Wanted,
    session: ExecSession,
    mut opened: mpsc::Receiver<Stream>,
) {
    let mut streams = Streams::default();
    let collecting = async {
        while !streams.complete(wanted, version) {
            let Some(stream) = opened.recv().await else {
                return;
            };
            streams.take(stream, wanted).await;
        }
    };
    if tokio::time::timeout(STREAM_CREATION_TIMEOUT, collecting)
        .await
        .is_err()
    {
        tracing::debug!("a client did not open the streams of its session in time");
    }
    let Some(mut error) = streams.error.take() else {
        return;
    };
    let inputs = async {
        tokio::join!(
            feed(streams.stdin, session.stdin),
            resize(streams.resize, session.resize)
        );
        // The session ends with the command, not with its input.
        std::future::pending::<()>().await;
    };
    let command = async {
        tokio::join!(
            session.exit,
            drain(session.stdout, streams.stdout),
            drain(session.stderr, streams.stderr)
        )
        .0
    };
    let exit = tokio::select! {
        exit = command => exit,
        () = inputs => return,
    };
    let last_words = version.last_words(exit);
    let _ = error.send(Bytes::from(last_words)).await;
    error.finish().await;
}

async fn feed(stream: Option<(StreamReader, StreamWriter)>, input: Option<ByteWriter>) {
    let (Some((mut stream, back)), Some(mut input)) = (stream, input) else {
        return;
    };
    while let Some(bytes) = stream.next().await {
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            // The process closed its input; what else comes is not wanted.
            return back.finish().await;
        }
    }
    let _ = input.shutdown().await;
    drop(input);
    back.finish().await;
}

async fn resize(
    stream: Option<(StreamReader, StreamWriter)>,
    sizes: Option<mpsc::Sender<TerminalSize>>,
) {
    let (Some((mut stream, back)), Some(sizes)) = (stream, sizes) else {
        return;
    };
    let mut text = BytesMut::new();
    while let Some(bytes) = stream.next().await {
        text.extend_from_slice(&bytes);
        for size in take_sizes(&mut text) {
            let _ = sizes.try_send(size);
        }
    }
    back.finish().await;
}

/// Complete messages at the front of a stream of JSON objects.
fn take_sizes(text: &mut BytesMut) -> Vec<TerminalSize> {
    let mut sizes = Vec::new();
    while let Some(end) = text.iter().position(|byte| *byte == b'}') {
        let message = text.split_to(end + 1);
        sizes.extend(terminal_size(&message));
    }
    if text.len() > RESIZE_BYTES_MAX {
        text.clear();
    }
    sizes
}

/// A process's output to its stream; read to its end also when nobody wants it, so that the process does not block.
async fn drain(output: Option<ByteReader>, mut stream: Option<StreamWriter>) {
    if let Some(mut output) = output {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK_BYTES);
            match output.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let bytes = buffer.split().freeze();
            if let Some(open) = &mut stream
                && open.send(bytes).await.is_err()
            {
                stream = None;
            }
        }
    }
    if let Some(stream) = stream {
        stream.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_tells_its_exit_code_as_a_cause() {
        let words = CommandVersion::V4.last_words(Ok(7));
        let status: Value = serde_json::from_slice(&words).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "7");
        assert_eq!(status["reason"], "NonZeroExitCode");
        let words = CommandVersion::V5.last_words(Ok(0));
        assert_eq!(
            serde_json::from_slice::<Value>(&words).unwrap()["status"],
            "Success"
        );
    }

    #[test]
    fn versions_before_the_fourth_end_with_a_sentence_or_nothing() {
        assert_eq!(CommandVersion::V3.last_words(Ok(0)), b"");
        assert_eq!(
            CommandVersion::V1.last_words(Ok(7)),
            b"command terminated with non-zero exit code: 7"
        );
    }

    #[test]
    fn sizes_are_taken_out_of_a_stream_however_it_is_cut() {
        let mut text = BytesMut::from(&b"{\"Width\":100,\"Height\":40}\n{\"Wid"[..]);
        let size = |width, height| TerminalSize { width, height };
        assert_eq!(take_sizes(&mut text), [size(100, 40)]);
        text.extend_from_slice(b"th\":80,\"Height\":25}{nonsense}");
        assert_eq!(take_sizes(&mut text), [size(80, 25)]);
        text.extend_from_slice(&[b'a'; RESIZE_BYTES_MAX + 1]);
        assert!(take_sizes(&mut text).is_empty() && text.is_empty());
    }
}

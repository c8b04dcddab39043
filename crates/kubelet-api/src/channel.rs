//! The `v4`/`v5.channel.k8s.io` WebSocket framing: the first byte of every binary message names a channel.
//!
//! 0 input, 1 output, 2 error output, 3 final status, 4 terminal size, 255 (only v5) closes the channel named by
//! its second byte. The server's last message is a `Status` on channel 3, then a normal close.

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use crate::backend::{BackendError, ByteReader, ByteWriter, ExecSession, TerminalSize};

/// Messages waiting for a slow client; readers stop when it is full.
const OUTGOING_MESSAGES_MAX: usize = 16;
/// Bytes read from a process at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// Largest message taken from a client (kubectl sends at most 32 KiB).
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Limits of a session's WebSocket.
pub(crate) fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// The subprotocols we speak, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// A connection to a pod's port, or why there is none.
pub(crate) type PortConnection = Result<(ByteReader, ByteWriter), BackendError>;

/// Picks the best of the offered subprotocols.
pub(crate) fn select_protocol(offered: &str) -> Option<&'static str> {
    PROTOCOLS
        .into_iter()
        .find(|known| offered.split(',').any(|one| one.trim() == *known))
}

#[derive(Deserialize)]
struct ResizeMessage {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Carries a session over a WebSocket until the process has ended and its output is delivered, or the client left.
pub(crate) async fn serve_session<S>(socket: WebSocketStream<S>, session: ExecSession)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, source) = socket.split();
    let (outgoing, queue) = mpsc::channel::<Message>(OUTGOING_MESSAGES_MAX);
    let writer = tokio::spawn(write_messages(sink, queue));
    let input = tokio::spawn(read_input(source, session.stdin, session.resize));
    let output = tokio::spawn(pump(session.stdout, STDOUT, outgoing.clone()));
    let errors = tokio::spawn(pump(session.stderr, STDERR, outgoing.clone()));
    let status = exit_status(session.exit.await);
    // Output first: a client that sees the status stops reading.
    let _ = output.await;
    let _ = errors.await;
    let _ = outgoing
        .send(frame(STATUS, status.to_string().as_bytes()))
        .await;
    let _ = outgoing
        .send(Message::Close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        })))
        .await;
    drop(outgoing);
    let _ = writer.await;
    input.abort();
}

/// Carries TCP connections to pod ports: channel `2i` is data, `2i + 1` errors of the i-th port; the first message on
/// each is the port as two little-endian bytes.
pub(crate) async fn serve_ports<S>(
    socket: WebSocketStream<S>,
    connections: Vec<(u16, PortConnection)>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, mut source) = socket.split();
    let (outgoing, queue) = mpsc::channel::<Message>(OUTGOING_MESSAGES_MAX);
    let writer = tokio::spawn(write_messages(sink, queue));
    let mut inputs: Vec<Option<ByteWriter>> = Vec::new();
    let mut readers = Vec::new();
    for (index, (port, connection)) in connections.into_iter().enumerate() {
        // A request names few ports; more than a channel byte can tell apart are refused before.
        let data = (index * 2) as u8;
        for channel in [data, data + 1] {
            let _ = outgoing.send(frame(channel, &port.to_le_bytes())).await;
        }
        match connection {
            Ok((reader, input)) => {
                inputs.push(Some(input));
                readers.push(tokio::spawn(pump(Some(reader), data, outgoing.clone())));
            }
            Err(error) => {
                inputs.push(None);
                let _ = outgoing
                    .send(frame(data + 1, error.to_string().as_bytes()))
                    .await;
            }
        }
    }
    drop(outgoing);
    while let Some(Ok(message)) = source.next().await {
        let Message::Binary(data) = message else {
            if message.is_close() {
                break;
            }
            continue;
        };
        let Some((channel, rest)) = data.split_first() else {
            continue;
        };
        let slot = inputs.get_mut(usize::from(*channel / 2));
        if let (Some(Some(input)), true) = (slot, channel % 2 == 0)
            && input.write_all(rest).await.is_err()
        {
            break;
        }
    }
    drop(inputs);
    for reader in readers {
        reader.abort();
    }
    let _ = writer.await;
}

async fn write_messages<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Message>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = queue.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

async fn read_input<S>(
    mut source: SplitStream<WebSocketStream<S>>,
    mut stdin: Option<ByteWriter>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = source.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => break,
            _ => continue,
        };
        match data.split_first() {
            Some((&STDIN, rest)) => {
                if let Some(input) = stdin.as_mut()
                    && (input.write_all(rest).await.is_err() || input.flush().await.is_err())
                {
                    // The process closed its input; what else comes is not wanted.
                    stdin = None;
                }
            }
            Some((&RESIZE, rest)) => {
                if let (Some(resize), Ok(size)) =
                    (&resize, serde_json::from_slice::<ResizeMessage>(rest))
                {
                    let _ = resize.try_send(TerminalSize {
                        width: size.width,
                        height: size.height,
                    });
                }
            }
            Some((&CLOSE, [STDIN, ..])) => {
                if let Some(mut input) = stdin.take() {
                    let _ = input.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

async fn pump(reader: Option<ByteReader>, channel: u8, outgoing: mpsc::Sender<Message>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count) = reader.read(&mut buffer).await {
        if count == 0
            || outgoing
                .send(frame(channel, &buffer[..count]))
                .await
                .is_err()
        {
            return;
        }
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.extend_from_slice(&[channel]);
    bytes.extend_from_slice(data);
    Message::Binary(Bytes::from(bytes))
}

/// The `Status` that ends a session; kubectl takes its exit code from the cause.
fn exit_status(exit: Result<i32, BackendError>) -> serde_json::Value {
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
            "message": error.to_string(),
            "reason": "InternalError",
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_subprotocol_is_chosen() {
        assert_eq!(
            select_protocol("v4.channel.k8s.io, v5.channel.k8s.io"),
            Some("v5.channel.k8s.io")
        );
        assert_eq!(
            select_protocol("v4.channel.k8s.io"),
            Some("v4.channel.k8s.io")
        );
        assert_eq!(select_protocol("SPDY/3.1+portforward.k8s.io"), None);
    }

    #[test]
    fn a_failing_command_tells_its_exit_code_as_a_cause() {
        let status = exit_status(Ok(7));
        assert_eq!(status["details"]["causes"][0]["message"], "7");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(exit_status(Ok(0))["status"], "Success");
    }
}

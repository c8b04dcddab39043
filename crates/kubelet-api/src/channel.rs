//! The `channel.k8s.io` WebSocket framing: the first byte of every binary message names a channel.
//!
//! 0 input, 1 output, 2 error output, 3 final status, 4 terminal size, 255 (only v5) closes the channel named by
//! its second byte. The server's last message is the status on channel 3, then a normal close.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use crate::backend::{BackendError, ByteReader, ByteWriter, ExecSession, TerminalSize};
use crate::remote_command::{CHUNK_BYTES, CommandVersion, terminal_size};

/// Messages waiting for a slow client; readers stop when it is full.
const OUTGOING_MESSAGES_MAX: usize = 16;
/// Largest message taken from a client (kubectl sends at most 32 KiB).
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After so long without anything to send a ping goes out: proxies cut silent connections, and writing shows a dead peer.
const PING_PERIOD: Duration = Duration::from_secs(60);
/// A client may take so long to answer the close; closing first could cost it what it has not read yet.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// A connection to a pod's port, or why there is none.
pub(crate) type PortConnection = Result<(ByteReader, ByteWriter), BackendError>;

/// Carries a session over a WebSocket until the process has ended and its output is delivered, or the client left.
pub(crate) async fn serve_session<S>(
    socket: WebSocketStream<S>,
    version: CommandVersion,
    session: ExecSession,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, source) = socket.split();
    let (outgoing, queue) = mpsc::channel::<Message>(OUTGOING_MESSAGES_MAX);
    let mut writing = Box::pin(write_messages(sink, queue));
    let mut reading = Box::pin(read_input(source, session.stdin, session.resize));
    let command = async {
        // Output first: a client that sees the status stops reading.
        let (exit, (), ()) = tokio::join!(
            session.exit,
            pump(session.stdout, STDOUT, outgoing.clone()),
            pump(session.stderr, STDERR, outgoing.clone())
        );
        let last_words = version.last_words(exit);
        if !last_words.is_empty() {
            let _ = outgoing.send(frame(STATUS, &last_words)).await;
        }
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = outgoing.send(Message::Close(Some(close))).await;
    };
    tokio::select! {
        () = &mut reading => return,
        () = &mut writing => return,
        () = command => {}
    }
    drop(outgoing);
    let ending = async { tokio::join!(writing, reading) };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, ending).await;
}

/// Carries TCP connections to pod ports: channel `2i` is data, `2i + 1` errors of the i-th port; the first message on
/// each is the port as two little-endian bytes. Ends with the client, or when all connections have ended.
pub(crate) async fn serve_ports<S>(
    socket: WebSocketStream<S>,
    connections: Vec<(u16, PortConnection)>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, source) = socket.split();
    let (outgoing, queue) = mpsc::channel::<Message>(OUTGOING_MESSAGES_MAX);
    let mut writing = Box::pin(write_messages(sink, queue));
    let mut inputs: Vec<Option<ByteWriter>> = Vec::new();
    let mut readers = JoinSet::new();
    let mut greetings = Vec::new();
    for (index, (port, connection)) in connections.into_iter().enumerate() {
        // A request names few ports; more than a channel byte can tell apart are refused before.
        let data = (index * 2) as u8;
        greetings.extend([data, data + 1].map(|channel| frame(channel, &port.to_le_bytes())));
        match connection {
            Ok((reader, input)) => {
                inputs.push(Some(input));
                let outgoing = outgoing.clone();
                readers.spawn(pump(Some(reader), data, outgoing));
            }
            Err(error) => {
                inputs.push(None);
                greetings.push(frame(data + 1, error.full_text().as_bytes()));
            }
        }
    }
    let mut reading = Box::pin(feed_ports(source, inputs));
    let forwarding = async {
        for greeting in greetings {
            let _ = outgoing.send(greeting).await;
        }
        while readers.join_next().await.is_some() {}
        let _ = outgoing.send(Message::Close(None)).await;
    };
    tokio::select! {
        () = &mut reading => return,
        () = &mut writing => return,
        () = forwarding => {}
    }
    drop(outgoing);
    let ending = async { tokio::join!(writing, reading) };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, ending).await;
}

async fn feed_ports<S>(
    mut source: SplitStream<WebSocketStream<S>>,
    mut inputs: Vec<Option<ByteWriter>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = source.next().await {
        let Message::Binary(data) = message else {
            if message.is_close() {
                return;
            }
            continue;
        };
        let Some((channel, rest)) = data.split_first() else {
            continue;
        };
        if channel % 2 == 1 {
            continue;
        }
        if let Some(slot) = inputs.get_mut(usize::from(*channel / 2))
            && let Some(input) = slot
            && (input.write_all(rest).await.is_err() || input.flush().await.is_err())
        {
            // The pod closed this connection; the others go on.
            *slot = None;
        }
    }
}

/// Ends after a close message, or when the client takes nothing any more.
async fn write_messages<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Message>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match tokio::time::timeout(PING_PERIOD, queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(_) => Message::Ping(Bytes::new()),
        };
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
                if let (Some(resize), Some(size)) = (&resize, terminal_size(rest)) {
                    let _ = resize.try_send(size);
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

//! A served connection: one loop reads frames, one writes them, and a handler uses the streams in between.
//!
//! All three are one future, owned by whoever serves the connection: nothing is left when it is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::state::{Arrival, Inbox, Received, STREAM_BUFFER_BYTES, STREAMS_MAX, Streams};
use super::stream::{Stream, StreamEnded, StreamReader, StreamWriter};
use super::{Decoder, Encoder, Frame, Headers, ProtocolError, reset};

/// Frames waiting for a slow peer; whoever sends waits when it is full.
const OUTGOING_FRAMES_MAX: usize = 32;
/// Read from the peer at once.
const READ_BYTES: usize = 16 * 1024;
/// Frames are gathered up to this many bytes for one write.
const WRITE_BYTES: usize = 32 * 1024;
/// After so long without anything to send a ping goes out: proxies cut silent connections, and writing shows a dead peer.
const PING_PERIOD: Duration = Duration::from_secs(60);
/// A peer that sends nothing for so long, not even the echo of a ping, is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// After the last frame the peer may take so long to close; closing first could cost it what it has not read yet.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pieces below this are copied, so that a byte does not keep a whole read buffer alive.
const COPIED_BYTES: usize = 4 * 1024;
/// A piece takes at least so much of the room.
const CHARGE_MIN_BYTES: usize = 64;
/// Credit for the whole connection is given in steps of this.
const SESSION_CREDIT_BYTES: usize = 32 * 1024;

enum Outgoing {
    Frame(Frame),
    End,
}

/// What streams and loops share.
pub(crate) struct Shared {
    streams: Mutex<Streams>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Changes with every credit and every end.
    pub(super) windows: watch::Sender<()>,
    received: AtomicUsize,
}

impl Shared {
    /// Never held across an await.
    pub(super) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), StreamEnded> {
        let sent = self.outgoing.send(Outgoing::Frame(frame)).await;
        sent.map_err(|_| StreamEnded)
    }

    /// A writer is gone before its stream was finished.
    pub(super) fn abandon(&self, stream: u32) {
        if !self.streams().end(stream) {
            return;
        }
        let status = reset::CANCEL;
        // A full queue means a peer that does not read; it will see the end of the connection.
        let frame = Frame::RstStream { stream, status };
        let _ = self.outgoing.try_send(Outgoing::Frame(frame));
    }
}

/// Who closes a connection whose handler is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// We do: the client may not know that it is over.
    Now,
    /// The client, which has the end of every stream: older Go clients lose what they have not read yet when the
    /// connection ends under them.
    ByPeer,
}

/// Serves SPDY until the handler is done or the peer is gone. The handler gets the streams as they are opened.
pub(crate) async fn serve<R, W, H, F>(reader: R, writer: W, handler: H)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    H: FnOnce(mpsc::Receiver<Stream>) -> F,
    F: Future<Output = Close>,
{
    let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES_MAX);
    let (opened, streams) = mpsc::channel(STREAMS_MAX);
    let shared = Arc::new(Shared {
        streams: Mutex::new(Streams::new()),
        outgoing,
        windows: watch::channel(()).0,
        received: AtomicUsize::new(0),
    });
    let mut reading = Box::pin(read_frames(reader, &shared, opened));
    let mut writing = Box::pin(write_frames(writer, queue));
    let mut handling = Box::pin(handler(streams));
    let (close, status) = tokio::select! {
        read = &mut reading => match read {
            Ok(()) => return shared.streams().end_all(),
            Err(error) => {
                tracing::debug!(%error, "a SPDY connection was given up");
                (None, reset::PROTOCOL_ERROR)
            }
        },
        _ = &mut writing => return shared.streams().end_all(),
        close = &mut handling => (Some(close), 0),
    };
    drop(handling);
    if close == Some(Close::ByPeer) {
        shared.streams().close();
        let closing = async {
            tokio::select! {
                _ = &mut reading => {}
                _ = &mut writing => {}
            }
        };
        if tokio::time::timeout(LINGER_TIMEOUT, closing).await.is_ok() {
            return;
        }
    }
    let last_stream = shared.streams().newest();
    shared.streams().end_all();
    let ending = async {
        let frame = Frame::GoAway {
            last_stream,
            status,
        };
        let _ = shared.send(frame).await;
        let _ = shared.outgoing.send(Outgoing::End).await;
    };
    let lingering = async {
        let written = async { tokio::join!(ending, writing).1 };
        if close.is_some() {
            let _ = tokio::join!(written, reading);
        } else {
            let _ = written.await;
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, lingering).await;
}

/// Ends with the peer's last byte, or with its first wrong one.
async fn read_frames<R: AsyncRead + Unpin>(
    mut reader: R,
    shared: &Arc<Shared>,
    opened: mpsc::Sender<Stream>,
) -> Result<(), ProtocolError> {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    loop {
        while let Some(frame) = decoder.decode(&mut input)? {
            if shared.receive(frame, &opened).await == Err(StreamEnded) {
                return Ok(());
            }
        }
        input.reserve(READ_BYTES);
        match tokio::time::timeout(IDLE_TIMEOUT, reader.read_buf(&mut input)).await {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(_)) => {}
            Err(_) => {
                tracing::debug!("an idle SPDY connection was dropped");
                return Ok(());
            }
        }
    }
}

impl Shared {
    /// `Err` when nothing can be answered any more.
    async fn receive(
        self: &Arc<Self>,
        frame: Frame,
        opened: &mpsc::Sender<Stream>,
    ) -> Result<(), StreamEnded> {
        match frame {
            Frame::SynStream {
                stream,
                finished,
                headers,
            } => self.open(stream, finished, headers, opened).await,
            Frame::Data {
                stream,
                finished,
                bytes,
            } => self.deliver(stream, finished, bytes).await,
            Frame::Headers {
                stream,
                finished: true,
                ..
            } => {
                self.streams().peer_finished(stream);
                Ok(())
            }
            Frame::RstStream { stream, .. } => {
                self.streams().end(stream);
                self.windows.send_replace(());
                Ok(())
            }
            Frame::WindowUpdate { stream, delta } => {
                let credited = self.streams().credit(stream, delta);
                self.windows.send_replace(());
                match credited {
                    Err(status) if stream != 0 => self.reset(stream, status).await,
                    Err(_) => Err(StreamEnded),
                    Ok(()) => Ok(()),
                }
            }
            Frame::Settings(entries) => {
                self.streams().settings(&entries);
                self.windows.send_replace(());
                Ok(())
            }
            // Odd pings are the client's; an even one would be the answer to ours.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await,
            Frame::GoAway { .. } => {
                self.streams().close();
                Ok(())
            }
            // We open no streams, so there is nothing to reply to; later headers mean nothing here.
            Frame::Ping(_) | Frame::SynReply { .. } | Frame::Headers { .. } => Ok(()),
        }
    }

    async fn reset(&self, stream: u32, status: u32) -> Result<(), StreamEnded> {
        self.streams().end(stream);
        self.send(Frame::RstStream { stream, status }).await
    }

    async fn open(
        self: &Arc<Self>,
        number: u32,
        finished: bool,
        headers: Headers,
        opened: &mpsc::Sender<Stream>,
    ) -> Result<(), StreamEnded> {
        let (sender, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(STREAM_BUFFER_BYTES));
        let ended = CancellationToken::new();
        let inbox = Inbox {
            sender,
            room: room.clone(),
        };
        let inbox = (!finished).then_some(inbox);
        let opening = self.streams().open(number, inbox, ended.clone());
        if let Err(status) = opening {
            // An open stream of that number is none of this frame's business.
            return self
                .send(Frame::RstStream {
                    stream: number,
                    status,
                })
                .await;
        }
        let stream = Stream {
            number,
            headers,
            reader: StreamReader {
                number,
                queue,
                room,
                consumed: 0,
                ended,
                shared: self.clone(),
            },
            writer: StreamWriter {
                number,
                finished: false,
                shared: self.clone(),
            },
        };
        // There is a place for every stream that may be open; a handler that is done takes none.
        let _ = opened.try_send(stream);
        Ok(())
    }

    async fn deliver(
        &self,
        stream: u32,
        finished: bool,
        mut bytes: Bytes,
    ) -> Result<(), StreamEnded> {
        let arrival = self.streams().arrival(stream);
        self.credit_connection(bytes.len()).await?;
        match arrival {
            Arrival::Reset(status) => return self.reset(stream, status).await,
            Arrival::Discard => {}
            Arrival::Deliver(inbox) => {
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(STREAM_BUFFER_BYTES));
                    let charge = piece.len().max(CHARGE_MIN_BYTES);
                    // Fits: no piece is longer than the room.
                    let Ok(room) = inbox.room.acquire_many(charge as u32).await else {
                        break;
                    };
                    room.forget();
                    let bytes = if piece.len() < COPIED_BYTES {
                        Bytes::copy_from_slice(&piece)
                    } else {
                        piece
                    };
                    let _ = inbox.sender.send(Received { bytes, charge });
                }
            }
        }
        if finished {
            self.streams().peer_finished(stream);
        }
        Ok(())
    }

    /// Memory is bounded by the streams; the window of the connection is only kept open.
    async fn credit_connection(&self, bytes: usize) -> Result<(), StreamEnded> {
        let received = self.received.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if received < SESSION_CREDIT_BYTES {
            return Ok(());
        }
        self.received.store(0, Ordering::Relaxed);
        // A piece is at most a read buffer, far below 2^31.
        let delta = received as u32;
        self.send(Frame::WindowUpdate { stream: 0, delta }).await
    }
}

/// Ends when told to, or when the peer takes nothing any more.
async fn write_frames<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Outgoing>,
) -> std::io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::with_capacity(WRITE_BYTES);
    let mut ping = 0u32;
    loop {
        let mut next = match tokio::time::timeout(PING_PERIOD, queue.recv()).await {
            Ok(None) => return Ok(()),
            Ok(first) => first,
            Err(_) => {
                // Even numbers are the server's.
                ping = ping.wrapping_add(2).max(2);
                Some(Outgoing::Frame(Frame::Ping(ping)))
            }
        };
        while let Some(outgoing) = next.take() {
            let Outgoing::Frame(frame) = outgoing else {
                flush(&mut writer, &mut buffer).await?;
                return writer.shutdown().await;
            };
            // Go's reader wants a compressed block in one piece, which a write of its own makes likely.
            let alone = matches!(frame, Frame::SynReply { .. });
            if alone {
                flush(&mut writer, &mut buffer).await?;
            }
            encoder
                .encode(&frame, &mut buffer)
                .map_err(std::io::Error::other)?;
            if alone || buffer.len() >= WRITE_BYTES {
                flush(&mut writer, &mut buffer).await?;
            }
            next = queue.try_recv().ok();
        }
        flush(&mut writer, &mut buffer).await?;
    }
}

async fn flush<W: AsyncWrite + Unpin>(
    writer: &mut W,
    buffer: &mut BytesMut,
) -> std::io::Result<()> {
    if buffer.is_empty() {
        return Ok(());
    }
    writer.write_all(buffer).await?;
    buffer.clear();
    writer.flush().await
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;

//! One stream as its user sees it: headers, a readable and a writable half.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::connection::Shared;
use super::state::Received;
use super::{DATA_FRAME_BYTES_MAX, Frame, Headers, reset};

/// Credit is given back in steps of this many read bytes.
const CREDIT_BYTES: usize = 16 * 1024;

/// The stream or its connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamEnded;

/// A stream that the peer opened and nobody has answered yet.
pub(crate) struct Stream {
    pub(crate) number: u32,
    pub(crate) headers: Headers,
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

impl Stream {
    /// The value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Tells the peer that the stream is served.
    pub(crate) async fn accept(self) -> Result<(StreamReader, StreamWriter), StreamEnded> {
        let frame = Frame::SynReply {
            stream: self.number,
            finished: false,
            headers: Headers::new(),
        };
        self.writer.shared.send(frame).await?;
        Ok((self.reader, self.writer))
    }

    /// Tells the peer that the stream is not served.
    pub(crate) async fn refuse(self) {
        let shared = self.writer.shared.clone();
        if shared.streams().end(self.number) {
            let status = reset::REFUSED_STREAM;
            let stream = self.number;
            let _ = shared.send(Frame::RstStream { stream, status }).await;
        }
    }
}

/// What the peer sends.
pub(crate) struct StreamReader {
    pub(super) number: u32,
    pub(super) queue: mpsc::UnboundedReceiver<Received>,
    pub(super) room: Arc<Semaphore>,
    pub(super) consumed: usize,
    pub(super) ended: CancellationToken,
    pub(super) shared: Arc<Shared>,
}

impl StreamReader {
    /// The next bytes; `None` after the last, or when the stream was reset.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let received = tokio::select! {
            biased;
            received = self.queue.recv() => received?,
            () = self.ended.cancelled() => return None,
        };
        self.room.add_permits(received.charge);
        self.consumed += received.bytes.len();
        if self.consumed >= CREDIT_BYTES {
            // Below 2^31: pieces are bounded by the stream's room.
            let delta = std::mem::take(&mut self.consumed) as u32;
            let stream = self.number;
            let _ = self
                .shared
                .send(Frame::WindowUpdate { stream, delta })
                .await;
        }
        Some(received.bytes)
    }

    /// Resolves when the stream was reset or its connection ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        // Whoever waits for room to deliver goes on without.
        self.room.close();
        self.shared.streams().unread(self.number);
    }
}

/// What is sent to the peer. Dropped before [`StreamWriter::finish`], it resets the stream.
pub(crate) struct StreamWriter {
    pub(super) number: u32,
    pub(super) finished: bool,
    pub(super) shared: Arc<Shared>,
}

impl StreamWriter {
    /// Sends bytes as fast as the peer takes them.
    pub(crate) async fn send(&mut self, mut bytes: Bytes) -> Result<(), StreamEnded> {
        let mut windows = self.shared.windows.subscribe();
        while !bytes.is_empty() {
            windows.mark_unchanged();
            let wanted = bytes.len().min(DATA_FRAME_BYTES_MAX);
            let granted = self
                .shared
                .streams()
                .take_window(self.number, wanted)
                .ok_or(StreamEnded)?;
            if granted == 0 {
                windows.changed().await.map_err(|_| StreamEnded)?;
                continue;
            }
            let frame = Frame::Data {
                stream: self.number,
                finished: false,
                bytes: bytes.split_to(granted),
            };
            self.shared.send(frame).await?;
        }
        Ok(())
    }

    /// Ends the stream in this direction.
    pub(crate) async fn finish(mut self) {
        self.finished = true;
        let open = self.shared.streams().finish(self.number);
        if open {
            let frame = Frame::Data {
                stream: self.number,
                finished: true,
                bytes: Bytes::new(),
            };
            let _ = self.shared.send(frame).await;
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.abandon(self.number);
        }
    }
}

//! Frames as values, from and to bytes. Pure: no sockets, no clock, no stream states.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::header_block::{HeaderReader, HeaderWriter, Headers};
use super::{CONTROL_FRAME_BYTES_MAX, DATA_FRAME_BYTES_MAX};

const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u32 = 0x8000_0000;
const STREAM_MASK: u32 = 0x7fff_ffff;
const FLAG_FINISHED: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a connection's bytes are not SPDY/3.1; nothing after them can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Another version of SPDY.
    #[error("control frame of SPDY version {0}, only version 3 is spoken")]
    Version(u16),
    /// Longer than any frame of ours.
    #[error(
        "control frame of type {kind} has {length} bytes, at most {CONTROL_FRAME_BYTES_MAX} are read"
    )]
    TooLong {
        /// The frame's type.
        kind: u16,
        /// As announced.
        length: usize,
    },
    /// A frame whose length does not fit its type.
    #[error("control frame of type {kind} cannot have {length} bytes")]
    Length {
        /// The frame's type.
        kind: u16,
        /// As announced.
        length: usize,
    },
    /// Stream 0 is the connection itself.
    #[error("frame for stream 0")]
    StreamZero,
    /// The zlib stream is broken.
    #[error("header block is not compressed as SPDY/3 asks for")]
    Compression,
    /// The pairs in a block are broken.
    #[error("header block is malformed")]
    Headers,
    /// Too many or too long headers.
    #[error("header block is too long")]
    HeadersTooLong,
}

/// One frame. Data comes in pieces: a long frame is several of these, the last one `finished` if the frame was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Odd from clients.
        stream: u32,
        /// The opener will send no data.
        finished: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// The other side will send no data.
        finished: bool,
        /// Usually none.
        headers: Headers,
    },
    /// Ends a stream at once.
    RstStream {
        /// The stream.
        stream: u32,
        /// A number of [`super::reset`].
        status: u32,
    },
    /// Settings of the connection, as id and value.
    Settings(Vec<(u32, u32)>),
    /// Wants an echo.
    Ping(u32),
    /// No further streams are accepted.
    GoAway {
        /// The newest stream that was.
        last_stream: u32,
        /// 0 = orderly.
        status: u32,
    },
    /// More headers of an open stream.
    Headers {
        /// The stream.
        stream: u32,
        /// No data follows.
        finished: bool,
        /// The headers.
        headers: Headers,
    },
    /// So many more bytes may be sent.
    WindowUpdate {
        /// The stream; 0 = the connection.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// No data follows.
        finished: bool,
        /// The bytes.
        bytes: Bytes,
    },
}

/// A data frame of which more is to come.
struct Partial {
    stream: u32,
    finished: bool,
    left: usize,
}

/// Takes frames out of received bytes.
pub struct Decoder {
    headers: HeaderReader,
    partial: Option<Partial>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            headers: HeaderReader::new(),
            partial: None,
        }
    }
}

impl Decoder {
    /// The next frame, or `None` when more bytes are needed. Never waits for the whole of a data frame, so what has to
    /// be kept is bounded by the longest control frame.
    ///
    /// # Errors
    /// When the peer does not speak SPDY/3.1 or exceeds a bound; the connection is of no use then.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        loop {
            if let Some(partial) = self.partial.take() {
                return Ok(self.data(partial, input));
            }
            let Some(head) = input.get(..HEAD_BYTES) else {
                return Ok(None);
            };
            let (mut first, mut second) = (&head[..4], &head[4..]);
            let (first, second) = (first.get_u32(), second.get_u32());
            // 24 bits.
            let length = (second & 0x00ff_ffff) as usize;
            let finished = (second >> 24) as u8 & FLAG_FINISHED != 0;
            if first & CONTROL == 0 {
                if first == 0 {
                    return Err(ProtocolError::StreamZero);
                }
                input.advance(HEAD_BYTES);
                self.partial = Some(Partial {
                    stream: first,
                    finished,
                    left: length,
                });
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(ProtocolError::Version(version));
            }
            if length > CONTROL_FRAME_BYTES_MAX {
                return Err(ProtocolError::TooLong { kind, length });
            }
            if input.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            input.advance(HEAD_BYTES);
            let body = input.split_to(length);
            if let Some(frame) = self.control(kind, finished, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn data(&mut self, partial: Partial, input: &mut BytesMut) -> Option<Frame> {
        let here = partial.left.min(input.len());
        let left = partial.left - here;
        if here == 0 && left > 0 {
            self.partial = Some(partial);
            return None;
        }
        let (stream, finished) = (partial.stream, partial.finished);
        if left > 0 {
            self.partial = Some(Partial { left, ..partial });
        }
        Some(Frame::Data {
            stream,
            finished: finished && left == 0,
            bytes: input.split_to(here).freeze(),
        })
    }

    /// `None` = a type that may be passed over.
    fn control(
        &mut self,
        kind: u16,
        finished: bool,
        mut body: &[u8],
    ) -> Result<Option<Frame>, ProtocolError> {
        let length = body.len();
        let wrong = ProtocolError::Length { kind, length };
        let fits = match kind {
            SYN_STREAM => length >= 10,
            SYN_REPLY | HEADERS | SETTINGS => length >= 4,
            RST_STREAM | GO_AWAY | WINDOW_UPDATE => length == 8,
            PING => length == 4,
            _ => return Ok(None),
        };
        if !fits {
            return Err(wrong);
        }
        let first = body.get_u32();
        let stream = first & STREAM_MASK;
        let frame = match kind {
            SYN_STREAM => {
                // The stream it belongs to, its priority and credential slot mean nothing here.
                body.advance(6);
                let headers = self.headers.read(body)?;
                Frame::SynStream {
                    stream,
                    finished,
                    headers,
                }
            }
            SYN_REPLY => Frame::SynReply {
                stream,
                finished,
                headers: self.headers.read(body)?,
            },
            HEADERS => Frame::Headers {
                stream,
                finished,
                headers: self.headers.read(body)?,
            },
            RST_STREAM => Frame::RstStream {
                stream,
                status: body.get_u32(),
            },
            SETTINGS => return settings(first, body).map(Some).ok_or(wrong),
            PING => return Ok(Some(Frame::Ping(first))),
            GO_AWAY => {
                return Ok(Some(Frame::GoAway {
                    last_stream: stream,
                    status: body.get_u32(),
                }));
            }
            _ => {
                return Ok(Some(Frame::WindowUpdate {
                    stream,
                    delta: body.get_u32() & STREAM_MASK,
                }));
            }
        };
        if stream == 0 {
            return Err(ProtocolError::StreamZero);
        }
        Ok(Some(frame))
    }
}

fn settings(count: u32, body: &[u8]) -> Option<Frame> {
    let (entries, rest) = body.as_chunks::<8>();
    if !rest.is_empty() || u32::try_from(entries.len()) != Ok(count) {
        return None;
    }
    let entry = |entry: &[u8; 8]| {
        let mut bytes = entry.as_slice();
        (bytes.get_u32() & 0x00ff_ffff, bytes.get_u32())
    };
    Some(Frame::Settings(entries.iter().map(entry).collect()))
}

/// Writes frames as bytes.
pub struct Encoder {
    headers: HeaderWriter,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            headers: HeaderWriter::new(),
        }
    }
}

impl Encoder {
    /// Appends `frame` to `output`; data longer than one frame of ours becomes several.
    ///
    /// # Errors
    /// When headers cannot be written, which breaks the connection's compression.
    pub fn encode(&mut self, frame: &Frame, output: &mut BytesMut) -> Result<(), ProtocolError> {
        match frame {
            Frame::SynStream {
                stream,
                finished,
                headers,
            } => self.with_headers(SYN_STREAM, *stream, *finished, headers, output)?,
            Frame::SynReply {
                stream,
                finished,
                headers,
            } => self.with_headers(SYN_REPLY, *stream, *finished, headers, output)?,
            Frame::Headers {
                stream,
                finished,
                headers,
            } => self.with_headers(HEADERS, *stream, *finished, headers, output)?,
            Frame::RstStream { stream, status } => pair(RST_STREAM, *stream, *status, output),
            Frame::GoAway {
                last_stream,
                status,
            } => pair(GO_AWAY, *last_stream, *status, output),
            Frame::WindowUpdate { stream, delta } => pair(WINDOW_UPDATE, *stream, *delta, output),
            Frame::Ping(id) => {
                head(PING, 0, 4, output);
                output.put_u32(*id);
            }
            Frame::Settings(entries) => {
                head(SETTINGS, 0, 4 + entries.len() * 8, output);
                output.put_u32(entries.len() as u32);
                for (id, value) in entries {
                    output.put_u32(id & 0x00ff_ffff);
                    output.put_u32(*value);
                }
            }
            Frame::Data {
                stream,
                finished,
                bytes,
            } => data(*stream, *finished, bytes, output),
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        kind: u16,
        stream: u32,
        finished: bool,
        headers: &[(String, String)],
        output: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        let mut body = BytesMut::new();
        body.put_u32(stream & STREAM_MASK);
        if kind == SYN_STREAM {
            body.put_bytes(0, 6);
        }
        self.headers.write(headers, &mut body)?;
        if body.len() > CONTROL_FRAME_BYTES_MAX {
            return Err(ProtocolError::HeadersTooLong);
        }
        head(kind, u8::from(finished), body.len(), output);
        output.extend_from_slice(&body);
        Ok(())
    }
}

fn head(kind: u16, flags: u8, length: usize, output: &mut BytesMut) {
    output.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    // Bodies of ours are bounded far below 24 bits.
    output.put_u32(u32::from(flags) << 24 | length as u32);
}

fn pair(kind: u16, first: u32, second: u32, output: &mut BytesMut) {
    head(kind, 0, 8, output);
    output.put_u32(first & STREAM_MASK);
    output.put_u32(second);
}

fn data(stream: u32, finished: bool, bytes: &[u8], output: &mut BytesMut) {
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(DATA_FRAME_BYTES_MAX));
        let flags = u8::from(finished && later.is_empty());
        output.put_u32(stream & STREAM_MASK);
        output.put_u32(u32::from(flags) << 24 | now.len() as u32);
        output.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

//! SPDY/3.1, as far as Kubernetes' streaming needs it: the server's side of a connection, and the frames of both sides.
//!
//! An API server (and every kubectl before 1.30) speaks SPDY to kubelets; newer kubectls carry the same frames inside a
//! WebSocket for port-forward. The frames are plain values ([`Frame`], [`Decoder`], [`Encoder`]), so that tests and
//! clients can speak them too; [`connection`] turns them into streams of bytes. Refused: streams opened by the server,
//! server push, credentials, priorities. Every length that a peer can choose has a bound here.

pub(crate) mod connection;
mod dictionary;
mod frame;
mod header_block;
mod state;
pub(crate) mod stream;

pub use frame::{Decoder, Encoder, Frame, ProtocolError};
pub use header_block::Headers;

/// Longest control frame that is read; kubectl's are below 200 bytes.
pub(crate) const CONTROL_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Longest header block after decompression.
pub(crate) const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Most headers in one block.
pub(crate) const HEADERS_MAX: usize = 128;
/// Most data in a frame that we write.
pub(crate) const DATA_FRAME_BYTES_MAX: usize = 32 * 1024;

/// Why a stream is reset or refused (the numbers of RST_STREAM).
pub mod reset {
    /// The peer broke the rules of the stream.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// Data for a stream that never was.
    pub const INVALID_STREAM: u32 = 2;
    /// Not served; nothing has happened.
    pub const REFUSED_STREAM: u32 = 3;
    /// No longer wanted.
    pub const CANCEL: u32 = 5;
    /// More credit than a window can hold.
    pub const FLOW_CONTROL_ERROR: u32 = 7;
    /// Data after the end of data.
    pub const STREAM_ALREADY_CLOSED: u32 = 9;
}

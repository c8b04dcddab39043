//! A live connection to a command or container: its streams, its terminal size, its end.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Writing end of standard input; shutting it down or dropping it is end-of-file for the process.
pub type InputStream = Box<dyn AsyncWrite + Send + Unpin>;
/// Reading end of an output stream.
pub type OutputStream = Box<dyn AsyncRead + Send + Unpin>;

/// What `exec` and `attach` give. Dropping it ends an exec'd command; an attached container goes on.
pub struct ExecSession {
    /// Present when standard input was asked for.
    pub stdin: Option<InputStream>,
    /// Standard output, or the terminal.
    pub stdout: OutputStream,
    /// Standard error; at its end from the beginning when there is a terminal.
    pub stderr: OutputStream,
    /// Takes (columns, rows); without a terminal they are ignored.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// Resolves to the exit code (128 + signal when a signal ended it). The streams may still hold output then.
    pub exit: Pin<Box<dyn Future<Output = io::Result<i32>> + Send>>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ExecSession")
            .field("stdin", &self.stdin.is_some())
            .finish_non_exhaustive()
    }
}

//! Pipes and terminals as asynchronous streams.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A non-blocking descriptor. Clones share it; it closes with the last one.
#[derive(Debug, Clone)]
pub(crate) struct FdStream {
    inner: Arc<AsyncFd<OwnedFd>>,
}

impl FdStream {
    /// Makes the descriptor non-blocking and registers it with the current runtime.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        set_non_blocking(&descriptor)?;
        // SAFETY: the descriptor is owned by the registration and open until it is dropped.
        let inner = unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().as_fd()
    }

    /// Sets the size of the terminal behind this descriptor.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open and `size` is the structure TIOCSWINSZ reads.
        let result = unsafe { libc::ioctl(self.descriptor().as_raw_fd(), libc::TIOCSWINSZ, &size) };
        nix::errno::Errno::result(result)?;
        Ok(())
    }
}

pub(crate) fn set_non_blocking(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl AsyncRead for FdStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(context))?;
            let free = buffer.initialize_unfilled();
            match guard.try_io(|inner| Ok(nix::unistd::read(inner.get_ref(), free)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal whose other side has closed answers so; it is the end, not a fault.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(context))?;
            match guard.try_io(|inner| Ok(nix::unistd::write(inner.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Standard input that really closes on shutdown, as a pipe must for its reader to see the end.
#[derive(Debug)]
pub(crate) struct ClosingWriter {
    stream: Option<FdStream>,
    /// Written before closing: a terminal has no end-of-file but this character.
    farewell: &'static [u8],
}

impl ClosingWriter {
    pub(crate) fn new(stream: FdStream, tty: bool) -> Self {
        Self {
            stream: Some(stream),
            farewell: if tty { b"\x04" } else { b"" },
        }
    }
}

impl AsyncWrite for ClosingWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let farewell = self.farewell;
        if let Some(stream) = &mut self.stream
            && !farewell.is_empty()
        {
            // A process that has gone needs no farewell.
            let _ = ready!(Pin::new(stream).poll_write(context, farewell));
        }
        self.stream = None;
        Poll::Ready(Ok(()))
    }
}

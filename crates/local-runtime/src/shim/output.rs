//! Carrying a container's output into its log and to whoever is attached.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::log_writer::{LogWriter, Source};
use crate::fd_stream::FdStream;

/// One read from a container.
const CHUNK_BYTES: usize = 16 << 10;
/// An attached client that takes nothing for so long is let go; until then the container waits for it.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// An attached client's pipes.
pub(super) struct Tap {
    pub(super) stdout: FdStream,
    /// Absent with a terminal.
    pub(super) stderr: Option<FdStream>,
}

/// Everyone who is attached.
#[derive(Clone, Default)]
pub(super) struct Taps {
    taps: Rc<RefCell<Vec<Rc<Tap>>>>,
}

impl Taps {
    pub(super) fn add(&self, tap: Tap) -> Rc<Tap> {
        let tap = Rc::new(tap);
        self.taps.borrow_mut().push(tap.clone());
        tap
    }

    pub(super) fn remove(&self, tap: &Rc<Tap>) {
        self.taps
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, tap));
    }

    /// Ends every client's streams.
    pub(super) fn clear(&self) {
        self.taps.borrow_mut().clear();
    }

    async fn send(&self, source: Source, data: &[u8]) {
        let taps = self.taps.borrow().clone();
        for tap in taps {
            let stream = match source {
                Source::Stdout => Some(&tap.stdout),
                Source::Stderr => tap.stderr.as_ref(),
            };
            let Some(mut stream) = stream.cloned() else {
                continue;
            };
            if !matches!(
                timeout(CLIENT_PATIENCE, stream.write_all(data)).await,
                Ok(Ok(()))
            ) {
                self.remove(&tap);
            }
        }
    }
}

/// Runs until the stream's last writer has closed it.
pub(super) async fn pump(
    mut stream: FdStream,
    source: Source,
    log: Rc<RefCell<LogWriter>>,
    taps: Taps,
) {
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        let count = match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let data = &chunk[..count];
        // A full disk must not stop the container: its output is lost, the container goes on.
        if let Err(error) = log.borrow_mut().write(source, data, Timestamp::now()) {
            tracing::warn!(%error, "write container log");
        }
        taps.send(source, data).await;
    }
    if let Err(error) = log.borrow_mut().finish(source, Timestamp::now()) {
        tracing::warn!(%error, "write container log");
    }
}

//! Relays TCP connections from a listener to balanced backends.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::balance::{Backends, Lease};
use crate::SocketFactory;

/// Connections open at once on one listener; more wait in its backlog.
const OPEN_CONNECTIONS: usize = 16 * 1024;
/// Each direction's buffer.
const BUFFER_BYTES: usize = 16 * 1024;
/// A backend that does not answer this long counts as failed, and another one is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Backends tried for one connection.
const CONNECT_ATTEMPTS: usize = 4;
/// How long connections go on after their backend or their service has left the table.
pub(crate) const DRAIN_BOUND: Duration = Duration::from_secs(60);
/// A silent connection is probed after this time, and then this often.
const KEEP_ALIVE_IDLE_SECONDS: u32 = 60;
const KEEP_ALIVE_INTERVAL_SECONDS: u32 = 10;
/// The wait after a failed accept, which mostly means that the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything one listener's connections share.
#[derive(Clone)]
pub struct TcpRelay {
    /// Where connections go.
    pub backends: Arc<Backends>,
    /// What reaches the backends.
    pub sockets: SocketFactory,
    /// Ends the listener; its connections drain.
    pub stop: CancellationToken,
    /// Ends the connections too.
    pub abort: CancellationToken,
}

impl TcpRelay {
    /// Accepts and relays until told to stop, then waits for the connections to drain.
    pub async fn serve(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(OPEN_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let next = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                next = next => next,
                () = self.stop.cancelled() => break,
                () = self.abort.cancelled() => break,
            };
            match accepted {
                Ok((stream, client)) => {
                    let relay = self.clone();
                    connections.spawn(async move {
                        relay.relay(stream, client).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    async fn relay(&self, mut stream: TcpStream, client: SocketAddr) {
        let work = async {
            let (mut backend, lease) = self.connect(client).await?;
            stream.set_nodelay(true)?;
            // A side that vanished without a word must not hold the other one for ever.
            keep_alive(&stream)?;
            keep_alive(&backend)?;
            tokio::select! {
                // Passes on a half-close and goes on with the other direction.
                copied = copy_bidirectional_with_sizes(&mut stream, &mut backend, BUFFER_BYTES, BUFFER_BYTES) => copied.map(drop),
                () = async { lease.gone().await; sleep(DRAIN_BOUND).await } => Ok(()),
                () = async { self.stop.cancelled().await; sleep(DRAIN_BOUND).await } => Ok(()),
            }
        };
        let result: io::Result<()> = tokio::select! {
            result = work => result,
            () = self.abort.cancelled() => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(%client, %error, "relayed connection ended early");
        }
    }

    async fn connect(&self, client: SocketAddr) -> io::Result<(TcpStream, Lease)> {
        let mut failed = Vec::new();
        let mut last_error = None;
        while failed.len() < CONNECT_ATTEMPTS {
            let Some(lease) = self.backends.pick(client.ip(), &failed, Instant::now()) else {
                break;
            };
            let connecting = self.sockets.tcp_connect(lease.address().into());
            match timeout(CONNECT_PATIENCE, connecting).await {
                Ok(Ok(stream)) => return Ok((stream, lease)),
                Ok(Err(error)) => last_error = Some(error),
                Err(_) => last_error = Some(io::ErrorKind::TimedOut.into()),
            }
            failed.push(lease.address());
        }
        Err(last_error.unwrap_or_else(|| io::Error::other("no backend is ready")))
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_SECONDS)?;
    setsockopt(
        stream,
        sockopt::TcpKeepInterval,
        &KEEP_ALIVE_INTERVAL_SECONDS,
    )?;
    Ok(())
}

//! Connections and TLS: who is there, and one task for each.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Gate, Reviewer, certificate_user};
use crate::answer::Answerer;
use crate::backend::NodeBackend;
use crate::session::Sessions;
use crate::tls::ServerTls;

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request head has to arrive within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Why a kubelet server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A certificate or key is not readable PEM.
    #[error("read the kubelet server's certificates")]
    Pem {
        /// What is wrong with the text.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not work together, or the authority is unusable.
    #[error("set up the kubelet server's TLS")]
    Tls(#[source] rustls::Error),
    /// The authority for client certificates is unusable.
    #[error("set up the authority for the kubelet's clients")]
    ClientAuthority {
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keys that stay as they are.
pub fn fixed(keys: ServerTls) -> watch::Receiver<ServerTls> {
    watch::Sender::new(keys).subscribe()
}

/// One node's kubelet server.
pub struct KubeletServer {
    answerer: Answerer,
    tls: Mutex<tokio_rustls::TlsAcceptor>,
    renewed: watch::Receiver<ServerTls>,
}

impl KubeletServer {
    /// Checks keys and trust; nothing listens yet. `node` is the name under which the cluster knows this node.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(
        node: impl Into<String>,
        backend: Arc<dyn NodeBackend>,
        tls: &ServerTls,
        reviewer: Arc<dyn Reviewer>,
    ) -> Result<Self, ServeError> {
        let gate = Gate::new(node.into(), reviewer);
        Ok(Self {
            answerer: Answerer::new(backend, gate),
            tls: Mutex::new(tokio_rustls::TlsAcceptor::from(tls.server_config()?)),
            renewed: fixed(tls.clone()),
        })
    }

    /// New connections are shown the newest keys that can be used; open ones keep theirs.
    #[must_use]
    pub fn following(mut self, mut keys: watch::Receiver<ServerTls>) -> Self {
        // What was sent since the server was made counts as well.
        keys.mark_changed();
        self.renewed = keys;
        self
    }

    fn renew(&self, keys: &ServerTls) {
        match keys.server_config() {
            Ok(config) => {
                *self.tls.lock().unwrap_or_else(PoisonError::into_inner) =
                    tokio_rustls::TlsAcceptor::from(config);
            }
            Err(error) => {
                tracing::warn!(%error, "new keys cannot be used, the kubelet API keeps the ones before");
            }
        }
    }

    /// Serves until `shutdown`, then lets running requests end for a moment and drops the sessions.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let mut renewed = self.renewed.clone();
        let server = Arc::new(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        let sessions = Sessions::new(connections.clone(), shutdown.clone());
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = renewed.changed() => {
                    server.renew(&renewed.borrow_and_update().clone());
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "kubelet connection was not accepted");
                    continue;
                }
            };
            let (server, sessions) = (server.clone(), sessions.clone());
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                let _permit = permit;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    result = server.connection(stream, sessions) => if let Err(error) = result {
                        tracing::debug!(%error, "kubelet connection ended");
                    }
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: tokio::net::TcpStream,
        sessions: Sessions,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = stream.set_nodelay(true);
        let tls = self
            .tls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = Arc::new(leaf.and_then(|leaf| certificate_user(leaf)));
        let service = service_fn(move |request| {
            let (server, sessions) = (self.clone(), sessions.clone());
            let certificate = certificate.clone();
            async move {
                let user = certificate.as_ref().as_ref();
                let answer = server.answerer.answer(request, user, &sessions);
                Ok::<_, Infallible>(answer.await)
            }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await?;
        Ok(())
    }
}

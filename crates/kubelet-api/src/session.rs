//! Sessions: from an accepted upgrade to the backend. Each is a task of its own that ends with the server.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{ExecSession, NodeBackend};
use crate::remote_command::{self, Wanted};
use crate::route::Target;
use crate::spdy::connection::{self, Close};
use crate::upgrade::{Carrier, CommandProtocol, PortForwardProtocol};
use crate::{channel, port_forward, tunnel};

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Sessions open at the same time; each holds a command or connections to pods.
const SESSIONS_MAX: usize = 1024;

/// The running sessions of one server.
#[derive(Clone)]
pub(crate) struct Sessions {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    places: Arc<Semaphore>,
}

/// Room for one session, given back when it ends.
pub(crate) type Place = OwnedSemaphorePermit;

impl Sessions {
    pub(crate) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self {
            tasks,
            shutdown,
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
        }
    }

    /// `None` = there are as many as there may be.
    pub(crate) fn place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok()
    }

    pub(crate) fn open(&self) -> usize {
        SESSIONS_MAX - self.places.available_permits()
    }

    /// Starts a session as soon as the connection has become one.
    fn start<Serve, Served>(&self, place: Place, request: http::Request<Incoming>, serve: Serve)
    where
        Serve: FnOnce(Upgraded) -> Served + Send + 'static,
        Served: Future<Output = ()> + Send,
    {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            let _place = place;
            let session = async {
                match hyper::upgrade::on(request).await {
                    Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                    Err(error) => tracing::debug!(%error, "session upgrade failed"),
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session => {}
            }
        });
    }

    /// exec or attach.
    pub(crate) fn command(
        &self,
        place: Place,
        request: http::Request<Incoming>,
        protocol: CommandProtocol,
        wanted: Wanted,
        session: ExecSession,
    ) {
        let version = protocol.version;
        self.start(place, request, move |upgraded| async move {
            match protocol.carrier {
                Carrier::WebSocket => {
                    let socket = web_socket(upgraded).await;
                    channel::serve_session(socket, version, session).await;
                }
                Carrier::Spdy => {
                    let (reader, writer) = tokio::io::split(upgraded);
                    let handler = |opened| async move {
                        remote_command::serve(version, wanted, session, opened).await;
                        Close::ByPeer
                    };
                    connection::serve(reader, writer, handler).await;
                }
            }
        });
    }

    /// port-forward; `ports` is for channels only, streams name their port themselves.
    pub(crate) fn port_forward(
        &self,
        place: Place,
        request: http::Request<Incoming>,
        protocol: PortForwardProtocol,
        backend: Arc<dyn NodeBackend>,
        target: Target,
        ports: Vec<u16>,
    ) {
        self.start(place, request, move |upgraded| async move {
            match protocol {
                PortForwardProtocol::Spdy => {
                    let (reader, writer) = tokio::io::split(upgraded);
                    let handler = |opened| async move {
                        port_forward::serve(backend, target, opened).await;
                        Close::Now
                    };
                    connection::serve(reader, writer, handler).await;
                }
                PortForwardProtocol::Tunnel => {
                    let (reader, writer) = tunnel::split(web_socket(upgraded).await);
                    let handler = |opened| async move {
                        port_forward::serve(backend, target, opened).await;
                        Close::Now
                    };
                    connection::serve(reader, writer, handler).await;
                }
                PortForwardProtocol::Channels => {
                    channels(web_socket(upgraded).await, backend, &target, ports).await;
                }
            }
        });
    }
}

async fn web_socket(upgraded: Upgraded) -> WebSocketStream<Upgraded> {
    let config = Some(channel::web_socket_config());
    WebSocketStream::from_raw_socket(upgraded, Role::Server, config).await
}

async fn channels(
    socket: WebSocketStream<Upgraded>,
    backend: Arc<dyn NodeBackend>,
    target: &Target,
    ports: Vec<u16>,
) {
    let mut connections = Vec::with_capacity(ports.len());
    for port in ports {
        let connection = backend.port_forward(&target.namespace, &target.pod, port);
        connections.push((port, connection.await));
    }
    tokio::select! {
        () = port_forward::pod_gone(backend.as_ref(), target) => {}
        () = channel::serve_ports(socket, connections) => {}
    }
}

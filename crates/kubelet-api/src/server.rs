//! Connections, TLS, and from a route to the backend.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authorize::ServerTls;
use crate::backend::{BackendError, ExecSession, NodeBackend};
use crate::channel;
use crate::route::{self, Route, RouteError};

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request head has to arrive within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports one port-forward may name: two channels each must fit a byte.
const FORWARDED_PORTS_MAX: usize = 100;

type Body = UnsyncBoxBody<Bytes, BackendError>;

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

/// One node's kubelet server.
pub struct KubeletServer {
    backend: Arc<dyn NodeBackend>,
    tls: tokio_rustls::TlsAcceptor,
}

impl KubeletServer {
    /// Checks keys and trust; nothing listens yet.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(backend: Arc<dyn NodeBackend>, tls: &ServerTls) -> Result<Self, ServeError> {
        Ok(Self {
            backend,
            tls: tokio_rustls::TlsAcceptor::from(tls.server_config()?),
        })
    }

    /// Serves until `shutdown`, then lets running requests end for a moment and drops the sessions.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let server = Arc::new(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "kubelet connection was not accepted");
                    continue;
                }
            };
            let (server, shutdown) = (server.clone(), shutdown.clone());
            connections.spawn(async move {
                let _permit = permit;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    result = server.connection(stream) => if let Err(error) = result {
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
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = stream.set_nodelay(true);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await??;
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await?;
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and POST are served",
            );
        }
        let parsed = route::parse(
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        let answer = match parsed {
            Ok(route) => self.route(route, request).await,
            Err(RouteError::NotFound) => return text(StatusCode::NOT_FOUND, "404 page not found"),
            Err(RouteError::Bad(message)) => return text(StatusCode::BAD_REQUEST, &message),
        };
        answer.unwrap_or_else(|error| refusal(&error))
    }

    async fn route(
        &self,
        route: Route,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, BackendError> {
        match route {
            Route::Health => Ok(text(StatusCode::OK, "ok")),
            Route::Pods => {
                let pods = self.backend.pods().await;
                json(&serde_json::json!({
                    "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods,
                }))
            }
            Route::ResourceMetrics => {
                let metrics = self.backend.resource_metrics().await?;
                let mut response = text(StatusCode::OK, &metrics);
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                Ok(response)
            }
            Route::StatsSummary => json(&self.backend.stats_summary().await?),
            Route::Logs(target, options) => {
                let chunks = self
                    .backend
                    .container_logs(&target.namespace, &target.pod, &target.container, options)
                    .await?;
                let body = StreamBody::new(chunks.map_ok(Frame::data).boxed());
                Ok(Response::builder()
                    .header(CONTENT_TYPE, "text/plain")
                    .body(BodyExt::boxed_unsync(body))
                    .unwrap_or_default())
            }
            Route::Exec(target, wanted) => {
                let session =
                    self.backend
                        .exec(&target.namespace, &target.pod, &target.container, wanted);
                self.session(request, session).await
            }
            Route::Attach(target, wanted) => {
                let session =
                    self.backend
                        .attach(&target.namespace, &target.pod, &target.container, wanted);
                self.session(request, session).await
            }
            Route::PortForward(target, ports) => self.forward(request, target, ports).await,
        }
    }

    /// Checks the upgrade before the command runs, so that a refused upgrade has no effect.
    async fn session(
        &self,
        request: Request<Incoming>,
        session: impl Future<Output = Result<ExecSession, BackendError>>,
    ) -> Result<Response<Body>, BackendError> {
        let upgrade = Upgrade::check(&request)?;
        let session = session.await?;
        Ok(upgrade.accept(request, move |socket| {
            channel::serve_session(socket, session)
        }))
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        target: route::Target,
        ports: Vec<u16>,
    ) -> Result<Response<Body>, BackendError> {
        if ports.is_empty() || ports.len() > FORWARDED_PORTS_MAX {
            return Err(BackendError::BadRequest {
                message: format!("parameter ports: name 1 to {FORWARDED_PORTS_MAX} ports"),
            });
        }
        let upgrade = Upgrade::check(&request)?;
        let mut connections = Vec::with_capacity(ports.len());
        for port in ports {
            let connection = self
                .backend
                .port_forward(&target.namespace, &target.pod, port)
                .await;
            connections.push((port, connection));
        }
        Ok(upgrade.accept(request, move |socket| {
            channel::serve_ports(socket, connections)
        }))
    }
}

/// A WebSocket handshake that can be accepted.
struct Upgrade {
    protocol: &'static str,
    accept: String,
}

const WEB_SOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEB_SOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WEB_SOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

impl Upgrade {
    fn check(request: &Request<Incoming>) -> Result<Self, BackendError> {
        let header = |name: HeaderName| {
            let values = request.headers().get_all(name);
            let texts: Vec<&str> = values.iter().filter_map(|one| one.to_str().ok()).collect();
            texts.join(",")
        };
        let upgrade = header(UPGRADE);
        let key = header(WEB_SOCKET_KEY);
        let protocol = channel::select_protocol(&header(WEB_SOCKET_PROTOCOL));
        match (upgrade.eq_ignore_ascii_case("websocket"), protocol) {
            (true, Some(protocol)) if !key.is_empty() => Ok(Self {
                protocol,
                accept: derive_accept_key(key.as_bytes()),
            }),
            _ => Err(BackendError::BadRequest {
                message: "this session needs a WebSocket upgrade with subprotocol v5.channel.k8s.io or v4.channel.k8s.io".to_string(),
            }),
        }
    }

    fn accept<Serve, Served>(self, request: Request<Incoming>, serve: Serve) -> Response<Body>
    where
        Serve:
            FnOnce(WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) -> Served + Send + 'static,
        Served: Future<Output = ()> + Send,
    {
        // Owned by the connection: hyper resolves or fails the upgrade when the connection ends.
        tokio::spawn(async move {
            match hyper::upgrade::on(request).await {
                Ok(upgraded) => {
                    let socket = WebSocketStream::from_raw_socket(
                        TokioIo::new(upgraded),
                        Role::Server,
                        Some(channel::web_socket_config()),
                    )
                    .await;
                    serve(socket).await;
                }
                Err(error) => tracing::debug!(%error, "session upgrade failed"),
            }
        });
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(WEB_SOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(WEB_SOCKET_ACCEPT, accept);
        }
        response
    }
}

fn refusal(error: &BackendError) -> Response<Body> {
    let status = match error {
        BackendError::NotFound { .. } => StatusCode::NOT_FOUND,
        BackendError::BadRequest { .. } => StatusCode::BAD_REQUEST,
        BackendError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        BackendError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    text(status, &message)
}

fn json(value: &serde_json::Value) -> Result<Response<Body>, BackendError> {
    let bytes = serde_json::to_vec(value).map_err(|source| BackendError::Internal {
        attempted: "write the answer as JSON".to_string(),
        source: Box::new(source),
    })?;
    let mut response = Response::new(full(bytes));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(full(message.as_bytes().to_vec()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl From<io::Error> for BackendError {
    fn from(source: io::Error) -> Self {
        Self::Internal {
            attempted: "read or write a container's stream".to_string(),
            source: Box::new(source),
        }
    }
}

//! Connections, TLS, and from a route to the backend.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authorize::ServerTls;
use crate::backend::{BackendError, ExecSession, NodeBackend};
use crate::remote_command::Wanted;
use crate::route::{self, Route, RouteError};
use crate::session::Sessions;
use crate::upgrade::{self, PortForwardProtocol};

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
        let sessions = Sessions {
            tasks: connections.clone(),
            shutdown: shutdown.clone(),
        };
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
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await??;
        let service = service_fn(move |request| {
            let (server, sessions) = (self.clone(), sessions.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &sessions).await) }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await?;
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>, sessions: &Sessions) -> Response<Body> {
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
            Ok(route) => self.route(route, request, sessions).await,
            Err(RouteError::NotFound) => return text(StatusCode::NOT_FOUND, "404 page not found"),
            Err(RouteError::Bad(message)) => return text(StatusCode::BAD_REQUEST, &message),
        };
        answer.unwrap_or_else(|error| refusal(&error))
    }

    async fn route(
        &self,
        route: Route,
        request: Request<Incoming>,
        sessions: &Sessions,
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
            Route::Exec(target, request_of) => {
                let wanted = Wanted {
                    stdin: request_of.stdin,
                    stdout: request_of.stdout,
                    stderr: request_of.stderr,
                    tty: request_of.tty,
                };
                let (namespace, pod, container) =
                    (&target.namespace, &target.pod, &target.container);
                let session = self.backend.exec(namespace, pod, container, request_of);
                command(request, sessions, wanted, session).await
            }
            Route::Attach(target, request_of) => {
                let wanted = Wanted {
                    stdin: request_of.stdin,
                    stdout: request_of.stdout,
                    stderr: request_of.stderr,
                    tty: request_of.tty,
                };
                let (namespace, pod, container) =
                    (&target.namespace, &target.pod, &target.container);
                let session = self.backend.attach(namespace, pod, container, request_of);
                command(request, sessions, wanted, session).await
            }
            Route::PortForward(target, ports) => {
                self.forward(request, sessions, target, ports).await
            }
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        sessions: &Sessions,
        target: route::Target,
        ports: Vec<u16>,
    ) -> Result<Response<Body>, BackendError> {
        let (protocol, acceptance) = match upgrade::port_forward(request.headers()) {
            Ok(chosen) => chosen,
            Err(refusal) => return Ok(refusal.response(text)),
        };
        let named = 1..=FORWARDED_PORTS_MAX;
        if protocol == PortForwardProtocol::Channels && !named.contains(&ports.len()) {
            return Err(BackendError::BadRequest {
                message: format!("parameter ports: name 1 to {FORWARDED_PORTS_MAX} ports"),
            });
        }
        self.backend
            .check_pod(&target.namespace, &target.pod)
            .await?;
        sessions.port_forward(request, protocol, self.backend.clone(), target, ports);
        Ok(acceptance.response())
    }
}

/// Checks the upgrade before the command runs, so that a refused upgrade has no effect.
async fn command(
    request: Request<Incoming>,
    sessions: &Sessions,
    wanted: Wanted,
    session: impl Future<Output = Result<ExecSession, BackendError>>,
) -> Result<Response<Body>, BackendError> {
    let (protocol, acceptance) = match upgrade::command(request.headers()) {
        Ok(chosen) => chosen,
        Err(refusal) => return Ok(refusal.response(text)),
    };
    let session = session.await?;
    sessions.command(request, protocol, wanted, session);
    Ok(acceptance.response())
}

fn refusal(error: &BackendError) -> Response<Body> {
    let status = match error {
        BackendError::NotFound { .. } => StatusCode::NOT_FOUND,
        BackendError::BadRequest { .. } => StatusCode::BAD_REQUEST,
        BackendError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        BackendError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, &error.full_text())
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

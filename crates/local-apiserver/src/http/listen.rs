//! TLS listeners: one task per connection, HTTP/2 or HTTP/1.1 by ALPN, upgrades on HTTP/1.1.

use super::body::{RequestBody, ResponseBody};
use super::dispatch;
use crate::auth::{User, authenticate};
use crate::core::Core;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client must finish its handshake in this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// And its request's head in this.
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Connections of one listener at a time.
const CONNECTIONS: usize = 4096;

/// Accepts until cancelled.
pub async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS, "too many connections, refusing one");
            continue;
        };
        let (core, acceptor, stop) = (core.clone(), acceptor.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(core, stream, acceptor) => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(core: Arc<Core>, stream: TcpStream, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| authenticate::certificate_user(certificate));
    let http2 = session.alpn_protocol() == Some(b"h2");
    let certificate = Arc::new(certificate);
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, certificate) = (core.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(answer(core, certificate.as_ref().as_ref(), request).await) }
    });
    let io = TokioIo::new(stream);
    let ended = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .serve_connection(io, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .serve_connection(io, service)
            .with_upgrades()
            .await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    core: Arc<Core>,
    certificate: Option<&User>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let user = authenticate::user(&core, certificate, request.headers())
        .and_then(|user| authenticate::impersonate(&core, user, request.headers()));
    let user = match user {
        Ok(user) => user,
        Err(error) => return super::body::error(&error),
    };
    let gzip = super::compress::wanted(request.headers());
    let request = request.map(|body| -> RequestBody { body.map_err(Into::into).boxed_unsync() });
    let response = dispatch::handle(core, user, request).await;
    if gzip {
        super::compress::response(response).await
    } else {
        response
    }
}

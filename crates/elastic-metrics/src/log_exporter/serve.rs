//! The exporter's listener: `/metrics`, `/healthz` and `/readyz` over plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;

/// Most connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// The longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after the system refused a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const PAGE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `shutdown`, then until every answer under way is out.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve_connection(shared.clone(), stream, shutdown.clone());
                tasks.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, shutdown: CancellationToken) {
    let handler = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&shared, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), handler);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

fn answer(shared: &Shared, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        _ if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        "/metrics" => (StatusCode::OK, shared.board().page((shared.now)())),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if shared.board().is_ready() => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not every query has been asked yet\n".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz and /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(PAGE);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, content_type);
    response
}

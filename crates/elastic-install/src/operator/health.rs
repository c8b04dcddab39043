//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, for the kubelet's probes and for Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A connection that sends no head by then is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the endpoints tell.
pub(super) trait Report: Send + Sync + 'static {
    /// Why this replica is not ready; `None` when it is.
    fn not_ready(&self) -> Option<String>;
    /// In Prometheus' text format.
    fn metrics(&self) -> String;
}

pub(super) async fn serve(
    listener: TcpListener,
    report: Arc<dyn Report>,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "health endpoint could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (report, shutdown) = (report.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = connection(stream, report) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, report: Arc<dyn Report>) {
    let service = service_fn(move |request| {
        let answer = answer(&*report, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "health connection ended with an error");
    }
}

fn answer(report: &dyn Report, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz" | "/livez") => (StatusCode::OK, "ok".to_owned()),
        (&Method::GET, "/readyz") => match report.not_ready() {
            None => (StatusCode::OK, "ok".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        },
        (&Method::GET, "/metrics") => (StatusCode::OK, report.metrics()),
        _ => (StatusCode::NOT_FOUND, "no such path".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

//! The log service's listener: connections, bodies, and every answer's envelope.

use super::LogService;
use super::refusal::Refused;
use crate::accept::accept;
use bytes::Bytes;
use cloud_api::log::MAX_PUT_BYTES;
use cloud_api::log::model::ErrorBody;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Most connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// The longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait for its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const JSON: &str = "application/json";

/// What a call answers.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self {
            content_type: JSON,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            content_type: JSON,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Serves until the cloud shuts down.
pub(super) async fn serve(service: Arc<LogService>, listener: TcpListener) {
    let serve = |stream| serve_connection(service.clone(), stream);
    accept(
        &service.shared,
        listener,
        "log service",
        MAX_CONNECTIONS,
        serve,
    )
    .await;
}

async fn serve_connection(service: Arc<LogService>, stream: TcpStream) {
    let shutdown = service.shared.shutdown.clone();
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(handle(&service, request).await) }
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
        tracing::debug!(%error, "connection to the log service ended early");
    }
}

async fn handle(service: &Arc<LogService>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let request_id = uuid::Uuid::new_v4().simple().to_string()[..24].to_uppercase();
    let outcome = match read(request).await {
        Ok((head, body)) => service.call(&head, body).await,
        Err(refused) => Err(refused),
    };
    let (status, reply) = match outcome {
        Ok(reply) => (StatusCode::OK, reply),
        Err(refused) => {
            tracing::debug!(code = refused.code, message = %refused.message, %request_id, "log service refused a call");
            let body = ErrorBody {
                error_code: refused.code.to_owned(),
                error_message: refused.message,
            };
            let status = StatusCode::from_u16(refused.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Reply::json(&serde_json::json!(body)))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static(reply.content_type);
    headers.insert(http::header::CONTENT_TYPE, content_type);
    insert(headers, "x-log-requestid", &request_id);
    for (name, value) in &reply.headers {
        insert(headers, name, value);
    }
    response
}

/// Values of ours hold no control characters but perhaps somebody's query; what no header can hold is left out.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

async fn read(request: Request<Incoming>) -> Result<(http::request::Parts, Bytes), Refused> {
    let (head, body) = request.into_parts();
    let invalid = |message: &str| Refused::new(400, "PostBodyInvalid", message);
    let reading = Limited::new(body, MAX_PUT_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok((head, body.to_bytes())),
        Ok(Err(_)) => Err(invalid("the body was cut off or is larger than 30 MiB")),
        Err(_) => Err(invalid("the body did not arrive in time")),
    }
}

//! The front door: HTTP on one listener, signatures checked, actions called, errors in the documented envelope.

mod api;
mod authenticate;
mod control;
pub(crate) mod keys;
pub(crate) mod nonces;
mod private;
pub(crate) mod refusal;
mod throttle;
pub(crate) mod tickets;
mod websocket;

use crate::accept::accept;
use crate::shared::Shared;
use authenticate::Authenticator;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nonces::Nonces;
use refusal::Refusal;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use throttle::Throttle;
use tickets::Tickets;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Most connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;
/// Most exec sessions at the same time.
const MAX_EXEC_SESSIONS: usize = 256;
/// The longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Stands for "hang up without an answer".
#[derive(Debug, thiserror::Error)]
#[error("the answer is lost on purpose")]
struct AnswerLost;

type Answer = Response<Full<Bytes>>;

pub(crate) struct Gateway {
    shared: Arc<Shared>,
    authenticator: Authenticator,
    throttle: Throttle,
    tickets: Tickets,
    exec_sessions: Arc<Semaphore>,
}

impl Gateway {
    pub(crate) fn new(shared: Arc<Shared>, nonces: Nonces) -> Self {
        Self {
            authenticator: Authenticator::new(nonces),
            throttle: Throttle::new(shared.config.call_limits.clone()),
            shared,
            tickets: Tickets::default(),
            exec_sessions: Arc::new(Semaphore::new(MAX_EXEC_SESSIONS)),
        }
    }

    /// One call of the OpenAPI that did not come over a socket; `None` when its answer is to be lost.
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let request_id = uuid::Uuid::new_v4().to_string().to_uppercase();
        let (head, body) = request.into_parts();
        let outcome = self.read_call(&head, &body, &request_id).await;
        let answer = outcome.unwrap_or_else(|refusal| Some(refused(&refusal, &request_id)))?;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        Some(Response::from_parts(head, body.unwrap_or_default()))
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, AnswerLost> {
        let request_id = uuid::Uuid::new_v4().to_string().to_uppercase();
        let outcome = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::POST, "/") => self.api(request, &request_id).await,
            (&Method::GET, "/exec/" | "/exec") => self.exec(request).map(Some),
            (&Method::GET, "/springtide/ledger" | "/springtide/groups") => self
                .private(&request)
                .await
                .map(|body| Some(json(StatusCode::OK, &body))),
            (_, path) if path.starts_with(control::PREFIX) => self.control(request).await.map(Some),
            (method, path) => {
                let message = format!("There is nothing at {method} {path}.");
                Err(Refusal::new(404, "InvalidAction.NotFound", message))
            }
        };
        match outcome {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(AnswerLost),
            Err(refusal) => {
                tracing::debug!(code = %refusal.code, message = %refusal.message, %request_id, "call refused");
                Ok(refused(&refusal, &request_id))
            }
        }
    }
}

/// The envelope of every error.
fn refused(refusal: &Refusal, request_id: &str) -> Answer {
    let status =
        StatusCode::from_u16(refusal.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = serde_json::json!({
        "RequestId": request_id,
        "HostId": "local-cloud",
        "Code": refusal.code,
        "Message": refusal.message,
        "Recommend": "https://help.aliyun.com/zh/eci",
    });
    if let Some(denied) = &refusal.access_denied {
        body["AccessDeniedDetail"] = serde_json::json!({
            "PolicyType": "AccountLevelIdentityBasedPolicy",
            "NoPermissionType": "ImplicitDeny",
            "AuthAction": denied.action,
            "AuthPrincipalType": "SubUser",
            "AuthPrincipalDisplayName": denied.user,
            "AuthPrincipalOwnerId": crate::ram::ACCOUNT,
            "AuthResource": denied.resource,
        });
    }
    let mut answer = json(status, &body);
    if let Some(wait_ms) = refusal.retry_after_ms {
        let wait = http::HeaderValue::from(wait_ms);
        answer.headers_mut().insert("x-acs-retry-after", wait);
    }
    answer
}

fn json(status: StatusCode, body: &Value) -> Answer {
    answer(status, body.to_string().into_bytes())
}

fn answer(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let content_type = http::HeaderValue::from_static("application/json;charset=utf-8");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, content_type);
    answer
}

/// Serves until the cloud shuts down.
pub(crate) async fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let serve = |stream| serve_connection(gateway.clone(), stream);
    accept(&gateway.shared, listener, "gateway", MAX_CONNECTIONS, serve).await;
}

async fn serve_connection(gateway: Arc<Gateway>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection without nodelay");
    }
    let shutdown = gateway.shared.shutdown.clone();
    let service = service_fn(move |request| gateway.clone().handle(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
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

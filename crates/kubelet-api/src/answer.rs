//! From a request to its answer: whether it is let in, what it asks for, what the backend says.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;

use crate::access::{Gate, User};
use crate::backend::{BackendError, ExecSession, LogOptions, NodeBackend};
use crate::remote_command::Wanted;
use crate::route::{self, Route, RouteError, Target};
use crate::session::Sessions;
use crate::upgrade::{self, PortForwardProtocol};
use crate::usage::{self, PodUsage};
use crate::{exposition, own_metrics};

/// Ports one port-forward may name: two channels each must fit a byte.
const FORWARDED_PORTS_MAX: usize = 100;

pub(crate) type Body = UnsyncBoxBody<Bytes, BackendError>;

/// Answers the requests to one node.
pub(crate) struct Answerer {
    backend: Arc<dyn NodeBackend>,
    gate: Gate,
    counts: own_metrics::Counts,
}

impl Answerer {
    pub(crate) fn new(backend: Arc<dyn NodeBackend>, gate: Gate) -> Self {
        Self {
            backend,
            gate,
            counts: own_metrics::Counts::default(),
        }
    }

    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        certificate: Option<&User>,
        sessions: &Sessions,
    ) -> Response<Body> {
        let (path, method) = (request.uri().path(), request.method());
        let checked = self
            .gate
            .check(certificate, method, path, request.headers());
        if let Err(refused) = checked.await {
            self.counts.add("refused", refused.status);
            return text(refused.status, &refused.message);
        }
        if !matches!(*method, Method::GET | Method::POST) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and POST are served",
            );
        }
        let parsed = route::parse(path, request.uri().query().unwrap_or_default());
        let route = match parsed {
            Ok(route) => route,
            Err(RouteError::NotFound) => return text(StatusCode::NOT_FOUND, "404 page not found"),
            Err(RouteError::Bad(message)) => return text(StatusCode::BAD_REQUEST, &message),
        };
        let kind = route.kind();
        let is_session = matches!(
            route,
            Route::Exec(..) | Route::Attach(..) | Route::PortForward(..)
        );
        let answer = self.route(route, request, sessions).await;
        let answer = answer.unwrap_or_else(|error| refusal(&error, is_session));
        self.counts.add(kind, answer.status());
        answer
    }

    async fn route(
        &self,
        route: Route,
        request: Request<Incoming>,
        sessions: &Sessions,
    ) -> Result<Response<Body>, BackendError> {
        match route {
            Route::Health => Ok(text(StatusCode::OK, "ok")),
            Route::Configuration => json_body(&own_metrics::configuration()),
            Route::Pods => self.pods(|_| true).await,
            Route::RunningPods => self.pods(|phase| phase == "Running").await,
            Route::OwnMetrics => {
                let pods = self.backend.pods().await;
                let open = sessions.open();
                let body = self.counts.text(self.gate.node(), &pods, open);
                Ok(exposed(&body))
            }
            Route::ResourceMetrics(node) => {
                let pods = self.usage(node).await?;
                Ok(exposed(&exposition::resource(&pods)))
            }
            Route::CadvisorMetrics(node) => {
                let pods = self.usage(node).await?;
                Ok(exposed(&exposition::cadvisor(&pods)))
            }
            Route::StatsSummary => {
                let pods = self.backend.usage().await?;
                json_body(&usage::summary(self.gate.node(), &pods))
            }
            Route::Logs(target, options) => self.logs(&target, options).await,
            Route::Exec(target, asked) => {
                let wanted = Wanted {
                    stdin: asked.stdin,
                    stdout: asked.stdout,
                    stderr: asked.stderr,
                    tty: asked.tty,
                };
                let (namespace, pod, container) =
                    (&target.namespace, &target.pod, &target.container);
                let session = self.backend.exec(namespace, pod, container, asked);
                command(request, sessions, wanted, session).await
            }
            Route::Attach(target, asked) => {
                let wanted = Wanted {
                    stdin: asked.stdin,
                    stdout: asked.stdout,
                    stderr: asked.stderr,
                    tty: asked.tty,
                };
                let (namespace, pod, container) =
                    (&target.namespace, &target.pod, &target.container);
                let session = self.backend.attach(namespace, pod, container, asked);
                command(request, sessions, wanted, session).await
            }
            Route::PortForward(target, ports) => {
                self.forward(request, sessions, target, ports).await
            }
        }
    }

    async fn pods(&self, wanted: impl Fn(&str) -> bool) -> Result<Response<Body>, BackendError> {
        let mut pods = self.backend.pods().await;
        pods.retain(|pod| {
            let status = pod.status.as_ref();
            let phase = status.and_then(|status| status.phase.as_deref());
            wanted(phase.unwrap_or_default())
        });
        json_body(&json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods,
        }))
    }

    /// Virtual nodes may share an address; a scraper that names another node gets nothing twice.
    async fn usage(&self, node: Option<String>) -> Result<Vec<PodUsage>, BackendError> {
        match node {
            Some(other) if other != self.gate.node() => Ok(Vec::new()),
            _ => self.backend.usage().await,
        }
    }

    async fn logs(
        &self,
        target: &Target,
        options: LogOptions,
    ) -> Result<Response<Body>, BackendError> {
        let (namespace, pod, container) = (&target.namespace, &target.pod, &target.container);
        let chunks = self
            .backend
            .container_logs(namespace, pod, container, options)
            .await?;
        let body = StreamBody::new(chunks.map_ok(Frame::data).boxed());
        Ok(Response::builder()
            .header(CONTENT_TYPE, "text/plain")
            .body(BodyExt::boxed_unsync(body))
            .unwrap_or_default())
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        sessions: &Sessions,
        target: Target,
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
        let Some(place) = sessions.place() else {
            return Ok(too_many());
        };
        sessions.port_forward(
            place,
            request,
            protocol,
            self.backend.clone(),
            target,
            ports,
        );
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
    let Some(place) = sessions.place() else {
        return Ok(too_many());
    };
    let session = session.await?;
    sessions.command(place, request, protocol, wanted, session);
    Ok(acceptance.response())
}

fn too_many() -> Response<Body> {
    told(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many sessions are open on this node; end some or try again later",
    )
}

/// An API server tells clients a refused session in our own words, and those of everything else in its own.
fn refusal(error: &BackendError, is_session: bool) -> Response<Body> {
    let status = match error {
        BackendError::NotFound { .. } => StatusCode::NOT_FOUND,
        BackendError::BadRequest { .. } => StatusCode::BAD_REQUEST,
        BackendError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        BackendError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if is_session {
        told(status, &error.full_text())
    } else {
        text(status, &error.full_text())
    }
}

/// As a `Status`. Clients read whatever they are told as one, in YAML, too: a plain sentence with a colon in it would be
/// a mapping, and they would show a `Status` without a message.
fn told(status: StatusCode, message: &str) -> Response<Body> {
    let reason = match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "",
    };
    let object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16(),
    });
    let mut response = Response::new(full(object.to_string().into_bytes()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn json_body(value: &serde_json::Value) -> Result<Response<Body>, BackendError> {
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

/// Prometheus text.
fn exposed(body: &str) -> Response<Body> {
    let mut response = text(StatusCode::OK, body);
    let kind = HeaderValue::from_static(exposition::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_session_is_told_as_a_status_and_anything_else_in_plain_words() {
        let error = BackendError::Unsupported {
            message: "no input: use exec".to_string(),
        };
        let answer = refusal(&error, true);
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let object: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(object["kind"], "Status");
        assert_eq!(object["message"], "no input: use exec");
        assert_eq!(object["code"], 501);
        let plain = refusal(&error, false).into_body().collect().await.unwrap();
        assert_eq!(plain.to_bytes(), "no input: use exec");
    }
}

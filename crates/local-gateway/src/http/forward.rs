//! The way of one request: an endpoint, a connection, the request, the answer; and another endpoint when the request did
//! not reach the first one, or reached it without an answer and may be repeated.

use std::{
    net::{IpAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::RETRY_AFTER, request};
use http_body::Body as _;
use http_body_util::{Either, Empty, Full};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use jiff::Timestamp;
use tokio::time::{sleep, timeout, timeout_at};

use super::{
    FirstServed, Shared,
    connection::{self, AnswerBody, Connection, RequestBody, Reuse},
    endpoints::Place,
    headers, tunnel,
};

/// Tries for one request in all.
const ATTEMPTS: usize = 8;
/// How long a request waits for an endpoint that takes it.
const ENDPOINT_PATIENCE: Duration = Duration::from_secs(3);
/// The wait before endpoints that all failed are tried again, times the number of tries so far.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long an endpoint may take until its answer begins.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// How long one that has left the table may take.
const DEPARTED_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type AnswerToClient = Response<Either<AnswerBody, Full<Bytes>>>;

/// A request that can be sent until its body has been read.
struct Outgoing {
    parts: request::Parts,
    body: Option<Incoming>,
    repeatable: bool,
}

impl Outgoing {
    /// The request to send; `None` when its body has been used up.
    fn request(&mut self, has_body: bool) -> Option<Request<RequestBody>> {
        let body = match (has_body, self.body.take()) {
            (true, None) => return None,
            (true, Some(body)) => Either::Left(body),
            (false, _) => Either::Right(Empty::new()),
        };
        Some(Request::from_parts(self.parts.clone(), body))
    }

    fn put_back(&mut self, unsent: Request<RequestBody>) {
        if let Either::Left(body) = unsent.into_body() {
            self.body = Some(body);
        }
    }
}

enum Failure {
    /// Nothing of the request was sent.
    Unsent,
    /// The endpoint may have begun to work on it.
    Unanswered,
    /// The endpoint took too long.
    TooLate,
}

impl Shared {
    /// Answers one request of a client.
    pub(crate) async fn forward(
        &self,
        mut request: Request<Incoming>,
        client: IpAddr,
    ) -> AnswerToClient {
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let upgrade = headers::prepare_request(&mut parts, client).then_some(on_upgrade);
        let has_body = !body.is_end_stream();
        let repeatable = !has_body && headers::is_idempotent(&parts.method);
        let outgoing = Outgoing {
            parts,
            body: has_body.then_some(body),
            repeatable,
        };
        self.counters.count_request();
        match self.attempt_all(outgoing, has_body, upgrade).await {
            Ok(answer) => answer,
            Err((status, reason)) => {
                self.counters.count_failure();
                tracing::debug!(port = %self.name, %status, reason, "request failed");
                refusal(status, &format!("{}: {reason}\n", self.name))
            }
        }
    }

    async fn attempt_all(
        &self,
        mut outgoing: Outgoing,
        has_body: bool,
        mut upgrade: Option<OnUpgrade>,
    ) -> Result<AnswerToClient, (StatusCode, &'static str)> {
        let deadline = Instant::now() + ENDPOINT_PATIENCE;
        let mut failed = Vec::new();
        let mut reuse = match (upgrade.is_some(), outgoing.repeatable) {
            (true, _) => Reuse::Never,
            (false, true) => Reuse::Any,
            (false, false) => Reuse::Alive,
        };
        for attempt in 1..=ATTEMPTS {
            let place = self.place(&mut failed, attempt, deadline).await;
            let place = place.ok_or((StatusCode::SERVICE_UNAVAILABLE, "no endpoint is ready"))?;
            let address = place.0.address;
            let Ok(mut connection) =
                connection::open(&place.0, &self.dialer, reuse, &self.abort).await
            else {
                place.0.suspect();
                failed.push(address);
                self.counters.count_retry();
                continue;
            };
            let request = outgoing.request(has_body);
            let request = request.ok_or((
                StatusCode::BAD_GATEWAY,
                "the endpoint broke off while reading the body",
            ))?;
            let used = connection.used;
            match self
                .send(&mut connection, request, &place, &mut outgoing)
                .await
            {
                Ok(answer) => return Ok(self.pass_back(answer, connection, place, upgrade.take())),
                Err(Failure::TooLate) => {
                    return Err((
                        StatusCode::GATEWAY_TIMEOUT,
                        "the endpoint did not answer in time",
                    ));
                }
                Err(Failure::Unanswered) if !outgoing.repeatable => {
                    return Err((
                        StatusCode::BAD_GATEWAY,
                        "the endpoint closed the connection before it answered",
                    ));
                }
                Err(Failure::Unsent | Failure::Unanswered) => {
                    self.counters.count_retry();
                    reuse = Reuse::Never;
                    if !used {
                        failed.push(address);
                    }
                }
            }
        }
        Err((StatusCode::BAD_GATEWAY, "no endpoint answered"))
    }

    /// A place at an endpoint. When there is none, or all have failed, waits for a change or a little while.
    async fn place(
        &self,
        failed: &mut Vec<SocketAddrV4>,
        attempt: usize,
        deadline: Instant,
    ) -> Option<Place> {
        let mut changes = self.endpoints.changes();
        loop {
            if let Some(place) = self.endpoints.choose(failed) {
                return Some(place);
            }
            if Instant::now() >= deadline {
                return None;
            }
            if failed.is_empty() {
                let waited = timeout_at(deadline.into(), changes.changed()).await;
                waited.ok()?.ok()?;
            } else {
                drop(timeout(RETRY_PAUSE * attempt as u32, changes.changed()).await);
                failed.clear();
            }
        }
    }

    async fn send(
        &self,
        connection: &mut Connection,
        request: Request<RequestBody>,
        place: &Place,
        outgoing: &mut Outgoing,
    ) -> Result<Response<Incoming>, Failure> {
        let sending = connection.sender.try_send(request);
        let result = tokio::select! {
            result = timeout(ANSWER_PATIENCE, sending) => result.map_err(|_| Failure::TooLate)?,
            () = async { place.0.gone().await; sleep(DEPARTED_PATIENCE).await } => return Err(Failure::Unanswered),
        };
        result.map_err(|mut error| match error.take_message() {
            Some(unsent) => {
                outgoing.put_back(unsent);
                Failure::Unsent
            }
            None => Failure::Unanswered,
        })
    }

    fn pass_back(
        &self,
        mut answer: Response<Incoming>,
        connection: Connection,
        place: Place,
        upgrade: Option<OnUpgrade>,
    ) -> AnswerToClient {
        if let (Some(at), Some(told)) = (place.0.count_served(Timestamp::now), &self.first_served) {
            // A message too many is only a moment that nobody can look up later.
            drop(told.try_send(FirstServed {
                address: place.0.address,
                at,
                port: self.name.clone(),
            }));
        }
        let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        headers::prepare_answer(answer.headers_mut(), switching);
        if let Some(client) = upgrade.filter(|_| switching) {
            let endpoint = hyper::upgrade::on(&mut answer);
            let (parts, _) = answer.into_parts();
            self.tunnels
                .spawn(tunnel::run(client, endpoint, place, self.abort.clone()));
            return Response::from_parts(parts, Either::Right(Full::default()));
        }
        answer.map(|body| Either::Left(AnswerBody::new(body, connection.sender, place)))
    }
}

fn refusal(status: StatusCode, text: &str) -> AnswerToClient {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::copy_from_slice(
        text.as_bytes(),
    ))));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
    answer
}

//! Kept-open connections for requests that come again and again: webhooks, and everything that aggregated servers answer.

use super::body::{BoxError, RequestBody, ResponseBody, full};
use super::client::{Target, connect};
use super::tls::{self, TlsError, Trust};
use crate::auth::pki::Pair;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

/// Idle connections kept for one place.
const IDLE: usize = 8;
/// Remembered TLS settings.
const SETTINGS: usize = 64;
/// The largest answer.
const ANSWER_BYTES: usize = 4 << 20;

/// The authority (empty = anybody) and whether we show a certificate.
type Trusted = (Vec<u8>, bool);

/// Connections that nobody uses, by place.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<HashMap<String, Vec<SendRequest<RequestBody>>>>>);

impl Idle {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<SendRequest<RequestBody>>>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn take(&self, place: &str) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.lock();
        let list = idle.get_mut(place)?;
        while let Some(sender) = list.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        idle.remove(place);
        None
    }

    fn give(&self, place: &str, sender: SendRequest<RequestBody>) {
        let mut idle = self.lock();
        let list = idle.entry(place.to_string()).or_default();
        if list.len() < IDLE && !sender.is_closed() {
            list.push(sender);
        }
    }
}

/// Connections and TLS settings by place.
#[derive(Default)]
pub struct Pool {
    idle: Idle,
    settings: Mutex<HashMap<Trusted, Arc<ClientConfig>>>,
}

impl Pool {
    /// Settings that trust an authority (PEM), or anybody when there is none and `insecure`.
    pub fn settings(
        &self,
        authority: &[u8],
        insecure: bool,
        pair: Option<&Pair>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let key = (
            if insecure {
                Vec::new()
            } else {
                authority.to_vec()
            },
            pair.is_some(),
        );
        let mut known = self
            .settings
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if let Some(found) = known.get(&key) {
            return Ok(found.clone());
        }
        let trust = if insecure {
            Trust::Anybody
        } else {
            Trust::Authority(authority)
        };
        let made = Arc::new(tls::client(&trust, pair)?);
        if known.len() >= SETTINGS {
            known.clear();
        }
        known.insert(key, made.clone());
        Ok(made)
    }

    /// Sends a request whose body is at hand and reads the whole answer; a stale connection is replaced once.
    pub async fn send(
        &self,
        target: &Target<'_>,
        head: &http::request::Builder,
        text: Bytes,
    ) -> Result<(StatusCode, Bytes), BoxError>
    where
        Self: Sync,
    {
        let place = place(target);
        if let Some(mut sender) = self.idle.take(&place)
            && sender.ready().await.is_ok()
            && let Ok(answer) = exchange(&mut sender, head, text.clone()).await
        {
            self.idle.give(&place, sender);
            return Ok(answer);
        }
        let mut sender = connect(target).await?;
        let answer = exchange(&mut sender, head, text).await?;
        self.idle.give(&place, sender);
        Ok(answer)
    }

    /// Passes a request on, its body and the answer's as they come. The connection is kept once the answer has ended.
    ///
    /// A kept connection may have died unseen: what was not sent at all is sent on a new one, and so is a question that
    /// changes nothing.
    pub async fn pass_on(
        &self,
        target: &Target<'_>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, BoxError> {
        let place = place(target);
        if let Some(mut sender) = self.idle.take(&place)
            && sender.ready().await.is_ok()
        {
            let again = question(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keeping(place, sender, response)),
                Err(mut error) => match error.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = connect(target).await?;
        let response = sender.send_request(request).await?;
        Ok(self.keeping(place, sender, response))
    }

    fn keeping(
        &self,
        place: String,
        sender: SendRequest<RequestBody>,
        response: Response<Incoming>,
    ) -> Response<ResponseBody> {
        let idle = self.idle.clone();
        response.map(|body| {
            let mut keeping = Keeping {
                body,
                sender: Some(sender),
                place,
                idle,
            };
            keeping.settle(false);
            keeping.boxed_unsync()
        })
    }
}

fn place(target: &Target<'_>) -> String {
    let name = target.tls.as_ref().map_or("", |(_, name)| name.as_str());
    format!("{}/{name}", target.address)
}

/// The same request once more, when it only asks and has no body.
fn question(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let only_asks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_asks || !request.body().is_end_stream() {
        return None;
    }
    let mut same = Request::new(full(Bytes::new()));
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = request.headers().clone();
    Some(same)
}

/// A body after whose end its connection is kept; one that is left before goes with its connection.
struct Keeping {
    body: Incoming,
    sender: Option<SendRequest<RequestBody>>,
    place: String,
    idle: Idle,
}

impl Keeping {
    fn settle(&mut self, ended: bool) {
        if (ended || self.body.is_end_stream())
            && let Some(sender) = self.sender.take()
        {
            self.idle.give(&self.place, sender);
        }
    }
}

impl Body for Keeping {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if matches!(frame, Some(Err(_))) {
            self.sender = None;
        }
        self.settle(frame.is_none());
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn exchange(
    sender: &mut SendRequest<RequestBody>,
    head: &http::request::Builder,
    text: Bytes,
) -> Result<(StatusCode, Bytes), BoxError> {
    let mut request = Request::builder();
    if let Some(method) = head.method_ref() {
        request = request.method(method.clone());
    }
    if let Some(uri) = head.uri_ref() {
        request = request.uri(uri.clone());
    }
    for (name, value) in head.headers_ref().into_iter().flatten() {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(full(text))?).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > ANSWER_BYTES {
                return Err("the answer is too large".into());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok((status, Bytes::from(whole)))
}

//! Kept-open connections for small requests that come again and again: webhooks, discovery of aggregated servers.

use super::body::{BoxError, RequestBody, full};
use super::client::{Target, connect};
use super::tls::{self, TlsError, Trust};
use crate::auth::pki::Pair;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Idle connections kept for one place.
const IDLE: usize = 8;
/// Remembered TLS settings.
const SETTINGS: usize = 64;
/// The largest answer.
const ANSWER_BYTES: usize = 4 << 20;

/// The authority (empty = anybody) and whether we show a certificate.
type Trusted = (Vec<u8>, bool);

/// Connections and TLS settings by place.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<String, Vec<SendRequest<RequestBody>>>>,
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

    fn take(&self, place: &str) -> Option<SendRequest<RequestBody>> {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let list = idle.get_mut(place)?;
        while let Some(sender) = list.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn give(&self, place: &str, sender: SendRequest<RequestBody>) {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let list = idle.entry(place.to_string()).or_default();
        if list.len() < IDLE && !sender.is_closed() {
            list.push(sender);
        }
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
        let place = format!(
            "{}/{}",
            target.address,
            target.tls.as_ref().map_or("", |(_, name)| name.as_str())
        );
        if let Some(mut sender) = self.take(&place)
            && sender.ready().await.is_ok()
            && let Ok(answer) = exchange(&mut sender, head, text.clone()).await
        {
            self.give(&place, sender);
            return Ok(answer);
        }
        let mut sender = connect(target).await?;
        let answer = exchange(&mut sender, head, text).await?;
        self.give(&place, sender);
        Ok(answer)
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

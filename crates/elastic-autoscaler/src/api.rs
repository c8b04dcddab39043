//! Requests to the API server, and its refusals in the words that upstream's client library gives them.

use http::{Method, Request};
use kube::Client;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

/// Everything but what a query value or a path segment may hold as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A request that did not go through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiFailure {
    /// The HTTP status, when there was an answer.
    pub(crate) code: Option<u16>,
    /// The sentence for conditions and events.
    pub(crate) message: String,
}

impl ApiFailure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ApiFailure {
            code: None,
            message: message.into(),
        }
    }
}

/// A value as part of a query or of a path.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Reads what is at a path. `what` names it (`pods.metrics.k8s.io`) where the answer itself says nothing.
pub(crate) async fn get<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    what: &str,
) -> Result<T, ApiFailure> {
    send(client, Method::GET, path, Vec::new(), what).await
}

/// Sends a JSON body and reads the answer.
pub(crate) async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    body: Vec<u8>,
    what: &str,
) -> Result<T, ApiFailure> {
    let verb = if method == Method::GET { "get" } else { "put" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(body)
        .map_err(|error| ApiFailure::new(format!("cannot form the request {path}: {error}")))?;
    let answer = client.request::<T>(request).await;
    answer.map_err(|error| failure(&error, verb, what))
}

fn failure(error: &kube::Error, verb: &str, what: &str) -> ApiFailure {
    let kube::Error::Api(status) = error else {
        return ApiFailure::new(error.to_string());
    };
    let is_status = status.reason != "Failed to parse error data";
    let words = match status.code {
        _ if is_status && !status.message.is_empty() => status.message.clone(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("forbidden: {}", status.message),
        404 => format!("the server could not find the requested resource ({verb} {what})"),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => format!("the server is currently unable to handle the request ({verb} {what})"),
        504 => format!(
            "the server was unable to return a response in the time allotted, but may still be processing the request ({verb} {what})"
        ),
        _ => format!(
            "an error on the server ({:?}) has prevented the request from succeeding ({verb} {what})",
            status.message
        ),
    };
    ApiFailure {
        code: Some(status.code),
        message: words,
    }
}

//! One attempt of a call: build, sign, send, read.

use super::EciClient;
use crate::encoding::{canonical_query, encode_pairs};
use crate::error::{EciError, ServiceError};
use crate::flatten::prune_nulls;
use crate::model::{Action, ErrorResponse};
use crate::signature::{SignatureVersion, v1, v3};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use std::time::Duration;

/// Longer parameters travel as a form body: a URI may not grow beyond 64 KiB, and many proxies stop at 8.
const MAX_QUERY_BYTES: usize = 6 * 1024;
const FORM: &str = "application/x-www-form-urlencoded";

type Pairs = Vec<(String, String)>;

impl EciClient {
    pub(super) async fn attempt<A: Action>(
        &self,
        parameters: &Pairs,
    ) -> Result<A::Response, EciError> {
        let action = A::NAME;
        let inner = &self.inner;
        // The semaphore is never closed.
        let _permit = inner.in_flight.acquire().await;
        let request = match inner.config.signature {
            SignatureVersion::V3 => self.signed_v3(action, A::VERSION, parameters),
            SignatureVersion::V1 => self.signed_v1(action, A::VERSION, parameters),
        };
        let request = request.map_err(|source| EciError::Request {
            action,
            source: source.into(),
        })?;
        let limit = inner.config.attempt_timeout;
        let response = match tokio::time::timeout(limit, inner.transport.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => return Err(EciError::Transport { action, source }),
            Err(_) => {
                return Err(EciError::Timeout {
                    action,
                    seconds: limit.as_secs_f64(),
                });
            }
        };
        if response.status().is_success() {
            read_answer::<A>(&response)
        } else {
            Err(read_refusal(action, &response))
        }
    }

    fn signed_v3(
        &self,
        action: &str,
        version: &str,
        parameters: &Pairs,
    ) -> Result<Request<Bytes>, http::Error> {
        let inner = &self.inner;
        let credentials = &*self.credentials();
        let query = canonical_query(parameters);
        let in_body = query.len() > MAX_QUERY_BYTES;
        let payload_hash = v3::payload_hash(if in_body { query.as_bytes() } else { b"" });
        let mut headers: Pairs = [
            ("host", inner.authority.as_str()),
            ("x-acs-action", action),
            ("x-acs-version", version),
            ("x-acs-date", &crate::time::format((inner.sources.now)())),
            ("x-acs-signature-nonce", &(inner.sources.nonce)()),
            ("x-acs-content-sha256", &payload_hash),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        if let Some(token) = &credentials.security_token {
            headers.push((
                "x-acs-accesskey-id".to_owned(),
                credentials.access_key_id.clone(),
            ));
            headers.push(("x-acs-security-token".to_owned(), token.clone()));
        }
        if in_body {
            headers.push(("content-type".to_owned(), FORM.to_owned()));
        }
        let signed = v3::SignedRequest {
            method: "POST",
            path: "/",
            query: if in_body { &[] } else { parameters },
            headers: &headers,
            payload_hash: &payload_hash,
        };
        let authorization =
            signed.authorization(&credentials.access_key_id, &credentials.access_key_secret);
        headers.push(("authorization".to_owned(), authorization));
        self.request(&headers, query, in_body)
    }

    fn signed_v1(
        &self,
        action: &str,
        version: &str,
        parameters: &Pairs,
    ) -> Result<Request<Bytes>, http::Error> {
        let inner = &self.inner;
        let credentials = &*self.credentials();
        let mut parameters = parameters.clone();
        let common = [
            ("Action", action),
            ("Version", version),
            ("Format", "JSON"),
            ("AccessKeyId", &credentials.access_key_id),
            ("SignatureMethod", v1::METHOD),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &(inner.sources.nonce)()),
            ("Timestamp", &crate::time::format((inner.sources.now)())),
        ];
        parameters.extend(common.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(token) = &credentials.security_token {
            parameters.push(("SecurityToken".to_owned(), token.clone()));
        }
        let signature = v1::sign(
            &credentials.access_key_secret,
            &v1::string_to_sign("POST", &parameters),
        );
        parameters.push((v1::SIGNATURE_PARAMETER.to_owned(), signature));
        let query = encode_pairs(
            parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let in_body = query.len() > MAX_QUERY_BYTES;
        let content_type = [("content-type".to_owned(), FORM.to_owned())];
        self.request(if in_body { &content_type } else { &[] }, query, in_body)
    }

    fn request(
        &self,
        headers: &[(String, String)],
        query: String,
        in_body: bool,
    ) -> Result<Request<Bytes>, http::Error> {
        let inner = &self.inner;
        let path = if in_body || query.is_empty() {
            "/".to_owned()
        } else {
            format!("/?{query}")
        };
        let uri = http::Uri::builder()
            .scheme(inner.scheme.clone())
            .authority(inner.authority.clone())
            .path_and_query(path)
            .build()?;
        let body = if in_body {
            Bytes::from(query)
        } else {
            Bytes::new()
        };
        let mut request = Request::post(uri)
            .header("accept", "application/json")
            .body(body)?;
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(request)
    }
}

fn read_answer<A: Action>(response: &Response<Bytes>) -> Result<A::Response, EciError> {
    let http_status = response.status().as_u16();
    let answer = |source| EciError::Answer {
        action: A::NAME,
        http_status,
        source,
    };
    // Directly; the way round over a tree is only for answers that say null where we have no option.
    if let Ok(body) = serde_json::from_slice(response.body()) {
        return Ok(body);
    }
    let mut body: serde_json::Value = serde_json::from_slice(response.body()).map_err(answer)?;
    prune_nulls(&mut body);
    serde_json::from_value(body).map_err(answer)
}

fn read_refusal(action: &'static str, response: &Response<Bytes>) -> EciError {
    let http_status = response.status().as_u16();
    let body: ErrorResponse = match serde_json::from_slice(response.body()) {
        Ok(body) => body,
        Err(source) => {
            return EciError::Answer {
                action,
                http_status,
                source,
            };
        }
    };
    let retry_after = response.headers().get("x-acs-retry-after");
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_millis);
    EciError::Service(Box::new(ServiceError {
        action,
        code: body.code,
        message: body.message,
        request_id: body.request_id,
        http_status,
        retry_after,
    }))
}

//! A client of the local cloud's control API: JSON over plain HTTP on loopback, with the cluster's secret.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::status::CloudStatus;

/// Largest answer: a thousand faults are a few hundred kilobytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

pub struct Control {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: String,
}

impl Control {
    pub fn new(cloud: &CloudStatus) -> anyhow::Result<Self> {
        if cloud.control_token.is_empty() {
            bail!(
                "this cluster is served by an older springtide without a control API; restart it with `springtide up`"
            );
        }
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: format!("http://{}/springtide/control", cloud.eci.endpoint),
            token: cloud.control_token.clone(),
        })
    }

    /// One call; a refusal is an error with the cloud's own words.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let attempt = || format!("ask the local cloud's control API for {method} {path}");
        let body = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}/{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(body))
            .with_context(attempt)?;
        let answer = self.client.request(request).await.with_context(attempt)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(attempt)?
            .to_bytes();
        let answer: Value = serde_json::from_slice(&body).with_context(attempt)?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["Message"].as_str().unwrap_or("no reason was given");
        bail!("{message}")
    }
}

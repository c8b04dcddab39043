//! One AdmissionReview to one webhook and back.

use super::select::Hook;
use crate::core::Core;
use crate::http::client::{HostDialer, Target};
use base64::Engine;
use http::{Method, Request, Uri, header};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// Sends the review; an error is a sentence about what failed.
pub async fn send(core: &Core, hook: &Hook, review: &Value, uid: &str) -> Result<Value, String> {
    let limit = Duration::from_secs(hook.timeout_seconds);
    let mut response = tokio::time::timeout(limit, exchange(core, hook, review))
        .await
        .map_err(|_| format!("no answer within {} seconds", hook.timeout_seconds))??;
    let mut response = response["response"].take();
    if response["uid"] != uid {
        return Err(format!(
            "expected response.uid={uid:?}, got {}",
            response["uid"]
        ));
    }
    if !response["patch"].is_null() && response["patchType"] != "JSONPatch" {
        return Err("response.patchType must be JSONPatch where there is a patch".into());
    }
    if response["warnings"].is_null() {
        response["warnings"] = Value::Array(Vec::new());
    }
    Ok(response)
}

async fn exchange(core: &Core, hook: &Hook, review: &Value) -> Result<Value, String> {
    let bundle = hook.client["caBundle"].as_str().unwrap_or_default();
    let authority = base64::engine::general_purpose::STANDARD
        .decode(bundle)
        .map_err(|error| format!("caBundle is no base64: {error}"))?;
    let settings = core
        .pool
        .settings(&authority, false, None)
        .map_err(|error| error.to_string())?;
    let text = review.to_string();
    let timeout = hook.timeout_seconds;
    let (status, body) = if let Some(url) = hook.client["url"].as_str() {
        let place = place(url).await?;
        let target = Target {
            address: place.address,
            tls: Some((settings, place.host.clone())),
            dialer: &HostDialer,
        };
        let path = with_timeout(&place.path, timeout);
        core.pool
            .send(&target, &head(&path, &place.host), text.into())
            .await
    } else {
        let service = &hook.client["service"];
        let field = |name: &str| service[name].as_str().unwrap_or_default();
        let (namespace, name) = (field("namespace"), field("name"));
        let port = service["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(443);
        let address = crate::proxy::service_address(core, namespace, name, port)?;
        let host = format!("{name}.{namespace}.svc");
        let target = Target {
            address,
            tls: Some((settings, host.clone())),
            dialer: core.dialer.as_ref(),
        };
        let path = with_timeout(
            match field("path") {
                "" => "/",
                path => path,
            },
            timeout,
        );
        core.pool
            .send(&target, &head(&path, &host), text.into())
            .await
    }
    .map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("the server answered {status}"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the answer is not JSON: {error}"))
}

fn with_timeout(path: &str, seconds: u64) -> String {
    let join = if path.contains('?') { '&' } else { '?' };
    format!("{path}{join}timeout={seconds}s")
}

fn head(path: &str, host: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
}

struct Place {
    address: SocketAddr,
    host: String,
    path: String,
}

async fn place(url: &str) -> Result<Place, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("{url:?} is not https"));
    }
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_string();
    let port = uri.port_u16().unwrap_or(443);
    let address = {
        let mut found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|error| format!("cannot look {host:?} up: {error}"))?;
        found
            .next()
            .ok_or_else(|| format!("{host:?} has no address"))?
    };
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_string();
    Ok(Place {
        address,
        host,
        path,
    })
}

//! Objects every cluster starts with.

use crate::auth::User;
use crate::core::Core;
use crate::http::body;
use crate::http::dispatch;
use crate::server::StartError;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing.
pub async fn run(core: &Arc<Core>) -> Result<(), StartError> {
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(core, "/api/v1/namespaces", name, &namespace).await?;
    }
    Ok(())
}

/// Creates one object unless it is there.
pub async fn ensure(
    core: &Arc<Core>,
    collection: &str,
    name: &str,
    object: &Value,
) -> Result<(), StartError> {
    let failed = |reason: String| StartError::Bootstrap {
        object: format!("{collection}/{name}"),
        reason,
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(collection)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver/v1.34")
        .body(body::full(object.to_string()))
        .map_err(|error| failed(error.to_string()))?;
    let user = User::new(
        "system:apiserver",
        &["system:masters", "system:authenticated"],
    );
    let response = dispatch::handle(core.clone(), user, request).await;
    if response.status().is_success() || response.status() == http::StatusCode::CONFLICT {
        return Ok(());
    }
    let bytes = response
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Err(failed(String::from_utf8_lossy(&bytes).into_owned()))
}

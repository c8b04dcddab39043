//! Signs approved CertificateSigningRequests, as upstream's controller manager does: only approved ones, only for the signers of
//! the cluster itself, and only what those may contain. It approves nothing.

use crate::auth::User;
use crate::auth::signer::{self, Signer};
use crate::core::Core;
use crate::http::body;
use crate::http::dispatch;
use crate::registry::context::time_text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where requests are stored.
pub const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";
/// After a write that did not take place.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until cancelled.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut changes = core.store.changes(REQUESTS);
    loop {
        changes.mark_unchanged();
        let mut again = false;
        for (name, request) in core.store.list(REQUESTS, "").objects {
            if let Some(status) = answer(&core, &request.tree, Timestamp::now()) {
                again |= !write(&core, &name, &status).await;
            }
        }
        let wait = async {
            if again {
                tokio::time::sleep(RETRY).await;
            } else {
                let _ = changes.changed().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wait => {}
        }
    }
}

/// What the status becomes; `None` when there is nothing to do.
fn answer(core: &Core, request: &Value, now: Timestamp) -> Option<Value> {
    let status = &request["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let has = |kind: &str| conditions.iter().any(|one| one["type"] == kind);
    if !has("Approved") || has("Denied") || has("Failed") || status["certificate"].is_string() {
        return None;
    }
    let signer = Signer::of(request["spec"]["signerName"].as_str()?)?;
    match signed(core, signer, &request["spec"]) {
        Ok(certificate) => Some(json!({"certificate": STANDARD.encode(certificate)})),
        Err(problem) => {
            let at = time_text(now);
            let mut conditions = conditions;
            conditions.push(json!({
                "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": problem,
                "lastUpdateTime": at, "lastTransitionTime": at,
            }));
            Some(json!({"conditions": conditions}))
        }
    }
}

fn signed(core: &Core, signer: Signer, spec: &Value) -> Result<String, String> {
    let pem = STANDARD
        .decode(spec["request"].as_str().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let pem = String::from_utf8(pem).map_err(|error| error.to_string())?;
    let usages: Vec<&str> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let seconds = spec["expirationSeconds"].as_i64();
    signer::sign(&core.pki, signer, &pem, &usages, seconds)
}

async fn write(core: &Arc<Core>, name: &str, status: &Value) -> bool {
    let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/status");
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(&path)
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .header(header::USER_AGENT, "kube-controller-manager/v1.34")
        .body(body::full(json!({"status": status}).to_string()));
    let Ok(request) = request else { return true };
    let user = User::new("system:kube-controller-manager", &[crate::auth::MASTERS]);
    let status = dispatch::handle(core.clone(), user, request).await.status();
    if !status.is_success() {
        tracing::debug!(path, %status, "the certificate of a request could not be written");
    }
    status.is_success() || status == StatusCode::NOT_FOUND
}

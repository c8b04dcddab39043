//! Answers in Kubernetes' own form.

use http::StatusCode;
use serde_json::{Value, json};

pub(crate) fn ok(value: Value) -> (StatusCode, Value) {
    (StatusCode::OK, value)
}

pub(crate) fn not_found(message: &str) -> (StatusCode, Value) {
    failure(StatusCode::NOT_FOUND, "NotFound", message)
}

/// A Kubernetes `Status`.
pub(crate) fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()
    });
    (code, status)
}

//! `Status` answers with the sentences upstream uses, because people and client libraries read them.

use http::StatusCode;
use local_schema::FieldError;
use serde_json::{Map, Value, json};

/// A refused request: the `Status` object and its HTTP side.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .body["message"].as_str().unwrap_or("request refused"))]
pub struct ApiError {
    /// HTTP status.
    pub code: StatusCode,
    /// The `Status` object.
    pub body: Box<Value>,
}

/// What every registry function answers.
pub type ApiResult<T> = Result<T, ApiError>;

/// `deployments.apps`, or `pods` for the core group.
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_string()
    } else {
        format!("{name}.{group}")
    }
}

fn details(name: &str, group: &str, kind: &str) -> Map<String, Value> {
    let mut details = Map::new();
    for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(field.into(), value.into());
        }
    }
    details
}

impl ApiError {
    /// A failure from its parts; `reason` empty = none, `details` as given.
    pub fn new(
        code: StatusCode,
        reason: &str,
        message: impl Into<String>,
        details: Option<Value>,
    ) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "code": code.as_u16(),
        });
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        if let Some(details) = details {
            body["details"] = details;
        }
        Self {
            code,
            body: Box::new(body),
        }
    }

    /// The `reason`.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// The `message`.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Seconds for a `Retry-After` header.
    pub fn retry_after(&self) -> Option<u64> {
        self.body["details"]["retryAfterSeconds"].as_u64()
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message, None)
    }

    /// 404 for one object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(plural, group));
        let details = details(name, group, plural).into();
        Self::new(StatusCode::NOT_FOUND, "NotFound", message, Some(details))
    }

    /// 404 for a path that names no resource.
    pub fn no_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message, Some(json!({})))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            Some(json!({})),
        )
    }

    /// 409 for a create.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(plural, group));
        let details = details(name, group, plural).into();
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            message,
            Some(details),
        )
    }

    /// 409 for an update.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(plural, group);
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        let details = details(name, group, plural).into();
        Self::new(StatusCode::CONFLICT, "Conflict", message, Some(details))
    }

    /// 409: somebody else wrote meanwhile.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 422 with one cause per field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut sentences: Vec<String> = Vec::new();
        for error in errors {
            let sentence = error.to_string();
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        let list = match sentences.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(kind, group));
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.kind.reason(), "message": error.message(), "field": error.path}))
            .collect();
        let mut details = details(name, group, kind);
        details.insert("causes".into(), causes.into());
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            message,
            Some(details.into()),
        )
    }

    /// 403 about an object or a collection.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(plural, group);
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        let details = details(name, group, plural).into();
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message, Some(details))
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "Unauthorized",
            None,
        )
    }

    /// 406 with the media types there are.
    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message, None)
    }

    /// 415 with the media types there are.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
            None,
        )
    }

    /// 410 for a list or watch from a revision that is forgotten.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message, None)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
            Some(json!({})),
        )
    }

    /// 504: the wanted revision has not happened.
    pub fn revision_too_large(wanted: u64, newest: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {newest}");
        let details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            message,
            Some(details),
        )
    }

    /// 500 as upstream words internal errors.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let details = json!({"causes": [{"message": why}]});
        let message = format!("Internal error occurred: {why}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            message,
            Some(details),
        )
    }

    /// 500 without a reason, as an error that is no `Status` comes out upstream.
    pub fn plain(why: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", why, None)
    }

    /// 503.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            why,
            None,
        )
    }
}

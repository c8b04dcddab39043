//! Mutating and validating admission webhooks: which are asked, how, and what their answers do.

mod call;
mod select;

use super::{Attributes, Operation};
use crate::status::{ApiError, ApiResult};
use base64::Engine;
use http::StatusCode;
use local_schema::{PatchKind, TypeRef};
use select::Hook;
use serde_json::{Value, json};

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// Webhook configurations are never judged by webhooks: a broken one must stay removable.
fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let group = attributes.call.served.group.as_ref();
    group == "admissionregistration.k8s.io"
        || matches!(group, "authorization.k8s.io" | "authentication.k8s.io")
}

/// Asks the mutating webhooks in their order and applies their patches.
pub(super) async fn mutate(
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let core = &attributes.call.core;
    if core.store.count(MUTATING) == 0 || is_exempt(attributes) {
        return Ok(());
    }
    let served = &attributes.call.served;
    let mut changed = false;
    for hook in select::matching(attributes, MUTATING, Some(object), old) {
        let mut shown = object.clone();
        served.to_served(&mut shown);
        let Some(response) = ask(attributes, &hook, Some(&shown), old).await? else {
            continue;
        };
        let Some(patch) = response["patch"].as_str().filter(|patch| !patch.is_empty()) else {
            continue;
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(patch)
            .map_err(|error| {
                ApiError::internal(format!(
                    "webhook {:?} sent a patch that is no base64: {error}",
                    hook.name
                ))
            })?;
        let patched =
            local_schema::patch::patch(PatchKind::Json, shown, &bytes, &TypeRef::deduced())
                .map_err(|error| {
                    ApiError::internal(format!(
                        "the patch of webhook {:?} does not apply: {error}",
                        hook.name
                    ))
                })?;
        *object = patched.object;
        crate::schema::default(served, object);
        served.to_storage(object);
        changed = true;
    }
    if changed {
        tracing::debug!(kind = %served.kind, "admission webhooks changed an object");
    }
    Ok(())
}

/// Asks the validating webhooks, all of them at once.
pub(super) async fn validate(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    let core = &attributes.call.core;
    if core.store.count(VALIDATING) == 0 || is_exempt(attributes) {
        return Ok(());
    }
    let shown = object.map(|object| {
        let mut shown = object.clone();
        attributes.call.served.to_served(&mut shown);
        shown
    });
    let hooks = select::matching(attributes, VALIDATING, object, old);
    let asked = hooks
        .iter()
        .map(|hook| ask(attributes, hook, shown.as_ref(), old));
    for outcome in futures::future::join_all(asked).await {
        outcome?;
    }
    Ok(())
}

/// The response of one webhook when it allows; `None` when it failed and may be ignored.
async fn ask(
    attributes: &Attributes<'_>,
    hook: &Hook,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<Option<Value>> {
    if attributes.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        return Err(ApiError::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            hook.name
        )));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review(attributes, &uid, object, old);
    if !concerns(hook, &review)? {
        return Ok(None);
    }
    match call::send(&attributes.call.core, hook, &review, &uid).await {
        Ok(response) => {
            for warning in response["warnings"].as_array().into_iter().flatten() {
                attributes.call.warn(warning.as_str().unwrap_or_default());
            }
            if response["allowed"] == true {
                return Ok(Some(response));
            }
            Err(denied(hook, &response["status"]))
        }
        Err(error) if hook.ignores_failure => {
            tracing::warn!(webhook = %hook.name, %error, "a webhook failed and is ignored");
            Ok(None)
        }
        Err(error) => Err(ApiError::internal(format!(
            "failed calling webhook {:?}: failed to call webhook: {error}",
            hook.name
        ))),
    }
}

/// Whether the webhook's conditions hold; one that cannot be evaluated counts as the webhook's failure.
fn concerns(hook: &Hook, review: &Value) -> ApiResult<bool> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let request = &review["request"];
    let variables = [
        ("object", &request["object"]),
        ("oldObject", &request["oldObject"]),
        ("request", request),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.clone()));
    let expressions = hook.conditions.iter().map(String::as_str);
    match local_schema::conditions::all_hold(expressions, &variables.into_iter().collect()) {
        Ok(holds) => Ok(holds),
        Err(error) if hook.ignores_failure => {
            tracing::warn!(webhook = %hook.name, error, "a webhook's condition failed and is ignored");
            Ok(false)
        }
        Err(error) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!(
                "admission webhook {:?}: match condition: {error}",
                hook.name
            ),
            None,
        )),
    }
}

fn denied(hook: &Hook, status: &Value) -> ApiError {
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let code = code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|code| code.as_u16() >= 400);
    let code = code.unwrap_or(StatusCode::FORBIDDEN);
    let text = status["message"].as_str().filter(|text| !text.is_empty());
    let reason = status["reason"].as_str().unwrap_or_default();
    let message = match text {
        Some(text) => format!(
            "admission webhook {:?} denied the request: {text}",
            hook.name
        ),
        None if !reason.is_empty() => format!(
            "admission webhook {:?} denied the request: {reason}",
            hook.name
        ),
        None => format!(
            "admission webhook {:?} denied the request without explanation",
            hook.name
        ),
    };
    let reason = if reason.is_empty() && code == StatusCode::FORBIDDEN {
        "Forbidden"
    } else {
        reason
    };
    ApiError::new(code, reason, message, status.get("details").cloned())
}

fn review(
    attributes: &Attributes<'_>,
    uid: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Value {
    let call = attributes.call;
    let served = &call.served;
    let version = served.version().name.as_ref();
    let kind = json!({"group": *served.group, "version": version, "kind": *served.kind});
    let resource = json!({"group": *served.group, "version": version, "resource": *served.plural});
    let (operation, options) = match attributes.operation {
        Operation::Create => ("CREATE", "CreateOptions"),
        Operation::Update => ("UPDATE", "UpdateOptions"),
        Operation::Delete => ("DELETE", "DeleteOptions"),
    };
    let old = old.map(|old| {
        let mut shown = old.clone();
        served.to_served(&mut shown);
        shown
    });
    let mut user = json!({"username": call.user.name, "groups": call.user.groups});
    if !call.user.uid.is_empty() {
        user["uid"] = call.user.uid.as_str().into();
    }
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": attributes.name, "operation": operation, "userInfo": user,
        "object": object, "oldObject": old, "dryRun": attributes.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    });
    if !call.namespace.is_empty() {
        request["namespace"] = call.namespace.as_str().into();
    }
    if !call.subresource.is_empty() {
        request["subResource"] = call.subresource.as_str().into();
        request["requestSubResource"] = call.subresource.as_str().into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

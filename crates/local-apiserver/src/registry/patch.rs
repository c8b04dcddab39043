//! patch: JSON patch, merge patch, strategic merge patch and server-side apply.

use super::context::{Call, Reply};
use super::decode::{self, Expected};
use super::options::WriteOptions;
use super::update::{check_name, read_modify_write};
use super::{create, metadata};
use crate::schema::{self, Manager};
use crate::status::{ApiError, ApiResult};
use serde_json::Value;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Operations in one JSON patch.
const JSON_PATCH_OPERATIONS: usize = 10_000;

/// PATCH on an object or a subresource that shows the object.
pub async fn patch(call: &Call) -> ApiResult<Reply> {
    let kind = check_type(call)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions", kind == APPLY_PATCH)?;
    if kind == APPLY_PATCH {
        return apply(call, &options).await;
    }
    let document = parse(call, kind)?;
    let manager = Manager::patch(call, &options, &call.subresource);
    read_modify_write(call, &options, &manager, |live| {
        let patched = patched(call, kind, &document, live)?;
        decoded(call, &options, patched)
    })
    .await
}

/// The media type, when it is one that this resource takes.
pub fn check_type(call: &Call) -> ApiResult<&'static str> {
    let custom = call.served.is_custom();
    match call.content_type.as_str() {
        JSON_PATCH => Ok(JSON_PATCH),
        MERGE_PATCH => Ok(MERGE_PATCH),
        STRATEGIC_PATCH if !custom => Ok(STRATEGIC_PATCH),
        APPLY_PATCH => Ok(APPLY_PATCH),
        _ => Err(ApiError::unsupported_media_type(if custom {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        })),
    }
}

/// The patch document.
pub fn parse(call: &Call, kind: &str) -> ApiResult<Value> {
    let (document, duplicates) = schema::parse_json(&call.body).map_err(|error| {
        ApiError::bad_request(match kind {
            JSON_PATCH => format!("error decoding patch: {error}"),
            _ => error,
        })
    })?;
    for duplicate in duplicates {
        call.warn(duplicate);
    }
    if kind == JSON_PATCH {
        let operations = document.as_array().map_or(0, Vec::len);
        if operations > JSON_PATCH_OPERATIONS {
            return Err(ApiError::too_large(format!(
                "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS}, got {operations}"
            )));
        }
    }
    Ok(document)
}

/// `live` after the patch.
pub fn patched(call: &Call, kind: &str, document: &Value, live: &Value) -> ApiResult<Value> {
    let expected = Expected::of(&call.served);
    apply_document(call, &expected, kind, document, live)
}

/// The same for any kind.
pub fn apply_document(
    call: &Call,
    expected: &Expected<'_>,
    kind: &str,
    document: &Value,
    live: &Value,
) -> ApiResult<Value> {
    match kind {
        JSON_PATCH => schema::json_patch(live, document),
        MERGE_PATCH => schema::merge_patch(live, document),
        _ => schema::strategic_patch(call, expected, live, document),
    }
}

/// Checks and defaults the outcome of a patch as if it had been sent.
fn decoded(call: &Call, options: &WriteOptions, mut patched: Value) -> ApiResult<Value> {
    let expected = Expected::of(&call.served);
    if !patched.is_object() {
        return Err(ApiError::bad_request("the patched object is not an object"));
    }
    if patched["kind"] != expected.kind || patched["apiVersion"] != expected.api_version {
        check_kind(call, &patched)?;
    }
    let found = schema::check_fields(call, &expected, &mut patched).map_err(|error| {
        ApiError::bad_request(format!("failed to create typed patch object: {error}"))
    })?;
    decode::report(call, &expected, options.field_validation, found)?;
    check_name(call, &patched)?;
    metadata::match_namespace(call, &mut patched)?;
    schema::default(&call.served, &mut patched);
    Ok(patched)
}

fn check_kind(call: &Call, patched: &Value) -> ApiResult<()> {
    let kind = patched["kind"].as_str().unwrap_or_default();
    let version = patched["apiVersion"].as_str().unwrap_or_default();
    let wanted = call.served.kind.as_ref();
    if kind == wanted && version == call.served.api_version().as_ref() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:110\""
    )))
}

/// Server-side apply.
async fn apply(call: &Call, options: &WriteOptions) -> ApiResult<Reply> {
    let expected = Expected::of(&call.served);
    let (mut document, _) = schema::parse_yaml(&call.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    if !document.is_object() {
        return Err(ApiError::bad_request(
            "error decoding YAML: the patch is not an object",
        ));
    }
    let found = schema::check_fields(call, &expected, &mut document)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    decode::report(call, &expected, options.field_validation, found)?;
    check_applied(call, &document)?;
    let manager = Manager::apply(call, options, &call.subresource);
    if call
        .core
        .store
        .get(&call.served.storage_id, &call.key())
        .is_none()
    {
        if !call.subresource.is_empty() {
            return Err(call.not_found());
        }
        let mut object = schema::apply(call, &manager, None, &document)?;
        metadata::match_namespace(call, &mut object)?;
        schema::default(&call.served, &mut object);
        return create::create_object(call, options, object, manager).await;
    }
    read_modify_write(call, options, &manager, |live| {
        let mut applied = schema::apply(call, &manager, Some(live), &document)?;
        metadata::match_namespace(call, &mut applied)?;
        schema::default(&call.served, &mut applied);
        Ok(applied)
    })
    .await
}

fn check_applied(call: &Call, document: &Value) -> ApiResult<()> {
    if document["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = metadata::text(document, "name");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let namespace = metadata::text(document, "namespace");
    if call.served.namespaced && !namespace.is_empty() && namespace != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

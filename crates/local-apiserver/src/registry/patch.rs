//! patch: JSON patch, merge patch, strategic merge patch and server-side apply.

use super::context::{Call, Reply};
use super::decode::{self, Expected};
use super::options::{FieldValidation, WriteOptions};
use super::update::{check_name, read_modify_write};
use super::{create, metadata};
use crate::schema::{self, Manager};
use crate::status::{ApiError, ApiResult};
use local_schema::PatchKind;
use serde_json::Value;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// PATCH on an object or a subresource that shows the object.
pub async fn patch(call: &Call) -> ApiResult<Reply> {
    let kind = check_type(call)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions", kind == APPLY_PATCH)?;
    if kind == APPLY_PATCH {
        return apply(call, &options).await;
    }
    let manager = Manager::patch(call, &options, &call.subresource);
    let expected = Expected::of(&call.served);
    read_modify_write(call, &options, &manager, |live| {
        let patched = apply_body(call, &expected, kind, live, options.field_validation)?;
        decoded(call, patched)
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
        _ => Err(unsupported(if custom {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        })),
    }
}

/// 415 as the patch handler words it: with empty details.
fn unsupported(accepted: &str) -> ApiError {
    let mut error = ApiError::unsupported_media_type(accepted);
    error.body["details"] = serde_json::json!({});
    error
}

/// `live` after the patch in the body.
pub fn apply_body(
    call: &Call,
    expected: &Expected<'_>,
    media_type: &str,
    live: &Value,
    validation: FieldValidation,
) -> ApiResult<Value> {
    let kind = match media_type {
        JSON_PATCH => PatchKind::Json,
        MERGE_PATCH => PatchKind::Merge,
        _ => PatchKind::Strategic,
    };
    let mut patched = schema::patch(call, expected, kind, live, &call.body)?;
    if expected.custom {
        let (object, problems) =
            schema::decode_tree(call, expected, patched.object).map_err(ApiError::bad_request)?;
        patched.object = object;
        patched.problems.extend(problems);
    }
    match validation {
        FieldValidation::Strict => {
            if let Some(error) = patched.strict_error() {
                return Err(schema::patch_error(error));
            }
        }
        FieldValidation::Warn => patched
            .problems
            .iter()
            .for_each(|problem| call.warn(problem.as_str())),
        FieldValidation::Ignore => {}
    }
    Ok(patched.object)
}

/// Checks and defaults the outcome of a patch as if it had been sent.
fn decoded(call: &Call, mut patched: Value) -> ApiResult<Value> {
    check_name(call, &patched)?;
    check_kind(call, &patched)?;
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
    let (document, duplicates) = schema::parse_yaml(&call.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    if !document.is_object() {
        return Err(ApiError::bad_request(
            "error decoding YAML: the patch is not an object",
        ));
    }
    decode::report(call, &expected, options.field_validation, duplicates)?;
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
        // A configuration may carry the revision it was read at; here there is nothing to compare it with.
        metadata::of(&mut object).remove("resourceVersion");
        metadata::match_namespace(call, &mut object)?;
        schema::default(&call.served, &mut object);
        return create::create_object(call, options, object, manager).await;
    }
    read_modify_write(call, options, &manager, |live| {
        let mut applied = schema::apply(call, &manager, Some(live), &document)?;
        for field in ["uid", "resourceVersion"] {
            if let Some(given) = document["metadata"]
                .get(field)
                .filter(|given| given.is_string())
            {
                metadata::of(&mut applied).insert(field.into(), given.clone());
            }
        }
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

//! The scale subresource of whatever kind has one.

use super::context::{Call, Reply};
use super::decode::{self, Expected};
use super::options::WriteOptions;
use super::selectors::selector_text;
use super::update::{live_view, read_modify_write};
use super::{metadata, patch};
use crate::schema::{self, Manager};
use crate::status::{ApiError, ApiResult};
use local_schema::FieldError;
use serde_json::{Value, json};

const EXPECTED: Expected<'static> = Expected {
    api_version: "autoscaling/v1",
    kind: "Scale",
    custom: false,
};

/// JSON pointers to the numbers of a kind.
struct Paths {
    spec: String,
    status: String,
    selector: String,
}

fn paths(call: &Call) -> ApiResult<Paths> {
    if let Some(scale) = call
        .served
        .custom()
        .and_then(|custom| custom.scale.as_ref())
    {
        return Ok(Paths {
            spec: scale.spec_replicas.clone(),
            status: scale.status_replicas.clone(),
            selector: scale.selector.clone(),
        });
    }
    let paths = call
        .served
        .rules
        .scale_paths()
        .ok_or_else(ApiError::no_resource)?;
    Ok(Paths {
        spec: paths.spec_replicas.to_string(),
        status: paths.status_replicas.to_string(),
        selector: paths.selector.to_string(),
    })
}

/// The Scale of an object in the served version.
fn scale_of(paths: &Paths, live: &Value) -> Value {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut meta = serde_json::Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = live["metadata"].get(field) {
            meta.insert(field.into(), value.clone());
        }
    }
    let mut spec = json!({});
    if number(&paths.spec) != 0 {
        spec["replicas"] = number(&paths.spec).into();
    }
    let mut status = json!({"replicas": number(&paths.status)});
    // An empty pointer would be the whole object: this kind shows no selector.
    let found = if paths.selector.is_empty() {
        None
    } else {
        live.pointer(&paths.selector)
    };
    let selector = match found {
        Some(Value::String(text)) => text.clone(),
        Some(object @ Value::Object(fields))
            if fields.contains_key("matchLabels") || fields.contains_key("matchExpressions") =>
        {
            selector_text(object)
        }
        Some(Value::Object(fields)) => {
            let pairs: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            pairs.join(",")
        }
        _ => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": meta, "spec": spec, "status": status,
    })
}

/// GET.
pub fn get(call: &Call) -> ApiResult<Reply> {
    let paths = paths(call)?;
    let live = live_view(call, &*call.existing()?);
    if call.served.is_custom() && live.pointer(&paths.spec).is_none() {
        let path = paths.spec.replace('/', ".");
        return Err(ApiError::internal(format!(
            "the spec replicas field {path:?} does not exist"
        )));
    }
    Ok(Reply::tree(scale_of(&paths, &live)))
}

/// PUT.
pub async fn update(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let wanted = decode::decode(call, &EXPECTED, options.field_validation)?;
    super::update::check_name(call, &wanted)?;
    let manager = Manager::update(call, &options, "scale");
    write(call, &options, &manager, |_| Ok(wanted.clone())).await
}

/// PATCH.
pub async fn patch_scale(call: &Call) -> ApiResult<Reply> {
    let kind = patch::check_type(call)?;
    let apply = kind == "application/apply-patch+yaml";
    let options = WriteOptions::parse(&call.query, "PatchOptions", apply)?;
    let document = if apply {
        schema::parse_yaml(&call.body)
            .map_err(ApiError::bad_request)?
            .0
    } else {
        Value::Null
    };
    let manager = if apply {
        Manager::apply(call, &options, "scale")
    } else {
        Manager::patch(call, &options, "scale")
    };
    write(call, &options, &manager, |scale| {
        if !apply {
            return patch::apply_body(call, &EXPECTED, kind, scale, options.field_validation);
        }
        let (merged, _) =
            schema::decode_tree(call, &EXPECTED, schema::merge_patch(scale, &document))
                .map_err(ApiError::bad_request)?;
        Ok(merged)
    })
    .await
}

async fn write(
    call: &Call,
    options: &WriteOptions,
    manager: &Manager<'_>,
    mut change: impl FnMut(&Value) -> ApiResult<Value>,
) -> ApiResult<Reply> {
    let paths = paths(call)?;
    let reply = read_modify_write(call, options, manager, |live| {
        let scale = change(&scale_of(&paths, live))?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            return Err(negative(call, &paths, replicas));
        }
        let mut new = live.clone();
        set(&mut new, &paths.spec, replicas);
        if manager.apply {
            schema::apply_scale(call, manager, live, &mut new, &paths.spec)?;
        }
        let revision = metadata::text(&scale, "resourceVersion").to_string();
        metadata::of(&mut new).insert("resourceVersion".into(), revision.into());
        if metadata::text(&new, "resourceVersion").is_empty() {
            let stored = live["metadata"]["resourceVersion"].clone();
            metadata::of(&mut new).insert("resourceVersion".into(), stored);
        }
        Ok(new)
    })
    .await?;
    let shown = match reply.payload {
        super::Payload::Stored(stored) => live_view(call, &stored),
        super::Payload::Tree(tree) => tree,
        _ => {
            return Err(ApiError::internal(
                "a scale update answered with something else",
            ));
        }
    };
    Ok(Reply::tree(scale_of(&paths, &shown)))
}

fn negative(call: &Call, paths: &Paths, replicas: i64) -> ApiError {
    let served = &call.served;
    if served.is_custom() {
        let path = paths.spec.replace('/', ".");
        let error = FieldError::invalid(path, replicas, "should be a non-negative integer");
        return ApiError::invalid(&served.group, &served.kind, &call.name, &[error]);
    }
    let error = FieldError::invalid(
        "spec.replicas",
        replicas,
        "must be greater than or equal to 0",
    );
    ApiError::invalid("autoscaling", "Scale", &call.name, &[error])
}

/// Sets a number at a JSON pointer, making objects on the way.
fn set(object: &mut Value, pointer: &str, number: i64) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = number.into();
}

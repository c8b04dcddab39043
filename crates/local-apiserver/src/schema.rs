//! The one door to `local_schema`: decoding, patches, field ownership, defaults and validation of one object.

use crate::registry::Served;
use crate::registry::context::Call;
use crate::registry::decode::Expected;
use crate::registry::options::WriteOptions;
use crate::status::{ApiError, ApiResult};
use local_schema::managed_fields::{self, Actor, ApplyError, ApplyOptions};
use local_schema::{FieldError, PatchError, PatchKind, Patched, TypeRef, decode, protobuf};
use serde_json::{Value, json};

/// Who writes and how, for field ownership.
pub struct Manager<'a> {
    /// The name.
    pub name: String,
    /// True for server-side apply.
    pub apply: bool,
    /// Take over conflicting fields.
    pub force: bool,
    /// True when a lost race is tried again even where the wanted object carries a resourceVersion.
    retry: bool,
    /// The subresource written through.
    pub subresource: &'a str,
}

fn manager_name(call: &Call, options: &WriteOptions) -> String {
    if options.field_manager.is_empty() {
        call.agent.clone()
    } else {
        options.field_manager.clone()
    }
}

impl<'a> Manager<'a> {
    /// For POST and PUT.
    pub fn update(call: &Call, options: &WriteOptions, subresource: &'a str) -> Self {
        Self {
            name: manager_name(call, options),
            apply: false,
            force: false,
            retry: false,
            subresource,
        }
    }

    /// For patches other than apply.
    pub fn patch(call: &Call, options: &WriteOptions, subresource: &'a str) -> Self {
        Self {
            retry: true,
            ..Self::update(call, options, subresource)
        }
    }

    /// For server-side apply.
    pub fn apply(call: &Call, options: &WriteOptions, subresource: &'a str) -> Self {
        Self {
            apply: true,
            force: options.force,
            ..Self::patch(call, options, subresource)
        }
    }

    /// True when ownership follows from comparing with the stored object.
    pub fn is_update(&self) -> bool {
        !self.apply
    }

    /// True when a lost race is tried again.
    pub fn retries(&self) -> bool {
        self.retry
    }
}

/// JSON text, with sentences about duplicate fields.
pub fn parse_json(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    match decode::parse(body) {
        Ok(parsed) => Ok((parsed.object, parsed.problems)),
        Err(error) => Err(error.to_string()),
    }
}

/// YAML text, with sentences about duplicate fields.
pub fn parse_yaml(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    if body.first() == Some(&b'{')
        && let Ok(parsed) = parse_json(body)
    {
        return Ok(parsed);
    }
    serde_yaml::from_slice::<Value>(body)
        .map(|tree| (tree, Vec::new()))
        .map_err(|error| error.to_string())
}

/// Kubernetes protobuf, read as the given kind where the envelope names none.
pub fn parse_protobuf(body: &[u8], api_version: &str, kind: &str) -> Result<Value, String> {
    protobuf::decode_as(body, api_version, kind).map_err(|error| error.to_string())
}

/// The type of a kind by name; unknown kinds are of deduced type.
pub fn type_of(api_version: &str, kind: &str) -> TypeRef {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    TypeRef::builtin(group, version, kind).unwrap_or_else(TypeRef::deduced)
}

/// The type a body is decoded as.
fn expected_type(call: &Call, expected: &Expected<'_>) -> TypeRef {
    if expected.custom {
        return TypeRef::deduced();
    }
    if expected.kind == call.served.kind.as_ref() {
        return call.served.version().object_type().clone();
    }
    type_of(expected.api_version, expected.kind)
}

/// Decodes JSON text as a kind, with sentences about unknown and duplicate fields; an error is a value of a wrong type.
pub fn decode_text(
    call: &Call,
    expected: &Expected<'_>,
    body: &[u8],
) -> Result<(Value, Vec<String>), String> {
    let decoded = match call.served.custom().filter(|_| expected.custom) {
        Some(custom) => custom.structural.decode(body),
        None => decode::decode(body, &expected_type(call, expected)),
    };
    match decoded {
        Ok(decoded) => Ok((decoded.object, decoded.problems)),
        Err(error) => Err(error.to_string()),
    }
}

/// Decodes a tree as a kind.
pub fn decode_tree(
    call: &Call,
    expected: &Expected<'_>,
    tree: Value,
) -> Result<(Value, Vec<String>), String> {
    let decoded = match call.served.custom().filter(|_| expected.custom) {
        Some(custom) => custom.structural.decode_value(tree),
        None => decode::decode_value(tree, &expected_type(call, expected)),
    };
    match decoded {
        Ok(decoded) => Ok((decoded.object, decoded.problems)),
        Err(error) => Err(error.to_string()),
    }
}

/// Defaults of the served version.
pub fn default(served: &Served, object: &mut Value) {
    match served.custom() {
        Some(custom) => custom.default(object),
        None => served.rules.default(&served.version().name, object),
    }
}

/// Custom resources with a status subresource are created without a status.
pub fn prepare_new(served: &Served, object: &mut Value) {
    if served.is_custom()
        && served.has_status()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
}

/// The kind's own validation.
pub fn validate(served: &Served, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (served.custom(), old) {
        (Some(custom), old) => custom.validate(new, old),
        (None, Some(old)) => served.rules.validate_update(new, old),
        (None, None) => served.rules.validate_create(new),
    }
}

fn actor<'a>(call: &'a Call, manager: &'a Manager<'_>) -> Actor<'a> {
    Actor {
        manager: &manager.name,
        api_version: call.served.api_version(),
        subresource: manager.subresource,
        now: call.now,
    }
}

/// What a write through this endpoint cannot change and does not own.
fn untracked(served: &Served, subresource: &str) -> &'static [&'static [&'static str]] {
    match subresource {
        "status" => &[&["spec"]],
        _ if served.has_status() => &[&["status"]],
        _ => &[],
    }
}

/// Records in `managedFields` what this write changed.
pub fn track(call: &Call, manager: &Manager<'_>, live: Option<&Value>, new: &mut Value) {
    let ignored = untracked(&call.served, manager.subresource);
    let object_type = call.served.version().object_type();
    managed_fields::update(object_type, live, new, &actor(call, manager), ignored);
}

/// Server-side apply on the live object (or on nothing).
pub fn apply(
    call: &Call,
    manager: &Manager<'_>,
    live: Option<&Value>,
    document: &Value,
) -> ApiResult<Value> {
    let options = ApplyOptions {
        force: manager.force,
        ignored: untracked(&call.served, manager.subresource),
    };
    let object_type = call.served.version().object_type();
    managed_fields::apply(object_type, live, document, &actor(call, manager), options)
        .map(|applied| applied.object)
        .map_err(apply_error)
}

/// Ownership of an applied replica count; `new` has the count already, at the JSON pointer `path`.
pub fn apply_scale(
    call: &Call,
    manager: &Manager<'_>,
    live: &Value,
    new: &mut Value,
    path: &str,
) -> ApiResult<()> {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let actor = actor(call, manager);
    managed_fields::apply_scale(live, new, &path, &actor, manager.force).map_err(apply_error)
}

/// A refused apply as an answer.
pub fn apply_error(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Conflicts { message, conflicts } => {
            let causes: Vec<Value> = conflicts
                .iter()
                .map(|one| json!({"reason": "FieldManagerConflict", "message": one.message, "field": one.field}))
                .collect();
            let details = json!({"causes": causes});
            ApiError::new(
                http::StatusCode::CONFLICT,
                "Conflict",
                message,
                Some(details),
            )
        }
        ApplyError::BadRequest(message) => ApiError::bad_request(message),
        ApplyError::Typed(message) => ApiError::plain(message),
    }
}

/// Applies a patch body, and what strict decoding had to say about patch and result.
pub fn patch(
    call: &Call,
    expected: &Expected<'_>,
    kind: PatchKind,
    live: &Value,
    body: &[u8],
) -> ApiResult<Patched> {
    let object_type = expected_type(call, expected);
    local_schema::patch::patch(kind, live.clone(), body, &object_type).map_err(patch_error)
}

/// A refused patch as an answer.
pub fn patch_error(error: PatchError) -> ApiError {
    match error {
        PatchError::BadRequest(message) => ApiError::bad_request(message),
        PatchError::TooLarge(message) => ApiError::too_large(message),
        PatchError::Unprocessable => ApiError::new(
            http::StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "the server rejected our request due to an error in our request",
            Some(serde_json::json!({})),
        ),
        PatchError::Invalid { value, detail } => {
            ApiError::invalid("", "", "", &[FieldError::invalid("patch", value, detail)])
        }
        PatchError::Internal(message) => ApiError::plain(message),
    }
}

/// RFC 7396 on trees.
pub fn merge_patch(live: &Value, document: &Value) -> Value {
    let mut out = live.clone();
    local_schema::patch::merge(&mut out, document.clone());
    out
}

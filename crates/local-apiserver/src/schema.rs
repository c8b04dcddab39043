//! The one door to `local_schema`: decoding, patches, field ownership, defaults and validation of one object.

use crate::registry::Served;
use crate::registry::context::Call;
use crate::registry::decode::Expected;
use crate::registry::options::WriteOptions;
use crate::status::{ApiError, ApiResult};
use local_schema::FieldError;
use serde_json::Value;

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
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("unexpected end of JSON input".into());
    }
    serde_json::from_slice(body)
        .map(|tree| (tree, Vec::new()))
        .map_err(|error| {
            if error.is_eof() {
                "unexpected end of JSON input".to_string()
            } else {
                let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
                let first = first.map_or(' ', |byte| *byte as char);
                format!("invalid character '{first}' looking for beginning of value")
            }
        })
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

/// Kubernetes protobuf.
pub fn parse_protobuf(body: &[u8]) -> Result<Value, String> {
    let _ = body;
    Err(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
            .into(),
    )
}

/// Drops unknown fields and says which; an error is a value of a wrong type.
pub fn check_fields(
    _call: &Call,
    _expected: &Expected<'_>,
    _tree: &mut Value,
) -> Result<Vec<String>, String> {
    Ok(Vec::new())
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

/// Records in `managedFields` what this write changed.
pub fn track(
    _call: &Call,
    _manager: &Manager<'_>,
    _live: Option<&Value>,
    _new: &mut Value,
) -> ApiResult<()> {
    Ok(())
}

/// Server-side apply on the live object (or on nothing).
pub fn apply(
    _call: &Call,
    _manager: &Manager<'_>,
    live: Option<&Value>,
    document: &Value,
) -> ApiResult<Value> {
    match live {
        Some(live) => merge_patch(live, document),
        None => Ok(document.clone()),
    }
}

/// RFC 6902.
pub fn json_patch(_live: &Value, _document: &Value) -> ApiResult<Value> {
    Err(ApiError::internal("JSON patch is not available yet"))
}

/// RFC 7396.
pub fn merge_patch(live: &Value, document: &Value) -> ApiResult<Value> {
    let mut out = live.clone();
    merge(&mut out, document);
    Ok(out)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Strategic merge patch.
pub fn strategic_patch(
    _call: &Call,
    _expected: &Expected<'_>,
    live: &Value,
    document: &Value,
) -> ApiResult<Value> {
    merge_patch(live, document)
}

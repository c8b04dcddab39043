//! Request bodies into object trees: JSON, YAML or protobuf by `Content-Type`, with unknown and duplicate fields reported.

use super::context::Call;
use super::options::FieldValidation;
use super::resource::Served;
use crate::schema;
use crate::status::{ApiError, ApiResult};
use serde_json::Value;

/// Media types of object bodies.
pub const BODY_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// The same for custom resources.
pub const CUSTOM_BODY_TYPES: &str = "application/json, application/yaml";

/// The source line upstream prints for its type registry.
const SCHEME: &str = "pkg/runtime/scheme.go:110";

/// The kind a body must have.
pub struct Expected<'a> {
    /// `apps/v1`
    pub api_version: &'a str,
    /// `Deployment`
    pub kind: &'a str,
    /// Set when the body is a custom resource.
    pub custom: bool,
}

impl<'a> Expected<'a> {
    /// The served kind itself.
    pub fn of(served: &'a Served) -> Self {
        Self {
            api_version: served.api_version(),
            kind: &served.kind,
            custom: served.is_custom(),
        }
    }
}

/// Decodes the body of `call` as the kind in its path.
pub fn object(call: &Call, validation: FieldValidation) -> ApiResult<Value> {
    decode(call, &Expected::of(&call.served), validation)
}

/// Decodes the body of `call` as `expected`.
pub fn decode(
    call: &Call,
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> ApiResult<Value> {
    let wrong_type = |error: String| {
        let (version, kind) = (version_of(expected.api_version), expected.kind);
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"
        ))
    };
    let (mut tree, problems) = match call.content_type.as_str() {
        "" | "application/json" => {
            let (version, kind) = local_schema::decode::type_meta(&call.body)
                .map_err(|error| unrecognized(call, expected, &error.to_string()))?;
            type_meta(&version, &kind, expected, call)?;
            schema::decode_text(call, expected, &call.body).map_err(wrong_type)?
        }
        _ => {
            let (tree, mut duplicates) = syntax(call, expected)?;
            let text = |name: &str| tree[name].as_str().unwrap_or_default().to_string();
            type_meta(&text("apiVersion"), &text("kind"), expected, call)?;
            let (tree, problems) = schema::decode_tree(call, expected, tree).map_err(wrong_type)?;
            duplicates.extend(problems);
            (tree, duplicates)
        }
    };
    tree["kind"] = expected.kind.into();
    tree["apiVersion"] = expected.api_version.into();
    report(call, expected, validation, problems)?;
    Ok(tree)
}

/// Refuses, warns about or forgets unknown and duplicate fields.
pub fn report(
    call: &Call,
    expected: &Expected<'_>,
    validation: FieldValidation,
    found: Vec<String>,
) -> ApiResult<()> {
    if found.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for one in found {
                call.warn(one);
            }
            Ok(())
        }
        FieldValidation::Strict => {
            let list = found.join(", ");
            let kind = expected.kind;
            Err(ApiError::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {list}",
                version_of(expected.api_version)
            )))
        }
    }
}

/// `v1` of `apps/v1`; upstream names the whole group version here for groups.
fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or(api_version)
}

/// Parses what is not JSON; duplicates come back as sentences.
fn syntax(call: &Call, expected: &Expected<'_>) -> ApiResult<(Value, Vec<String>)> {
    match call.content_type.as_str() {
        "application/yaml" => schema::parse_yaml(&call.body)
            .map_err(|error| unrecognized(call, expected, &format!("yaml: {error}"))),
        "application/vnd.kubernetes.protobuf" if !expected.custom => {
            schema::parse_protobuf(&call.body, expected.api_version, expected.kind)
                .map(|tree| (tree, Vec::new()))
                .map_err(|error| unrecognized(call, expected, &error))
        }
        _ => Err(ApiError::unsupported_media_type(if expected.custom {
            CUSTOM_BODY_TYPES
        } else {
            BODY_TYPES
        })),
    }
}

/// Upstream appends the beginning of the body: readable when it is text, else in hexadecimal.
fn unrecognized(call: &Call, expected: &Expected<'_>, why: &str) -> ApiError {
    const SHOWN: usize = 30;
    let body = &call.body[..];
    let shown = if body.is_empty() {
        "<empty>".to_string()
    } else if body.first() == Some(&b'{') && call.content_type != "application/yaml" {
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
        if body.len() > 1024 {
            format!("{text} ...")
        } else {
            text
        }
    } else {
        let hex: String = body
            .iter()
            .take(SHOWN)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if body.len() > SHOWN {
            format!("{hex} ...")
        } else {
            hex
        }
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown})",
        expected.kind
    ))
}

/// Checks `apiVersion` and `kind` where they are given.
fn type_meta(version: &str, kind: &str, expected: &Expected<'_>, call: &Call) -> ApiResult<()> {
    if expected.custom && kind.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Object 'Kind' is missing in '{}'",
            String::from_utf8_lossy(&call.body)
        )));
    }
    if (kind.is_empty() || kind == expected.kind)
        && (version.is_empty() || version == expected.api_version)
    {
        return Ok(());
    }
    let wanted = expected.kind;
    if expected.custom {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    let found_version = if version.is_empty() {
        expected.api_version
    } else {
        version
    };
    let found_kind = if kind.is_empty() { wanted } else { kind };
    let catalog = call.core.catalog();
    let why = if catalog.by_kind(found_version, found_kind).is_some()
        && found_version != expected.api_version
        || catalog.by_kind(found_version, found_kind).is_some()
    {
        if found_version == expected.api_version || found_kind != wanted {
            format!(
                "converting ({}) to ({}): unknown conversion",
                go_type(found_version, found_kind),
                go_internal(expected.api_version, wanted)
            )
        } else {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({found_version}) does not match the expected API version ({})",
                expected.api_version
            )));
        }
    } else if found_kind
        .strip_suffix("List")
        .is_some_and(|item| catalog.by_kind(found_version, item).is_some())
    {
        format!(
            "converting ({}) to ({}): unknown conversion",
            go_type(found_version, found_kind),
            go_internal(expected.api_version, wanted)
        )
    } else {
        format!(
            "no kind \"{found_kind}\" is registered for version \"{found_version}\" in scheme \"{SCHEME}\""
        )
    };
    Err(ApiError::bad_request(format!(
        "{found_kind} in version \"{}\" cannot be handled as a {wanted}: {why}",
        version_of(found_version)
    )))
}

fn go_type(api_version: &str, kind: &str) -> String {
    format!("{}.{kind}", version_of(api_version))
}

fn go_internal(api_version: &str, kind: &str) -> String {
    match api_version.split_once('/') {
        None => format!("core.{kind}"),
        Some((group, _)) => format!("{}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

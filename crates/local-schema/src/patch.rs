//! JSON patch, merge patch and strategic merge patch, with upstream's quirks and upstream's words for what goes wrong.
//!
//! The result is decoded again as its kind, because upstream prunes and refuses there. Server-side apply is not a patch of
//! this kind: see `managed_fields`. It refuses resourceVersion checks, defaults and validation.

mod directives;
mod go_print;
mod json;
mod strategic;

use serde_json::Value;

use crate::decode::{self, DecodeError, Decoded};
use crate::types::TypeRef;

/// Upstream accepts at most so many operations in one JSON patch.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Which kind of patch a body is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// Why a patch was refused; each variant is one kind of answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400 `BadRequest` with this message.
    #[error("{0}")]
    BadRequest(String),
    /// 413 `RequestEntityTooLarge` with this message.
    #[error("{0}")]
    TooLarge(String),
    /// 422 `Invalid`: upstream answers only this sentence, with empty details.
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable,
    /// 422 `Invalid` of no object, with one cause on the field `patch`.
    #[error(" \"\" is invalid: patch: Invalid value: {value:?}: {detail}")]
    Invalid {
        /// The patched object (JSON) or the patch (strategic), as upstream prints it.
        value: String,
        /// What is wrong.
        detail: String,
    },
    /// 500 without a reason, with this message.
    #[error("{0}")]
    Internal(String),
}

/// A patched object and what strict decoding had to say: unknown and duplicate fields of patch and result.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// The object after the patch, decoded as its kind.
    pub object: Value,
    /// As in [`Decoded::problems`].
    pub problems: Vec<String>,
    /// What a 422 about these problems shows as the value of `patch`; made when there are some, or when the type knows nothing.
    pub shown: String,
}

impl Patched {
    /// The refusal of strict field validation, when there are problems.
    pub fn strict_error(&self) -> Option<PatchError> {
        if self.problems.is_empty() {
            return None;
        }
        Some(PatchError::Invalid {
            value: self.shown.clone(),
            detail: format!("strict decoding error: {}", self.problems.join(", ")),
        })
    }
}

/// Applies a patch body to an object of a kind. Custom resources pass [`TypeRef::deduced`] here and prune afterwards.
pub fn patch(
    kind: PatchKind,
    object: Value,
    body: &[u8],
    object_type: &TypeRef,
) -> Result<Patched, PatchError> {
    match kind {
        PatchKind::Json => {
            let parsed = parse(body, "error decoding patch: ")?;
            let operations = json::operations(parsed.object)?;
            let object = json::apply(object, operations)?;
            finish_json(object, parsed.problems, object_type)
        }
        PatchKind::Merge => {
            let parsed = parse(body, "error decoding patch: ")?;
            if parsed.object.is_null() {
                return Err(PatchError::BadRequest("Invalid JSON Patch".to_string()));
            }
            let patch = as_object(parsed.object, "error decoding patch: ")?;
            let mut object = object;
            merge(&mut object, patch);
            finish_json(object, parsed.problems, object_type)
        }
        PatchKind::Strategic => {
            let parsed = parse(body, "")?;
            // A null patch is an empty one.
            let patch = match parsed.object {
                Value::Null => Value::Object(serde_json::Map::new()),
                other => as_object(other, "")?,
            };
            let shown = go_print::print(&patch);
            let merged = strategic::merge(object, patch, object_type.walk())?;
            match decode::decode_unstructured(merged, object_type) {
                Ok(decoded) => Ok(finish(decoded, parsed.problems, || shown)),
                Err(error) => Err(PatchError::Invalid {
                    value: shown,
                    detail: error.to_string(),
                }),
            }
        }
    }
}

/// RFC 7396: objects merge, null removes, everything else replaces.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn parse(body: &[u8], prefix: &str) -> Result<Decoded, PatchError> {
    decode::parse(body).map_err(|error| PatchError::BadRequest(format!("{prefix}{error}")))
}

fn as_object(value: Value, prefix: &str) -> Result<Value, PatchError> {
    if value.is_object() {
        return Ok(value);
    }
    let found = decode::go_kind(&value);
    Err(PatchError::BadRequest(format!(
        "{prefix}json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    )))
}

fn finish_json(
    object: Value,
    patch_problems: Vec<String>,
    object_type: &TypeRef,
) -> Result<Patched, PatchError> {
    match decode::decode_borrowed(&object, object_type) {
        Ok(decoded) => {
            let mut patched = finish(decoded, patch_problems, || object.to_string());
            if patched.shown.is_empty() && object_type.is_deduced() {
                // Callers prune custom resources afterwards and may find problems then.
                patched.shown = object.to_string();
            }
            Ok(patched)
        }
        Err(DecodeError::Type(detail) | DecodeError::Syntax(detail)) => Err(PatchError::Invalid {
            value: object.to_string(),
            detail,
        }),
    }
}

fn finish(decoded: Decoded, mut problems: Vec<String>, shown: impl FnOnce() -> String) -> Patched {
    problems.extend(decoded.problems);
    let shown = if problems.is_empty() {
        String::new()
    } else {
        shown()
    };
    Patched {
        object: decoded.object,
        problems,
        shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::type_of;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_that_is_no_object_is_refused_in_gos_words() {
        let refuse = |kind, body: &[u8]| {
            patch(kind, json!({}), body, &TypeRef::deduced())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refuse(PatchKind::Merge, b"[]"),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert_eq!(
            refuse(PatchKind::Merge, b"{"),
            "error decoding patch: unexpected end of JSON input"
        );
        assert_eq!(
            refuse(PatchKind::Strategic, b"[]"),
            "json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }

    #[test]
    fn problems_of_patch_and_result_are_reported_together() {
        let deployment = type_of("apps", "v1", "Deployment").unwrap();
        let body = br#"{"spec":{"replicas":0,"replicas":1,"nope":1}}"#;
        let patched = patch(PatchKind::Strategic, json!({"spec": {}}), body, &deployment).unwrap();
        assert_eq!(
            patched.problems,
            [
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.nope\""
            ]
        );
        assert_eq!(patched.shown, "map[spec:map[nope:1 replicas:1]]");
        assert_eq!(patched.object["spec"]["replicas"], 1);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i8>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::btree_map("[a-d$]", inner.clone(), 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
                prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_twice_changes_nothing_more(target in tree(), patch in tree()) {
            let mut once = target;
            merge(&mut once, patch.clone());
            let mut twice = once.clone();
            merge(&mut twice, patch);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn no_patch_panics(target in tree(), body in tree()) {
            let deployment = type_of("apps", "v1", "Deployment").unwrap();
            for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
                let _ = patch(kind, target.clone(), body.to_string().as_bytes(), &deployment);
            }
        }
    }
}

//! Strict decoding: JSON text or a JSON tree into the tree that Go's types would print again.
//!
//! Unknown and duplicate fields are reported and left out, wrong types refused in Go's words, nulls and empty values treated
//! as Go's `omitempty` does, quantities and times brought into canonical form. It refuses defaults and validation.

mod scalar;
mod seed;
mod syntax;
pub mod zero;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::types::TypeRef;
use seed::{Context, Seed};

pub use zero::normalize;

/// Why a body could not be decoded at all; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value does not fit its field.
    #[error("{0}")]
    Type(String),
}

/// A decoded object and what strict decoding had to say about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The object, unknown fields left out.
    pub object: Value,
    /// `unknown field "spec.x"`, `duplicate field "spec.y"`, in the order in which they stand.
    pub problems: Vec<String>,
}

/// Decodes JSON text as a kind.
pub fn decode(text: &[u8], kind: &TypeRef) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut context = Context::default();
    let seed = Seed::new(kind.walk(), &mut context);
    let result = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match result {
        Ok(value) => finish(value, context),
        Err(error) => Err(DecodeError::Syntax(syntax::explain(text, &error))),
    }
}

/// Decodes a JSON tree (from YAML, protobuf or a patch) as a kind.
pub fn decode_value(value: Value, kind: &TypeRef) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    let seed = Seed::new(kind.walk(), &mut context);
    match seed.deserialize(value) {
        Ok(value) => finish(value, context),
        Err(error) => Err(DecodeError::Syntax(error.to_string())),
    }
}

/// As [`decode_value`], leaving the tree alone.
pub(crate) fn decode_borrowed(value: &Value, kind: &TypeRef) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    let seed = Seed::new(kind.walk(), &mut context);
    match seed.deserialize(value) {
        Ok(value) => finish(value, context),
        Err(error) => Err(DecodeError::Syntax(error.to_string())),
    }
}

/// Like [`decode_value`], with the words of upstream's converter from unstructured trees (strategic merge patches).
pub(crate) fn decode_unstructured(value: Value, kind: &TypeRef) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    context.unstructured = true;
    let seed = Seed::new(kind.walk(), &mut context);
    match seed.deserialize(value) {
        Ok(value) => finish(value, context),
        Err(error) => Err(DecodeError::Syntax(error.to_string())),
    }
}

fn finish(value: Option<Value>, context: Context<'_>) -> Result<Decoded, DecodeError> {
    match context.error {
        Some(error) => Err(DecodeError::Type(error)),
        None => Ok(Decoded {
            object: value.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            problems: context.problems,
        }),
    }
}

/// Parses JSON text of which nothing is known; later duplicates win and are reported by path.
pub fn parse(text: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut context = Context::default();
    let result = seed::Loose::new(&mut context)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match result {
        Ok(object) => Ok(Decoded {
            object,
            problems: context.problems,
        }),
        Err(error) => Err(DecodeError::Syntax(syntax::explain(text, &error))),
    }
}

/// `apiVersion` and `kind` of a body; both empty when absent. The error text is that of upstream's recognizer.
pub fn type_meta(text: &[u8]) -> Result<(String, String), DecodeError> {
    const GO_TYPE: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let refuse = |reason: String| {
        DecodeError::Syntax(format!(
            "couldn't get version/kind; json parse error: {reason}"
        ))
    };
    let value: Value =
        serde_json::from_slice(text).map_err(|error| refuse(syntax::explain(text, &error)))?;
    let Value::Object(fields) = value else {
        return match value {
            Value::Null => Ok((String::new(), String::new())),
            other => Err(refuse(format!(
                "json: cannot unmarshal {} into Go value of type {GO_TYPE}",
                go_kind(&other)
            ))),
        };
    };
    let read = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(refuse(format!(
            "json: cannot unmarshal {} into Go struct field .{name} of type string",
            go_kind(other)
        ))),
    };
    Ok((read("apiVersion")?, read("kind")?))
}

/// What Go's decoder calls a JSON value.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::type_of;
    use serde_json::json;

    fn deployment(text: &str) -> Result<Decoded, DecodeError> {
        decode(
            text.as_bytes(),
            &type_of("apps", "v1", "Deployment").unwrap(),
        )
    }

    #[test]
    fn unknown_and_duplicate_fields_are_named_in_order_and_left_out() {
        let text = r#"{"spec":{"replicas":1,"replicas":2,"nope":1,"template":{"spec":{"containers":[{"name":"a","x":1}]}}},"top":1}"#;
        let decoded = deployment(text).unwrap();
        assert_eq!(
            decoded.problems,
            [
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.nope\"",
                "unknown field \"spec.template.spec.containers[0].x\"",
                "unknown field \"top\"",
            ]
        );
        assert_eq!(decoded.object["spec"]["replicas"], 2);
        assert!(decoded.object.get("top").is_none());
    }

    #[test]
    fn wrong_types_are_refused_in_gos_words() {
        for (text, message) in [
            (
                r#"{"spec":{"replicas":"3"}}"#,
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":1.5}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                r#"{"metadata":{"labels":[]}}"#,
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
        ] {
            assert_eq!(
                deployment(text),
                Err(DecodeError::Type(message.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn empty_values_are_written_as_go_writes_them() {
        let decoded = deployment(
            r#"{"spec":{"replicas":0,"minReadySeconds":0,"paused":false,"selector":{},"template":{"metadata":{"creationTimestamp":null,"labels":{}},"spec":{"containers":[{"name":"c","env":[]}],"hostNetwork":false}}}}"#,
        )
        .unwrap();
        assert_eq!(
            decoded.object,
            json!({"metadata": {}, "spec": {"replicas": 0, "selector": {}, "strategy": {}, "template":
                {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}}}, "status": {}})
        );
    }

    #[test]
    fn quantities_and_times_become_canonical() {
        let pod = type_of("", "v1", "Pod").unwrap();
        let decoded = decode(
            br#"{"metadata":{"creationTimestamp":"2026-11-21T12:00:00.5+01:00"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1000m","memory":1024}}}]}}"#,
            &pod,
        )
        .unwrap();
        assert_eq!(
            decoded.object["metadata"]["creationTimestamp"],
            "2026-11-21T11:00:00Z"
        );
        assert_eq!(
            decoded.object["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "1", "memory": "1024"})
        );
    }

    #[test]
    fn the_recognizer_words_its_refusals_as_upstream() {
        let text = type_meta(br#"{"apiVersion":"v1""#).unwrap_err().to_string();
        assert_eq!(
            text,
            "couldn't get version/kind; json parse error: unexpected end of JSON input"
        );
        let text = type_meta(b"xyz").unwrap_err().to_string();
        assert_eq!(
            text,
            "couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value"
        );
        assert!(
            type_meta(b"[]")
                .unwrap_err()
                .to_string()
                .contains("cannot unmarshal array into Go value of type struct")
        );
        assert_eq!(type_meta(b"null").unwrap(), (String::new(), String::new()));
    }
}

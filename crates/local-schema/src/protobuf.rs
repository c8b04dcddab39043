//! Kubernetes' protobuf request bodies as JSON trees, driven by a committed table of messages.
//!
//! Go embeds are nested on the wire and flat in JSON; times, quantities, raw extensions and a few unions have forms of their
//! own. What comes out is not yet decoded strictly: callers pass it through `decode::decode_value`. It refuses encoding.

mod table;
mod value;
mod wire;

use serde_json::{Map, Value};

use wire::{Reader, Wire};

/// What every protobuf body starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";
/// The content type of these bodies.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// Messages nested deeper are refused.
const MAX_DEPTH: usize = 64;

/// Why a body cannot be read; the texts of the first two are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The magic bytes are missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoPrefix,
    /// The wire format is broken.
    #[error("proto: {message}: {reason}")]
    Wire {
        /// The message being read, `Unknown` for the envelope.
        message: String,
        /// What is wrong.
        reason: String,
    },
    /// The envelope names a kind without a table entry.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// `apps/v1`
        api_version: String,
        /// `Deployment`
        kind: String,
    },
    /// A raw extension inside holds no JSON.
    #[error("raw extension holds no JSON: {0}")]
    Raw(String),
}

/// The envelope around an object.
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
    content_type: String,
}

/// Whether a body is in this format.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(&MAGIC)
}

/// `apiVersion` and `kind` of a body.
pub fn type_meta(body: &[u8]) -> Result<(String, String), ProtobufError> {
    envelope(body).map(|envelope| (envelope.api_version, envelope.kind))
}

/// Decodes a body; `apiVersion` and `kind` come from its envelope.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = envelope(body)?;
    decode_envelope(envelope, None)
}

/// As [`decode`]; an envelope that names no kind is read as the given one.
pub fn decode_as(body: &[u8], api_version: &str, kind: &str) -> Result<Value, ProtobufError> {
    let envelope = envelope(body)?;
    decode_envelope(envelope, Some((api_version, kind)))
}

fn decode_envelope(
    envelope: Envelope<'_>,
    default: Option<(&str, &str)>,
) -> Result<Value, ProtobufError> {
    let Envelope {
        mut api_version,
        mut kind,
        raw,
        content_type,
    } = envelope;
    if let Some((version, name)) = default {
        if api_version.is_empty() {
            api_version = version.to_string();
        }
        if kind.is_empty() {
            kind = name.to_string();
        }
    }
    let mut object = if content_type == "application/json" {
        match serde_json::from_slice(raw) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(ProtobufError::Raw("not an object".to_string())),
            Err(error) => return Err(ProtobufError::Raw(error.to_string())),
        }
    } else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let Some(message) = table::kind(group, version, &kind) else {
            return Err(ProtobufError::UnknownKind { api_version, kind });
        };
        let mut object = Map::new();
        value::message(message, raw, &mut object, 0)?;
        object
    };
    for (name, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() {
            object.insert(name.to_string(), text.into());
        }
    }
    Ok(Value::Object(object))
}

fn envelope(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let rest = body.strip_prefix(&MAGIC).ok_or(ProtobufError::NoPrefix)?;
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
        content_type: String::new(),
    };
    let mut reader = Reader::new(rest, "Unknown");
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut meta = Reader::new(bytes, "TypeMeta");
                while let Some((number, wire)) = meta.field()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => envelope.api_version = meta.text(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = meta.text(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
            (4, Wire::Bytes(text)) => envelope.content_type = reader.text(text)?,
            _ => {}
        }
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_bodies_are_refused_in_upstreams_words() {
        assert_eq!(
            decode(b"xyz").unwrap_err().to_string(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        );
        assert_eq!(
            decode(b"k8s\0\x01\x02").unwrap_err().to_string(),
            "proto: Unknown: illegal tag 0 (wire type 1)"
        );
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let mut body = MAGIC.to_vec();
        body.extend([0x0a, 0x08, 0x0a, 0x02, b'v', b'1', 0x12, 0x02, b'N', b'o']);
        assert_eq!(
            decode(&body).unwrap_err().to_string(),
            "no kind \"No\" is registered for version \"v1\""
        );
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = MAGIC.to_vec();
            body.extend([0x0a, 0x0d, 0x0a, 0x02, b'v', b'1', 0x12, 0x03, b'P', b'o', b'd', 0x1a, 0x02, b'x', b'y']);
            body.extend(&bytes);
            let _ = decode(&body);
            let mut raw = MAGIC.to_vec();
            raw.extend([0x0a, 0x09, 0x0a, 0x02, b'v', b'1', 0x12, 0x03, b'P', b'o', b'd', 0x12]);
            raw.push(u8::try_from(bytes.len().min(127)).unwrap());
            raw.extend(bytes.iter().take(127));
            let _ = decode(&raw);
        }
    }
}

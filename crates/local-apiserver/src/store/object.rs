//! One revision of one object: its tree and its JSON text, made once.

use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// One revision of one object.
#[derive(Debug)]
pub struct StoredObject {
    /// The revision of the write that made it.
    pub revision: u64,
    /// The whole object in its storage version.
    pub tree: Arc<Value>,
    /// Its JSON text without `apiVersion` and `kind`, which differ by served version.
    pub bare: Bytes,
}

impl StoredObject {
    /// JSON text with the given type, made by copying, not by serialising.
    pub fn text(&self, api_version: &str, kind: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bare.len() + api_version.len() + kind.len() + 40);
        self.write_text(api_version, kind, &mut out);
        out
    }

    /// [`StoredObject::text`] on to the end of `out`.
    pub fn write_text(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"apiVersion\":\"");
        out.extend_from_slice(api_version.as_bytes());
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        if self.bare.len() > 2 {
            out.push(b',');
        }
        out.extend_from_slice(&self.bare[1..]);
    }

    /// Reads what [`StoredObject::text`] wrote to disk.
    pub fn from_disk(revision: u64, text: &[u8]) -> Result<Self, serde_json::Error> {
        let tree: Value = serde_json::from_slice(text)?;
        Ok(Prepared::new(tree).finish(revision))
    }
}

/// An object that was serialised but has no revision yet; the text has a gap for it.
pub struct Prepared {
    tree: Value,
    text: Vec<u8>,
    gap: usize,
}

impl Prepared {
    /// Serialises; the expensive half, done by the caller and not by the writer.
    pub fn new(tree: Value) -> Self {
        let mut text = Vec::with_capacity(1024);
        let mut gap = 0;
        text.push(b'{');
        if let Value::Object(fields) = &tree {
            let mut seen_metadata = false;
            for (name, value) in fields {
                if name == "apiVersion" || name == "kind" {
                    continue;
                }
                if !seen_metadata && name.as_str() >= "metadata" {
                    seen_metadata = true;
                    let metadata = if name == "metadata" {
                        Some(value)
                    } else {
                        None
                    };
                    separate(&mut text);
                    gap = write_metadata(&mut text, metadata);
                    if metadata.is_some() {
                        continue;
                    }
                }
                separate(&mut text);
                write_json(&mut text, name);
                text.push(b':');
                write_json(&mut text, value);
            }
            if !seen_metadata {
                separate(&mut text);
                gap = write_metadata(&mut text, None);
            }
        }
        text.push(b'}');
        Self { tree, text, gap }
    }

    /// The tree as given.
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// Fills the gap.
    pub fn finish(self, revision: u64) -> StoredObject {
        let Self {
            mut tree,
            text,
            gap,
        } = self;
        let number = revision.to_string();
        if let Some(metadata) = tree
            .as_object_mut()
            .map(|fields| {
                fields
                    .entry("metadata")
                    .or_insert_with(|| Value::Object(Default::default()))
            })
            .and_then(Value::as_object_mut)
        {
            metadata.insert("resourceVersion".into(), Value::String(number.clone()));
        }
        let mut bare = Vec::with_capacity(text.len() + number.len());
        bare.extend_from_slice(&text[..gap]);
        bare.extend_from_slice(number.as_bytes());
        bare.extend_from_slice(&text[gap..]);
        StoredObject {
            revision,
            tree: Arc::new(tree),
            bare: Bytes::from(bare),
        }
    }
}

fn separate(text: &mut Vec<u8>) {
    if text.last() != Some(&b'{') {
        text.push(b',');
    }
}

fn write_json<T: serde::Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    // Writing JSON values into memory has no way to fail: keys are strings and the sink takes everything.
    let _ = serde_json::to_writer(text, value);
}

/// Writes `"metadata":{…}` with an empty resourceVersion in its sorted place and returns where the number goes.
fn write_metadata(text: &mut Vec<u8>, metadata: Option<&Value>) -> usize {
    text.extend_from_slice(b"\"metadata\":{");
    let mut gap = None;
    let open_gap = |text: &mut Vec<u8>| {
        separate(text);
        text.extend_from_slice(b"\"resourceVersion\":\"");
        let at = text.len();
        text.push(b'"');
        at
    };
    for (name, value) in metadata.and_then(Value::as_object).into_iter().flatten() {
        if name == "resourceVersion" {
            continue;
        }
        if gap.is_none() && name.as_str() > "resourceVersion" {
            gap = Some(open_gap(text));
        }
        separate(text);
        write_json(text, name);
        text.push(b':');
        write_json(text, value);
    }
    let gap = gap.unwrap_or_else(|| open_gap(text));
    text.push(b'}');
    gap
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_equals_the_tree_whatever_fields_there_are() {
        for tree in [
            json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","uid":"u"},"data":{"k":"v\n\"x"}}),
            json!({"apiVersion":"v1","kind":"ConfigMap"}),
            json!({"metadata":{}}),
            json!({"spec":{"a":1}}),
            json!({"aa":1,"metadata":{"resourceVersion":"7","zz":1},"status":{}}),
        ] {
            let stored = Prepared::new(tree).finish(42);
            let text = stored.text("v1", "ConfigMap");
            let mut back: Value = serde_json::from_slice(&text).expect("valid JSON");
            assert_eq!(back["metadata"]["resourceVersion"], "42");
            assert_eq!(back["apiVersion"], "v1");
            let mut tree = (*stored.tree).clone();
            for field in ["apiVersion", "kind"] {
                back.as_object_mut().unwrap().remove(field);
                tree.as_object_mut().unwrap().remove(field);
            }
            assert_eq!(back, tree);
        }
    }
}

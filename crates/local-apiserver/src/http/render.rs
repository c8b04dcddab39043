//! Registry answers into responses, in the form the client accepts.

use super::accept::{Accepted, Form};
use super::body::{self, ResponseBody};
use super::table::{Include, Tables, metadata_only};
use crate::registry::context::ListPage;
use crate::registry::watch::{Notice, Watch, bookmark_object};
use crate::registry::{Call, Payload, Reply, Served};
use crate::status::{ApiError, ApiResult};
use crate::store::{EventKind, StoredObject};
use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// A finished answer.
pub fn reply(call: &Call, accepted: Accepted, reply: Reply) -> ApiResult<Response<ResponseBody>> {
    let served = shown_as(call);
    let include = match accepted.form {
        Form::Table(_) => Include::parse(call.query.text("includeObject"))?,
        _ => Include::Metadata,
    };
    let text = match reply.payload {
        Payload::Watch(watch) => return Ok(stream(served, accepted, include, *watch, call)),
        Payload::Stored(object) => stored(&served, accepted, include, &object, call.now)?,
        Payload::Tree(tree) => single(call, &served, accepted, include, tree)?,
        Payload::List(page) => list(&served, accepted, include, &page, call.now)?,
        Payload::Plain(value) => value.to_string().into_bytes(),
    };
    written(reply.status, accepted, text)
}

fn written(status: u16, accepted: Accepted, text: Vec<u8>) -> ApiResult<Response<ResponseBody>> {
    if !accepted.yaml {
        return Ok(body::response(status, "application/json", text));
    }
    let tree: Value = serde_json::from_slice(&text).map_err(ApiError::internal)?;
    let yaml = serde_yaml::to_string(&tree).map_err(ApiError::internal)?;
    Ok(body::response(status, "application/yaml", yaml))
}

/// Subresources that show the object are shown as the object's kind.
fn shown_as(call: &Call) -> Served {
    call.served.clone()
}

fn is_own_kind(served: &Served, tree: &Value) -> bool {
    tree["kind"] == served.kind.as_ref()
}

/// One object that need not be stored (dry runs, scales).
fn single(
    call: &Call,
    served: &Served,
    accepted: Accepted,
    include: Include,
    tree: Value,
) -> ApiResult<Vec<u8>> {
    let text = match accepted.form {
        Form::Object => tree.to_string(),
        Form::Metadata(version) if is_own_kind(served, &tree) => {
            metadata_only(&tree, version).to_string()
        }
        Form::Table(version) if is_own_kind(served, &tree) => {
            let metadata = json!({"resourceVersion": tree["metadata"]["resourceVersion"]});
            let mut storage = tree;
            served.to_storage(&mut storage);
            Tables::new(served, version, include, call.now)
                .of_tree(metadata, &storage)
                .to_string()
        }
        Form::Table(_) if tree["kind"] == "Scale" => tree.to_string(),
        _ => return Err(ApiError::not_acceptable(super::accept::OBJECT_TYPES)),
    };
    Ok(text.into_bytes())
}

/// The text of a stored object in the served version.
pub fn object_text(served: &Served, object: &StoredObject) -> Vec<u8> {
    if served.is_storage_shape() {
        return object.text(served.api_version(), &served.kind);
    }
    let mut tree = (*object.tree).clone();
    served.to_served(&mut tree);
    tree.to_string().into_bytes()
}

fn stored(
    served: &Served,
    accepted: Accepted,
    include: Include,
    object: &StoredObject,
    now: Timestamp,
) -> ApiResult<Vec<u8>> {
    Ok(match accepted.form {
        Form::Object => object_text(served, object),
        Form::Metadata(version) => metadata_only(&object.tree, version)
            .to_string()
            .into_bytes(),
        Form::Table(version) => {
            let metadata = json!({"resourceVersion": object.tree["metadata"]["resourceVersion"]});
            let table = Tables::new(served, version, include, now).table(metadata, &[object], true);
            table.to_string().into_bytes()
        }
        Form::MetadataList(_) => return Err(ApiError::not_acceptable(super::accept::OBJECT_TYPES)),
    })
}

fn list_metadata(served: &Served, page: &ListPage) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if served.is_custom() {
        metadata["continue"] = "".into();
    }
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn list(
    served: &Served,
    accepted: Accepted,
    include: Include,
    page: &ListPage,
    now: Timestamp,
) -> ApiResult<Vec<u8>> {
    let metadata = list_metadata(served, page);
    match accepted.form {
        Form::Object => Ok(list_text(served, page, &metadata)),
        Form::Table(version) => {
            let objects: Vec<&StoredObject> = page.items.iter().map(Arc::as_ref).collect();
            let table = Tables::new(served, version, include, now).table(metadata, &objects, true);
            Ok(table.to_string().into_bytes())
        }
        Form::MetadataList(version) => {
            let items: Vec<Value> = page
                .items
                .iter()
                .map(|object| metadata_only(&object.tree, version))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": version.api_version(),
                "metadata": metadata, "items": items,
            });
            Ok(list.to_string().into_bytes())
        }
        Form::Metadata(_) => Err(ApiError::not_acceptable(super::accept::OBJECT_TYPES)),
    }
}

/// A list from the items' cached texts.
fn list_text(served: &Served, page: &ListPage, metadata: &Value) -> Vec<u8> {
    let size: usize = page.items.iter().map(|object| object.bare.len() + 80).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!("{{\"apiVersion\":\"{}\",\"items\":[", served.api_version());
    out.extend_from_slice(head.as_bytes());
    for (index, object) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if !served.is_storage_shape() {
            let mut tree = (*object.tree).clone();
            served.to_served(&mut tree);
            if let Some(fields) = tree.as_object_mut() {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            out.extend_from_slice(tree.to_string().as_bytes());
        } else if served.is_custom() {
            object.write_text(served.api_version(), &served.kind, &mut out);
        } else {
            out.extend_from_slice(&object.bare);
        }
    }
    let tail = format!(
        "],\"kind\":\"{}\",\"metadata\":{metadata}}}",
        served.list_kind
    );
    out.extend_from_slice(tail.as_bytes());
    out
}

fn stream(
    served: Served,
    accepted: Accepted,
    include: Include,
    watch: Watch,
    call: &Call,
) -> Response<ResponseBody> {
    let framer = Framer {
        served,
        accepted,
        include,
        headings_sent: false,
    };
    let _ = call;
    let chunks = futures::stream::unfold((watch, framer), |(mut watch, mut framer)| async move {
        let notice = watch.next().await?;
        let frame = framer.frame(notice);
        Some((frame, (watch, framer)))
    });
    let mut response = body::response(200, "application/json", Bytes::new());
    *response.body_mut() = body::stream(chunks);
    response
}

/// Watch frames in the form the client accepts.
struct Framer {
    served: Served,
    accepted: Accepted,
    include: Include,
    headings_sent: bool,
}

impl Framer {
    fn frame(&mut self, notice: Notice) -> Bytes {
        match notice {
            Notice::Change(event) => {
                if self.accepted.form == Form::Object && self.served.is_storage_shape() {
                    return event.frame(self.served.api_version(), &self.served.kind);
                }
                self.object(event.kind, &event.object)
            }
            Notice::Object(kind, object) => self.object(kind, &object),
            Notice::Bookmark(revision, end) => self.bookmark(revision, end),
            Notice::Error(error) => line("ERROR", &error.body.to_string()),
        }
    }

    fn object(&mut self, kind: EventKind, object: &StoredObject) -> Bytes {
        let text = match self.accepted.form {
            Form::Object => object_text(&self.served, object),
            Form::Metadata(version) | Form::MetadataList(version) => {
                metadata_only(&object.tree, version)
                    .to_string()
                    .into_bytes()
            }
            Form::Table(version) => {
                let metadata =
                    json!({"resourceVersion": object.tree["metadata"]["resourceVersion"]});
                let headings = !std::mem::replace(&mut self.headings_sent, true);
                let tables = Tables::new(&self.served, version, self.include, Timestamp::now());
                tables
                    .table(metadata, &[object], headings)
                    .to_string()
                    .into_bytes()
            }
        };
        line_bytes(kind.name(), &text)
    }

    fn bookmark(&self, revision: u64, end: bool) -> Bytes {
        let object = match self.accepted.form {
            Form::Object => {
                bookmark_object(self.served.api_version(), &self.served.kind, revision, end)
            }
            Form::Metadata(version) | Form::MetadataList(version) => bookmark_object(
                version.api_version(),
                "PartialObjectMetadata",
                revision,
                end,
            ),
            Form::Table(version) => json!({
                "kind": "Table", "apiVersion": version.api_version(),
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null, "rows": [],
            }),
        };
        line("BOOKMARK", &object.to_string())
    }
}

fn line(kind: &str, object: &str) -> Bytes {
    line_bytes(kind, object.as_bytes())
}

fn line_bytes(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

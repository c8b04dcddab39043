//! What a registry verb is given and what it answers.

use super::options::Query;
use super::resource::Served;
use crate::auth::User;
use crate::core::Core;
use crate::store::StoredObject;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// One parsed request on a resource.
pub struct Call {
    /// The server.
    pub core: Arc<Core>,
    /// Who asks.
    pub user: User,
    /// `User-Agent` up to the slash; the field manager when none is named.
    pub agent: String,
    /// The resource and version in the path.
    pub served: Served,
    /// Namespace in the path, empty without one.
    pub namespace: String,
    /// Object name in the path, empty without one.
    pub name: String,
    /// Subresource in the path, empty without one.
    pub subresource: String,
    /// Query parameters.
    pub query: Query,
    /// `Content-Type` without parameters, empty when absent.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
    /// The clock, read once.
    pub now: Timestamp,
    /// Texts for `Warning` headers.
    pub warnings: Mutex<Vec<String>>,
}

impl Call {
    /// Adds a `Warning` header text, each text once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self
            .warnings
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The store key of the named object.
    pub fn key(&self) -> String {
        self.served.key(&self.namespace, &self.name)
    }

    /// The object in the path, or 404.
    pub fn existing(&self) -> crate::status::ApiResult<Arc<StoredObject>> {
        self.core
            .store
            .get(&self.served.storage_id, &self.key())
            .ok_or_else(|| self.not_found())
    }

    /// 404 for the object in the path.
    pub fn not_found(&self) -> crate::status::ApiError {
        crate::status::ApiError::not_found(
            &self.served.storage_group,
            &self.served.plural,
            &self.name,
        )
    }

    /// `now` as metadata times are written.
    pub fn now_text(&self) -> String {
        time_text(self.now)
    }
}

/// Whole seconds in UTC, as metadata times are written.
pub fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A successful answer.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// What goes into the body.
    pub payload: Payload,
}

/// Bodies in the forms they are at hand.
pub enum Payload {
    /// A stored object, sent in the served version; its text may be used as is.
    Stored(Arc<StoredObject>),
    /// An object tree in the served version, with `apiVersion` and `kind`.
    Tree(Value),
    /// A list.
    List(ListPage),
    /// A `Status`, or another object that has no table form.
    Plain(Value),
    /// A running watch.
    Watch(Box<super::watch::Watch>),
}

/// Part of a collection.
pub struct ListPage {
    /// In key order.
    pub items: Vec<Arc<StoredObject>>,
    /// Revision of the snapshot.
    pub revision: u64,
    /// Where the next page starts, empty = this is the last.
    pub continue_token: String,
    /// How many come after this page, when known.
    pub remaining: Option<u64>,
}

impl Reply {
    /// 200 with a tree.
    pub fn tree(tree: Value) -> Self {
        Self {
            status: 200,
            payload: Payload::Tree(tree),
        }
    }

    /// 200 with a stored object.
    pub fn stored(object: Arc<StoredObject>) -> Self {
        Self {
            status: 200,
            payload: Payload::Stored(object),
        }
    }
}

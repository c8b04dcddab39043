//! What every request shares.

use crate::discovery::RemoteGroup;
use crate::registry::{Catalogs, Served};
use crate::store::Store;
use serde_json::{Value, json};

/// What every request shares.
pub struct Core {
    /// The objects.
    pub store: Store,
    /// What is served.
    pub catalogs: Catalogs,
}

impl Core {
    /// Called after every committed write, before it is answered.
    pub fn after_write(&self, _served: &Served, _object: &Value, _deleted: bool) {}

    /// Groups of aggregated API servers.
    pub fn remote_groups(&self) -> Vec<RemoteGroup> {
        Vec::new()
    }

    /// Where clients reach the server.
    pub fn address(&self) -> String {
        "127.0.0.1:6443".into()
    }

    /// Public keys of service-account tokens.
    pub fn key_set(&self) -> Value {
        json!({"keys": []})
    }

    /// OpenAPI v3 documents: path and hash.
    pub fn openapi_documents(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// One OpenAPI v3 document.
    pub fn openapi_document(&self, _path: &str) -> Option<Value> {
        None
    }
}

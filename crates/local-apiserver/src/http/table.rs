//! Tables: what `kubectl get` prints.

use super::accept::MetaVersion;
use crate::registry::Served;
use crate::status::{ApiError, ApiResult};
use crate::store::StoredObject;
use jiff::Timestamp;
use serde_json::{Value, json};

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Only metadata.
    Metadata,
    /// Everything.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// From the query parameter.
    pub fn parse(text: &str) -> ApiResult<Self> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            other => {
                let error = local_schema::FieldError::not_supported(
                    "includeObject",
                    other,
                    &["", "Metadata", "None", "Object"],
                );
                Err(ApiError::invalid(
                    "meta.k8s.io",
                    "TableOptions",
                    "",
                    &[error],
                ))
            }
        }
    }
}

/// Makes tables of one kind.
pub struct Tables<'a> {
    served: &'a Served,
    version: MetaVersion,
    include: Include,
    now: Timestamp,
}

impl<'a> Tables<'a> {
    /// For one request.
    pub fn new(served: &'a Served, version: MetaVersion, include: Include, now: Timestamp) -> Self {
        Self {
            served,
            version,
            include,
            now,
        }
    }

    /// The whole table.
    pub fn table(&self, metadata: Value, objects: &[&StoredObject], headings: bool) -> Value {
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| self.row(&object.tree))
            .collect();
        json!({
            "kind": "Table", "apiVersion": self.version.api_version(), "metadata": metadata,
            "columnDefinitions": if headings { self.columns() } else { Value::Null },
            "rows": rows,
        })
    }

    /// A table of one tree in storage version.
    pub fn of_tree(&self, metadata: Value, object: &Value) -> Value {
        json!({
            "kind": "Table", "apiVersion": self.version.api_version(), "metadata": metadata,
            "columnDefinitions": self.columns(),
            "rows": [self.row(object)],
        })
    }

    fn columns(&self) -> Value {
        let column = |name: &str, kind: &str, format: &str, priority: i32| json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority});
        if let Some(custom) = self.served.custom() {
            return crate::crd::columns::headings(&custom.columns);
        }
        let columns = self.served.rules.columns();
        if columns.is_empty() {
            return json!([
                column("Name", "string", "name", 0),
                column("Created At", "date", "", 0)
            ]);
        }
        columns
            .iter()
            .map(|one| column(one.name, one.kind, one.format, one.priority))
            .collect()
    }

    fn row(&self, object: &Value) -> Value {
        let cells = match self.served.custom() {
            Some(custom) => crate::crd::columns::cells(&custom.columns, object, self.now),
            None if self.served.rules.columns().is_empty() => vec![
                object["metadata"]["name"].clone(),
                object["metadata"]["creationTimestamp"].clone(),
            ],
            None => self.served.rules.cells(object, self.now),
        };
        let mut row = json!({"cells": cells});
        match self.include {
            Include::None => row["object"] = Value::Null,
            Include::Metadata => row["object"] = metadata_only(object, self.version),
            Include::Object => {
                let mut shown = object.clone();
                self.served.to_served(&mut shown);
                row["object"] = shown;
            }
        }
        row
    }
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(object: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": version.api_version(),
        "metadata": object["metadata"],
    })
}

//! The Swagger 2.0 document older clients validate with, made from OpenAPI v3 documents.
//!
//! Definitions are whole; of the paths only the patch operations stay, with the names of their query parameters, which is
//! where clients look up whether a kind takes a dry run. It refuses to keep anything: callers build, send and drop.

mod schema;
mod wire;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use wire::protobuf;

const KIND_EXTENSION: &str = "x-kubernetes-group-version-kind";

/// The parts of a v3 document that matter; the rest is skipped while reading.
#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    components: Components,
    #[serde(default)]
    paths: BTreeMap<String, PathItem>,
}

#[derive(Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: Map<String, Value>,
}

#[derive(Deserialize)]
struct PathItem {
    patch: Option<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "x-kubernetes-group-version-kind", default)]
    kind: Value,
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    #[serde(default)]
    name: String,
    #[serde(rename = "in", default)]
    place: String,
}

/// Collects v3 documents into one of version 2.
#[derive(Debug, Default)]
pub struct Builder {
    definitions: Map<String, Value>,
    paths: Map<String, Value>,
}

impl Builder {
    /// Starts with all shipped documents.
    pub fn shipped() -> Self {
        let mut builder = Self::default();
        for path in crate::catalog::group_versions() {
            if let Some(text) = crate::catalog::document(path) {
                // Shipped documents are read by a test of the catalog; one that broke would only be left out.
                let _ = builder.add(&text);
            }
        }
        builder
    }

    /// Adds a v3 document; what is already defined stays as it is.
    ///
    /// # Errors
    /// The text is no JSON of an OpenAPI document.
    pub fn add(&mut self, text: &[u8]) -> Result<(), serde_json::Error> {
        let source: Source = serde_json::from_slice(text)?;
        for (name, definition) in source.components.schemas {
            self.definitions
                .entry(name)
                .or_insert_with(|| schema::convert(definition));
        }
        for (path, item) in source.paths {
            // Subresources answer for the same kind; the object itself is enough.
            if let Some(patch) = item.patch.filter(|_| path.ends_with("/{name}")) {
                self.paths.insert(path, json!({"patch": operation(&patch)}));
            }
        }
        Ok(())
    }

    /// The document; `version` is the server's.
    pub fn document(self, version: &str) -> Value {
        let mut document = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": version},
        });
        document["paths"] = self.paths.into();
        document["definitions"] = self.definitions.into();
        document
    }
}

fn operation(patch: &Operation) -> Value {
    let parameters: Vec<Value> = patch
        .parameters
        .iter()
        .filter(|one| one.place == "query")
        .map(|one| json!({"name": one.name, "in": "query", "type": "string"}))
        .collect();
    let mut operation =
        json!({"parameters": parameters, "responses": {"200": {"description": "OK"}}});
    operation[KIND_EXTENSION] = patch.kind.clone();
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in a tree.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference.clone());
                }
                map.values().for_each(|one| references(one, found));
            }
            Value::Array(items) => items.iter().for_each(|one| references(one, found)),
            _ => {}
        }
    }

    #[test]
    fn the_shipped_document_resolves_every_reference_within_itself() {
        let document = Builder::shipped().document("v1.34.9");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 500, "{}", found.len());
        for reference in found {
            let name = reference.strip_prefix("#/definitions/").unwrap();
            assert!(document["definitions"][name].is_object(), "{reference}");
        }
    }

    #[test]
    fn definitions_keep_kinds_and_patch_strategies_and_paths_keep_the_dry_run() {
        let document = Builder::shipped().document("v1.34.9");
        let definitions = &document["definitions"];
        assert_eq!(
            definitions["io.k8s.api.apps.v1.Deployment"][KIND_EXTENSION],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        let containers = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        let patch =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch[KIND_EXTENSION]["kind"], "Deployment");
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|one| one["name"] == "dryRun"));
    }

    #[test]
    fn a_text_that_is_no_document_is_refused() {
        assert!(Builder::default().add(b"[1]").is_err());
    }
}

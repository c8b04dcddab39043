//! OpenAPI v3: the shipped documents, and generated ones for groups of custom resources.

use crate::registry::Catalog;
use local_schema::catalog::{CustomKind, custom_document};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Path, hash and text of a document.
pub struct Document {
    /// `apis/apps/v1`
    pub path: String,
    /// Upper-case hexadecimal digest of the text.
    pub hash: String,
    /// The text.
    pub text: Arc<Vec<u8>>,
}

/// Documents by path; the generated half belongs to one generation of the catalog.
#[derive(Default)]
pub struct Documents {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    generation: u64,
    custom: HashMap<String, Arc<Document>>,
    shipped: HashMap<String, Arc<Document>>,
}

fn document(path: &str, text: Vec<u8>) -> Arc<Document> {
    let digest = ring::digest::digest(&ring::digest::SHA512, &text);
    Arc::new(Document {
        path: path.to_string(),
        hash: crate::discovery::hex(digest.as_ref()),
        text: Arc::new(text),
    })
}

/// Group versions of custom resources that are served.
fn custom_paths(catalog: &Catalog) -> Vec<(String, String, String)> {
    let mut paths = Vec::new();
    for resource in catalog.resources.iter().filter(|one| one.is_custom()) {
        for version in resource.versions.iter().filter(|one| one.served) {
            let path = format!("apis/{}", version.api_version);
            let entry = (path, resource.group.to_string(), version.name.to_string());
            if !paths.contains(&entry) {
                paths.push(entry);
            }
        }
    }
    paths
}

fn generate(catalog: &Catalog, group: &str, wanted: &str) -> Value {
    let kinds: Vec<CustomKind<'_>> = catalog
        .resources
        .iter()
        .filter(|one| *one.group == *group)
        .filter_map(|resource| {
            let version = resource
                .versions
                .iter()
                .find(|one| one.served && *one.name == *wanted)?;
            let custom = version.custom.as_ref()?;
            Some(CustomKind {
                kind: &resource.kind,
                list_kind: &resource.list_kind,
                plural: &resource.plural,
                namespaced: resource.namespaced,
                schema: &custom.schema,
                status: custom.status,
                scale: custom.scale.is_some(),
            })
        })
        .collect();
    custom_document(group, wanted, &kinds)
}

impl Documents {
    /// Every document there is.
    pub fn all(&self, catalog: &Catalog) -> Vec<Arc<Document>> {
        let mut paths: Vec<String> = local_schema::group_versions().map(str::to_string).collect();
        paths.extend(custom_paths(catalog).into_iter().map(|(path, _, _)| path));
        paths.sort();
        paths
            .iter()
            .filter_map(|path| self.get(catalog, path))
            .collect()
    }

    /// The documents of custom resources, ordered by path.
    pub fn custom(&self, catalog: &Catalog) -> Vec<Arc<Document>> {
        let mut paths = custom_paths(catalog);
        paths.sort();
        paths
            .iter()
            .filter_map(|(path, _, _)| self.get(catalog, path))
            .collect()
    }

    /// One document.
    pub fn get(&self, catalog: &Catalog, path: &str) -> Option<Arc<Document>> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if state.generation != catalog.generation {
            state.custom.clear();
            state.generation = catalog.generation;
        }
        if let Some(found) = state.shipped.get(path).or_else(|| state.custom.get(path)) {
            return Some(found.clone());
        }
        if let Some((_, group, version)) = custom_paths(catalog)
            .into_iter()
            .find(|(one, _, _)| one == path)
        {
            let made = document(
                path,
                generate(catalog, &group, &version).to_string().into_bytes(),
            );
            state.custom.insert(path.to_string(), made.clone());
            return Some(made);
        }
        let made = document(path, local_schema::document(path)?);
        state.shipped.insert(path.to_string(), made.clone());
        Some(made)
    }
}

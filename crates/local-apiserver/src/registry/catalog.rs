//! What is served right now: the built-in kinds plus what CustomResourceDefinitions add.

use super::resource::{Resource, Served};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// An immutable picture of everything served.
pub struct Catalog {
    /// In discovery order: built-in kinds first, then custom ones by group.
    pub resources: Vec<Arc<Resource>>,
    by_place: HashMap<(String, String), usize>,
    /// Grows with every change; discovery documents are cached by it.
    pub generation: u64,
}

impl Catalog {
    fn new(resources: Vec<Arc<Resource>>, generation: u64) -> Self {
        let by_place = resources
            .iter()
            .enumerate()
            .map(|(index, one)| ((one.group.to_string(), one.plural.to_string()), index))
            .collect();
        Self {
            resources,
            by_place,
            generation,
        }
    }

    /// The resource, whatever its version.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let index = self
            .by_place
            .get(&(group.to_string(), plural.to_string()))?;
        self.resources.get(*index)
    }

    /// The resource in a served version.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let resource = self.resource(group, plural)?;
        let version = resource
            .versions
            .iter()
            .position(|one| one.served && one.name.as_ref() == version)?;
        Some(Served {
            resource: resource.clone(),
            version,
        })
    }

    /// The resource of a kind in a served version.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<Served> {
        self.resources.iter().find_map(|resource| {
            if resource.kind.as_ref() != kind {
                return None;
            }
            let version = resource
                .versions
                .iter()
                .position(|one| one.served && one.api_version.as_ref() == api_version)?;
            Some(Served {
                resource: resource.clone(),
                version,
            })
        })
    }

    /// Whether any resource of this group and version is served.
    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.resources.iter().any(|resource| {
            resource.group.as_ref() == group
                && resource
                    .versions
                    .iter()
                    .any(|one| one.served && one.name.as_ref() == version)
        })
    }

    /// Whether the group is served in any version.
    pub fn has_group(&self, group: &str) -> bool {
        self.resources.iter().any(|resource| {
            resource.group.as_ref() == group && resource.versions.iter().any(|one| one.served)
        })
    }
}

/// The current catalog; readers take a picture and keep it for their request.
pub struct Catalogs {
    built_in: Vec<Arc<Resource>>,
    current: RwLock<Arc<Catalog>>,
}

impl Catalogs {
    /// With the built-in kinds only.
    pub fn new(built_in: Vec<Arc<Resource>>) -> Self {
        let first = Catalog::new(built_in.clone(), 1);
        Self {
            built_in,
            current: RwLock::new(Arc::new(first)),
        }
    }

    /// The picture of now.
    pub fn now(&self) -> Arc<Catalog> {
        self.current
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
            .clone()
    }

    /// Replaces all custom resources.
    pub fn set_custom(&self, custom: Vec<Arc<Resource>>) {
        let mut current = self
            .current
            .write()
            .unwrap_or_else(|poison| poison.into_inner());
        let mut resources = self.built_in.clone();
        resources.extend(custom);
        *current = Arc::new(Catalog::new(resources, current.generation + 1));
    }
}

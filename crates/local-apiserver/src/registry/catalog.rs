//! What is served right now: the built-in kinds plus what CustomResourceDefinitions add.

use super::resource::{Resource, Served};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// An immutable picture of everything served.
pub struct Catalog {
    /// In discovery order: built-in kinds first, then custom ones by group.
    pub resources: Vec<Arc<Resource>>,
    by_place: HashMap<(String, String), usize>,
    /// Grows with every change; discovery documents are cached by it.
    pub generation: u64,
    /// The revision of the definitions it was made of; none before they were read.
    definitions: Option<u64>,
}

impl Catalog {
    fn new(resources: Vec<Arc<Resource>>, generation: u64, definitions: Option<u64>) -> Self {
        let by_place = resources
            .iter()
            .enumerate()
            .map(|(index, one)| ((one.group.to_string(), one.plural.to_string()), index))
            .collect();
        Self {
            resources,
            by_place,
            generation,
            definitions,
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
///
/// Whoever has seen a definition established finds its resource served: a picture is compared with the store's revision of the definitions
/// before it is given out, because a watcher can be faster than any task that was told of the write.
pub struct Catalogs {
    built_in: Vec<Arc<Resource>>,
    definitions: watch::Receiver<u64>,
    current: RwLock<Arc<Catalog>>,
}

impl Catalogs {
    /// With the built-in kinds; `definitions` tells the newest revision of the stored definitions.
    pub fn new(built_in: Vec<Arc<Resource>>, definitions: watch::Receiver<u64>) -> Self {
        let first = Catalog::new(built_in.clone(), 1, None);
        Self {
            built_in,
            definitions,
            current: RwLock::new(Arc::new(first)),
        }
    }

    /// The picture of now; `custom` reads the resources of all stored definitions, and is asked only after one has changed.
    pub fn now(&self, custom: impl FnOnce() -> Vec<Arc<Resource>>) -> Arc<Catalog> {
        let newest = Some(*self.definitions.borrow());
        {
            let current = self.read();
            if current.definitions >= newest {
                return current.clone();
            }
        }
        let mut current = self
            .current
            .write()
            .unwrap_or_else(|poison| poison.into_inner());
        if current.definitions < newest {
            let mut resources = self.built_in.clone();
            resources.extend(custom());
            *current = Arc::new(Catalog::new(resources, current.generation + 1, newest));
        }
        current.clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Arc<Catalog>> {
        self.current
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_after_a_definition_was_stored_gets_a_picture_made_after_it() {
        let (stored, definitions) = watch::channel(0);
        let catalogs = Catalogs::new(Vec::new(), definitions);
        let first = catalogs.now(Vec::new);
        assert_eq!(
            catalogs.now(|| unreachable!("nothing changed")).generation,
            first.generation
        );
        stored.send_replace(7);
        let second = catalogs.now(Vec::new);
        assert_eq!(second.generation, first.generation + 1);
        assert_eq!(
            catalogs.now(|| unreachable!("nothing changed")).generation,
            second.generation
        );
    }
}

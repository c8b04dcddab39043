//! A served resource, built in or defined by a CustomResourceDefinition, in one shape.

use crate::crd::CustomVersion;
use local_kinds::{KindRow, KindRules, NameRule};
use local_schema::TypeRef;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// One kind as it is served.
pub struct Resource {
    /// API group, empty for core.
    pub group: Arc<str>,
    /// `Pod`
    pub kind: Arc<str>,
    /// `PodList`
    pub list_kind: Arc<str>,
    /// `pods`
    pub plural: Arc<str>,
    /// `pod`
    pub singular: Arc<str>,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
    /// `po`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Verbs of the main resource.
    pub verbs: Vec<String>,
    /// Versions, most preferred first; unserved ones of custom resources included.
    pub versions: Vec<Version>,
    /// The version objects are stored in.
    pub storage_version: Arc<str>,
    /// The store's name for it: `deployments.apps`.
    pub storage_id: Arc<str>,
    /// The group whose shape is stored (another one for `events.k8s.io`).
    pub storage_group: Arc<str>,
    /// The hash unaggregated discovery shows.
    pub storage_version_hash: String,
    /// What only this kind does.
    pub rules: &'static dyn KindRules,
}

/// One version of a resource.
pub struct Version {
    /// `v1`
    pub name: Arc<str>,
    /// `apps/v1`
    pub api_version: Arc<str>,
    /// Whether it is served.
    pub served: bool,
    /// Its subresources.
    pub subresources: Vec<SubresourceInfo>,
    /// Set for custom resources.
    pub custom: Option<Arc<CustomVersion>>,
    kind: Arc<str>,
    object_type: OnceLock<TypeRef>,
}

impl Version {
    /// A version without subresources of its own yet.
    pub fn new(group: &str, name: &str, kind: &str) -> Self {
        Self {
            name: name.into(),
            api_version: api_version(group, name).into(),
            served: true,
            subresources: Vec::new(),
            custom: None,
            kind: kind.into(),
            object_type: OnceLock::new(),
        }
    }

    /// The type of objects in this version, for decoding, patches and field ownership.
    pub fn object_type(&self) -> &TypeRef {
        self.object_type.get_or_init(|| match &self.custom {
            Some(custom) => custom.structural.object_type().clone(),
            None => crate::schema::type_of(&self.api_version, &self.kind),
        })
    }
}

/// A subresource as discovery shows it.
#[derive(Clone)]
pub struct SubresourceInfo {
    /// `status`
    pub name: String,
    /// Group of the kind it answers with, empty = the parent's.
    pub group: String,
    /// Version of that kind, empty = the parent's.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// Its verbs.
    pub verbs: Vec<String>,
}

/// `v1` or `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    }
}

impl Resource {
    /// From a row of the table of built-in kinds.
    pub fn from_row(row: &'static KindRow) -> Self {
        let strings = |list: &[&str]| list.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        let versions = row
            .versions
            .iter()
            .map(|version| Version {
                subresources: row
                    .subresources
                    .iter()
                    .map(|sub| SubresourceInfo {
                        name: sub.name.to_string(),
                        group: sub.group.unwrap_or_default().to_string(),
                        version: sub.version.unwrap_or_default().to_string(),
                        kind: sub.kind.to_string(),
                        verbs: strings(sub.verbs),
                    })
                    .collect(),
                ..Version::new(row.group, version, row.kind)
            })
            .collect();
        let storage_group = row.stored_under.unwrap_or(row.group);
        Self {
            group: row.group.into(),
            kind: row.kind.into(),
            list_kind: format!("{}List", row.kind).into(),
            plural: row.plural.into(),
            singular: row.singular.into(),
            namespaced: row.namespaced,
            short_names: strings(row.short_names),
            categories: strings(row.categories),
            verbs: strings(row.verbs),
            versions,
            storage_version: row.storage_version.into(),
            storage_id: crate::status::qualified(row.plural, storage_group).into(),
            storage_group: storage_group.into(),
            storage_version_hash: row.storage_version_hash.to_string(),
            rules: row.rules,
        }
    }

    /// Whether the verb is offered on the main resource.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    /// True for kinds a CustomResourceDefinition made.
    pub fn is_custom(&self) -> bool {
        self.versions.iter().any(|version| version.custom.is_some())
    }

    /// How names are checked.
    pub fn name_rule(&self) -> NameRule {
        self.rules.name_rule()
    }

    /// The store's key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{namespace}/{name}")
        } else {
            name.to_string()
        }
    }

    /// The store's key prefix of a namespace (empty = all).
    pub fn prefix(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{namespace}/")
        } else {
            String::new()
        }
    }
}

/// A resource in the version a request names.
#[derive(Clone)]
pub struct Served {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Index of the version.
    pub version: usize,
}

impl std::ops::Deref for Served {
    type Target = Resource;
    fn deref(&self) -> &Resource {
        &self.resource
    }
}

impl Served {
    /// The version.
    pub fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    /// `apps/v1`
    pub fn api_version(&self) -> &Arc<str> {
        &self.version().api_version
    }

    /// The custom half, for custom resources.
    pub fn custom(&self) -> Option<&Arc<CustomVersion>> {
        self.version().custom.as_ref()
    }

    /// The subresource, when this version has it.
    pub fn subresource(&self, name: &str) -> Option<&SubresourceInfo> {
        self.version()
            .subresources
            .iter()
            .find(|sub| sub.name == name)
    }

    /// Whether status is written separately.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// True when objects look the same in this version and in storage, but for `apiVersion`.
    pub fn is_storage_shape(&self) -> bool {
        self.version().custom.is_some()
            || (self.version().name == self.storage_version && self.storage_group == self.group)
    }

    /// Rewrites an object of the served version into the storage version.
    pub fn to_storage(&self, object: &mut Value) {
        if !self.is_storage_shape() {
            self.rules.to_storage(&self.version().name, object);
        }
        object["apiVersion"] = self.storage_api_version().into();
    }

    /// Rewrites a stored object into the served version.
    pub fn to_served(&self, object: &mut Value) {
        if !self.is_storage_shape() {
            self.rules.to_version(&self.version().name, object);
            // What this version always writes may have no place in the stored one.
            local_schema::decode::normalize(self.version().object_type(), object);
        }
        object["apiVersion"] = self.api_version().as_ref().into();
        object["kind"] = self.kind.as_ref().into();
    }

    fn storage_api_version(&self) -> String {
        api_version(&self.storage_group, &self.storage_version)
    }
}

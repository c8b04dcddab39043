//! The discovery documents, made from the catalog.

use crate::registry::{Catalog, Resource, Version, api_version};
use serde_json::{Map, Value, json};

/// What aggregated API servers add: group, versions, resources in aggregated form, freshness.
#[derive(Clone, Debug)]
pub struct RemoteGroup {
    /// The group.
    pub group: String,
    /// Versions, most preferred first, in `APIGroupDiscovery` form (`version`, `resources`, `freshness`).
    pub versions: Vec<Value>,
}

/// `/api` without aggregation.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// Groups in order, the core group left out, with their versions most preferred first.
fn groups(catalog: &Catalog) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for resource in catalog.resources.iter().filter(|one| !one.group.is_empty()) {
        let position = groups.iter().position(|(name, _)| *name == *resource.group);
        let index = position.unwrap_or_else(|| {
            groups.push((resource.group.to_string(), Vec::new()));
            groups.len() - 1
        });
        for version in resource.versions.iter().filter(|one| one.served) {
            if !groups[index].1.iter().any(|one| *one == *version.name) {
                groups[index].1.push(version.name.to_string());
            }
        }
    }
    groups.retain(|(_, versions)| !versions.is_empty());
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| std::cmp::Reverse(crate::crd::versions::rank(version)));
    }
    groups
}

fn group_document(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(name, version), "version": version}))
        .collect();
    let preferred = list.first().cloned().unwrap_or(Value::Null);
    json!({"name": name, "versions": list, "preferredVersion": preferred})
}

fn all_groups(catalog: &Catalog, remote: &[RemoteGroup]) -> Vec<(String, Vec<String>)> {
    let mut all = groups(catalog);
    for group in remote {
        let versions = group
            .versions
            .iter()
            .filter_map(|version| version["version"].as_str().map(str::to_string))
            .collect();
        all.push((group.group.clone(), versions));
    }
    all
}

/// `/apis` without aggregation.
pub fn group_list(catalog: &Catalog, remote: &[RemoteGroup]) -> Value {
    let list: Vec<Value> = all_groups(catalog, remote)
        .iter()
        .map(|(name, versions)| group_document(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `/apis/{group}`.
pub fn group(catalog: &Catalog, wanted: &str, remote: &[RemoteGroup]) -> Option<Value> {
    let all = all_groups(catalog, remote);
    let (name, versions) = all.iter().find(|(name, _)| name == wanted)?;
    let mut document = group_document(name, versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

/// `/api/v1`, `/apis/{group}/{version}`.
pub fn resources(catalog: &Catalog, group: &str, wanted: &str) -> Option<Value> {
    if !catalog.has_group_version(group, wanted) {
        return None;
    }
    let mut list = Vec::new();
    for resource in catalog.resources.iter().filter(|one| *one.group == *group) {
        let Some(version) = version_of(resource, wanted) else {
            continue;
        };
        list.push(resource_entry(resource));
        for sub in &version.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                entry["group"] = sub.group.as_str().into();
                entry["version"] = sub.version.as_str().into();
            }
            list.push(entry);
        }
    }
    // Built-in resources are sorted by name; custom ones come with their subresources in upstream's fixed order.
    if !catalog
        .resources
        .iter()
        .any(|one| *one.group == *group && one.is_custom())
    {
        list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    }
    let mut document = json!({
        "kind": "APIResourceList", "groupVersion": api_version(group, wanted), "resources": list,
    });
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    Some(document)
}

fn version_of<'a>(resource: &'a Resource, wanted: &str) -> Option<&'a Version> {
    resource
        .versions
        .iter()
        .find(|one| one.served && one.name.as_ref() == wanted)
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": *resource.plural, "singularName": *resource.singular,
        "namespaced": resource.namespaced, "kind": *resource.kind, "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    if !resource.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = resource.storage_version_hash.as_str().into();
    }
    entry
}

fn add_names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
}

/// `APIGroupDiscoveryList`: the core group for `/api`, the others for `/apis`.
pub fn aggregated(catalog: &Catalog, whole: bool, remote: &[RemoteGroup]) -> Value {
    let mut items = Vec::new();
    if whole {
        for (name, versions) in groups(catalog) {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| aggregated_version(catalog, &name, version))
                .collect();
            items.push(json!({"metadata": {"name": name}, "versions": versions}));
        }
        for group in remote {
            items.push(json!({"metadata": {"name": group.group}, "versions": group.versions}));
        }
    } else {
        let version = aggregated_version(catalog, "", "v1");
        items.push(json!({"metadata": {}, "versions": [version]}));
    }
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    })
}

fn aggregated_version(catalog: &Catalog, group: &str, wanted: &str) -> Value {
    let mut resources: Vec<Value> = catalog
        .resources
        .iter()
        .filter(|one| *one.group == *group)
        .filter_map(|resource| Some(aggregated_resource(resource, version_of(resource, wanted)?)))
        .collect();
    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    json!({"version": wanted, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(resource: &Resource, version: &Version) -> Value {
    let own = |kind: &str| {
        if version.custom.is_some() {
            json!({"group": *resource.group, "version": *version.name, "kind": kind})
        } else {
            json!({"group": "", "version": "", "kind": kind})
        }
    };
    let mut entry = json!({
        "resource": *resource.plural, "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": *resource.singular, "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    let mut subresources: Vec<Value> = version
        .subresources
        .iter()
        .map(|sub| {
            let mut map = Map::new();
            map.insert("subresource".into(), sub.name.as_str().into());
            let kind = if sub.version.is_empty() {
                own(&sub.kind)
            } else {
                json!({"group": sub.group, "version": sub.version, "kind": sub.kind})
            };
            map.insert("responseKind".into(), kind);
            map.insert("verbs".into(), json!(sub.verbs));
            map.into()
        })
        .collect();
    subresources.sort_by(|a, b| a["subresource"].as_str().cmp(&b["subresource"].as_str()));
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

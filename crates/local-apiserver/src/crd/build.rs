//! From a stored CustomResourceDefinition to a served resource.

use super::{CustomVersion, ScaleSettings, versions};
use crate::registry::{Resource, SubresourceInfo, Version};
use crate::status::qualified;
use base64::Engine;
use serde_json::Value;
use std::sync::Arc;

/// Verbs of custom resources in upstream's order.
const VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];
const CHANGE_VERBS: &[&str] = &["get", "patch", "update"];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_string))
        .collect()
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| one.to_string()).collect()
}

/// The condition of the given type is `True`.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let list = definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    list.into_iter()
        .any(|one| one["type"] == condition && one["status"] == "True")
}

/// The resource an established definition makes; `None` when it serves nothing.
pub fn resource(definition: &Value) -> Option<Resource> {
    if !is_true(definition, "Established") {
        return None;
    }
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let group = text(spec, "group");
    let kind = text(names, "kind");
    let mut all: Vec<Version> = spec["versions"]
        .as_array()?
        .iter()
        .map(|version| self::version(definition, group, kind, version))
        .collect();
    all.sort_by_key(|version| std::cmp::Reverse(versions::rank(&version.name)));
    let storage = spec["versions"]
        .as_array()?
        .iter()
        .find(|one| one["storage"] == true)?;
    let storage_version = text(storage, "name");
    Some(Resource {
        group: group.into(),
        kind: kind.into(),
        list_kind: text(names, "listKind").into(),
        plural: text(names, "plural").into(),
        singular: text(names, "singular").into(),
        namespaced: spec["scope"] == "Namespaced",
        short_names: strings(&names["shortNames"]),
        categories: strings(&names["categories"]),
        verbs: owned(VERBS),
        versions: all,
        storage_version: storage_version.into(),
        storage_id: qualified(text(names, "plural"), group).into(),
        storage_group: group.into(),
        storage_version_hash: storage_hash(group, storage_version, kind),
        rules: &local_kinds::rules::Plain,
    })
}

/// The first eight bytes of a digest of the storage type, as upstream shows it.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        format!("{group}/{version}/{kind}").as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

fn version(definition: &Value, group: &str, kind: &str, version: &Value) -> Version {
    let name = text(version, "name");
    let subresources = &version["subresources"];
    let mut infos = Vec::new();
    if subresources["status"].is_object() {
        infos.push(SubresourceInfo {
            name: "status".into(),
            group: String::new(),
            version: String::new(),
            kind: kind.into(),
            verbs: owned(CHANGE_VERBS),
        });
    }
    let scale = subresources["scale"]
        .as_object()
        .map(|_| scale(&subresources["scale"]));
    if scale.is_some() {
        infos.push(SubresourceInfo {
            name: "scale".into(),
            group: "autoscaling".into(),
            version: "v1".into(),
            kind: "Scale".into(),
            verbs: owned(CHANGE_VERBS),
        });
    }
    let deprecation_warning = (version["deprecated"] == true).then(|| {
        let given = version["deprecationWarning"].as_str().map(str::to_string);
        given.unwrap_or_else(|| deprecation(definition, group, kind, name))
    });
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let custom = CustomVersion::new(
        &version["schema"]["openAPIV3Schema"],
        selectable
            .map(|one| text(one, "jsonPath").trim_start_matches('.').to_string())
            .collect(),
        deprecation_warning,
        version["additionalPrinterColumns"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
        scale,
        subresources["status"].is_object(),
    );
    let mut made = Version::new(group, name, kind);
    made.served = version["served"] == true;
    made.subresources = infos;
    made.custom = Some(Arc::new(custom));
    made
}

/// Upstream's own sentence names the newest version that is not deprecated.
fn deprecation(definition: &Value, group: &str, kind: &str, name: &str) -> String {
    let mut better: Vec<&str> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["served"] == true && one["deprecated"] != true)
        .map(|one| text(one, "name"))
        .filter(|one| versions::rank(one) > versions::rank(name))
        .collect();
    better.sort_by_key(|one| std::cmp::Reverse(versions::rank(one)));
    match better.first() {
        Some(newer) => format!("{group}/{name} {kind} is deprecated; use {group}/{newer} {kind}"),
        None => format!("{group}/{name} {kind} is deprecated"),
    }
}

fn scale(settings: &Value) -> ScaleSettings {
    let pointer = |name: &str| text(settings, name).replace('.', "/");
    ScaleSettings {
        spec_replicas: pointer("specReplicasPath"),
        status_replicas: pointer("statusReplicasPath"),
        selector: pointer("labelSelectorPath"),
    }
}

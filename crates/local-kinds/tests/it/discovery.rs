//! The table says what the recorded discovery says, for every kind that stands in it.

use std::collections::BTreeMap;

use local_kinds::{KindRow, Subresource, kinds};
use serde_json::{Value, json};

use crate::golden::exchanges;

/// Resources by group version, as the recorded unaggregated lists give them.
fn recorded_lists() -> BTreeMap<String, Vec<Value>> {
    exchanges("discovery/unaggregated")
        .into_iter()
        .filter(|one| one.response["kind"] == "APIResourceList")
        .map(|one| {
            let version = one.response["groupVersion"].as_str().unwrap().to_string();
            let list = one.response["resources"].as_array().unwrap().clone();
            (version, list)
        })
        .collect()
}

fn group_version(row: &KindRow, version: &str) -> String {
    if row.group.is_empty() {
        version.to_string()
    } else {
        format!("{}/{version}", row.group)
    }
}

fn main_entry(row: &KindRow) -> Value {
    let mut entry = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
        "kind": row.kind, "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = json!(row.storage_version_hash);
    }
    entry
}

fn sub_entry(row: &KindRow, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", row.plural, sub.name), "singularName": "",
        "namespaced": row.namespaced, "kind": sub.kind, "verbs": sub.verbs,
    });
    if let Some(group) = sub.group {
        entry["group"] = json!(group);
    }
    if let Some(version) = sub.version {
        entry["version"] = json!(version);
    }
    entry
}

#[test]
fn every_row_equals_the_recorded_resource_lists_in_order() {
    let recorded = recorded_lists();
    let mut ours: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in kinds() {
        for version in row.versions {
            let list = ours.entry(group_version(row, version)).or_default();
            list.push(main_entry(row));
            list.extend(row.subresources.iter().map(|sub| sub_entry(row, sub)));
        }
    }
    for (version, list) in ours {
        let served: Vec<&str> = list.iter().filter_map(|one| one["name"].as_str()).collect();
        let expected: Vec<&Value> = recorded[&version]
            .iter()
            .filter(|one| served.contains(&one["name"].as_str().unwrap()))
            .collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), expected, "{version}");
    }
}

#[test]
fn groups_stand_in_the_recorded_order() {
    let aggregated = exchanges("discovery/version-and-aggregated");
    let mut recorded = vec![String::new()];
    let groups = aggregated
        .iter()
        .find(|one| one.response["kind"] == "APIGroupList")
        .unwrap();
    for group in groups.response["groups"].as_array().unwrap() {
        recorded.push(group["name"].as_str().unwrap().to_string());
    }
    let mut ours: Vec<String> = kinds().iter().map(|row| row.group.to_string()).collect();
    ours.dedup();
    recorded.retain(|group| ours.contains(group));
    assert_eq!(ours, recorded);
}

#[test]
fn the_preferred_version_stands_first() {
    let row = local_kinds::kind_of("autoscaling", "horizontalpodautoscalers").unwrap();
    assert_eq!(row.versions, ["v2", "v1"]);
}

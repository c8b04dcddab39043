//! The table of built-in kinds: where each is served and what discovery says about it.
//!
//! Rows are plain data; a kind is served because it stands here. It refuses behaviour: that is in the kinds' rules.

mod cluster;
mod core;
mod others;
mod workloads;

use std::sync::LazyLock;

use crate::rules::{KindRow, Plain, Subresource};

/// Verbs of a kind that can do everything, in discovery's order.
pub const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];
const CHANGE_VERBS: &[&str] = &["get", "patch", "update"];

/// What most rows have in common; each row overrides what differs.
const ROW: KindRow = KindRow {
    group: "",
    versions: &["v1"],
    storage_version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: ALL_VERBS,
    subresources: &[],
    stored_under: None,
    storage_version_hash: "",
    deprecation: "",
    rules: &Plain,
};

const SCALE: Subresource = foreign("scale", "autoscaling", "v1", "Scale", CHANGE_VERBS);

const fn status(kind: &'static str) -> Subresource {
    Subresource::own("status", kind, CHANGE_VERBS)
}

const fn foreign(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group: Some(group),
        version: Some(version),
        kind,
        verbs,
    }
}

/// Groups in the order in which discovery lists them, which is also the order of preference between them.
const GROUPS: &[&[KindRow]] = &[
    core::CORE,
    cluster::APIREGISTRATION,
    workloads::APPS,
    others::EVENTS,
    cluster::AUTHENTICATION,
    cluster::AUTHORIZATION,
    workloads::AUTOSCALING,
    workloads::BATCH,
    cluster::CERTIFICATES,
    others::NETWORKING,
    workloads::POLICY,
    cluster::RBAC,
    others::STORAGE,
    cluster::ADMISSIONREGISTRATION,
    cluster::APIEXTENSIONS,
    others::SCHEDULING,
    others::COORDINATION,
    others::DISCOVERY,
];

static KINDS: LazyLock<Vec<KindRow>> = LazyLock::new(|| GROUPS.concat());

/// Every built-in kind, group by group and resource by resource in the order in which discovery lists them.
/// Rows whose verbs are only `create` (bindings, reviews) are answered, never stored.
pub fn kinds() -> &'static [KindRow] {
    &KINDS
}

/// The row that serves `plural` in `group`.
pub fn kind_of(group: &str, plural: &str) -> Option<&'static KindRow> {
    kinds()
        .iter()
        .find(|row| row.group == group && row.plural == plural)
}

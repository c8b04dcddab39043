//! Reads the workload whose pods are spread, and which pods are its.

use std::collections::BTreeSet;

use elastic_core::workload_spread::{TargetReference, WorkloadSpreadSpec};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::core::Selector;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// Set by the Deployment controller on its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
const VERSION_LABEL: &str = "pod-template-hash";

/// The workload.
pub(super) struct Workload {
    pub(super) replicas: u32,
    /// Its pods' labels.
    pub(super) selector: String,
    /// UIDs of what its pods are owned by; empty when the selector alone tells.
    pub(super) owners: BTreeSet<String>,
    /// The newest revision.
    pub(super) newest: Option<String>,
    /// What its pods are made from, where that is known.
    pub(super) template: Option<Value>,
}

fn api(client: &Client, namespace: &str, target: &TargetReference) -> Api<DynamicObject> {
    let version = target.api_version.rsplit('/').next().unwrap_or_default();
    let kind = GroupVersionKind::gvk(target.group(), version, &target.kind);
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind))
}

/// The workload; `None` when it is not there.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    spec: &WorkloadSpreadSpec,
) -> Result<Option<Workload>, kube::Error> {
    let target = &spec.target_ref;
    let objects = api(client, namespace, target);
    let Some(object) = objects.get_opt(&target.name).await? else {
        return Ok(None);
    };
    let uid = object.uid().unwrap_or_default();
    let object = json!(object);
    let own = target.group() == "apps";
    let (mut replicas, selector) = if own {
        let replicas = object["spec"]["replicas"].as_u64().unwrap_or(1);
        (replicas, selector_text(&object["spec"]["selector"]))
    } else {
        let scale = objects.get_scale(&target.name).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let status = scale.status.unwrap_or_default();
        (
            u64::try_from(replicas).unwrap_or(0),
            status.selector.unwrap_or_default(),
        )
    };
    if let Some(counted) = by_paths(&object, spec) {
        replicas = counted;
    }
    let mut workload = Workload {
        replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        selector,
        owners: BTreeSet::new(),
        newest: None,
        template: own.then(|| object["spec"]["template"].clone()),
    };
    if target.is_deployment() {
        replica_sets(client, namespace, &uid, &mut workload).await?;
    } else if own {
        workload.owners.insert(uid);
    }
    Ok(Some(workload))
}

/// Only its replicas; 0 when it is not there.
pub(crate) async fn replicas(
    client: &Client,
    namespace: &str,
    spec: &WorkloadSpreadSpec,
) -> Result<u32, kube::Error> {
    let workload = read(client, namespace, spec).await?;
    Ok(workload.map_or(0, |workload| workload.replicas))
}

/// The sum of what the filter's paths lead to.
fn by_paths(object: &Value, spec: &WorkloadSpreadSpec) -> Option<u64> {
    let paths = &spec.target_filter.as_ref()?.replicas_path_list;
    if paths.is_empty() {
        return None;
    }
    let number = |path: &String| {
        let found = path
            .trim_start_matches('.')
            .split('.')
            .try_fold(object, |value, member| value.get(member));
        found.and_then(Value::as_u64).unwrap_or(0)
    };
    Some(paths.iter().map(number).sum())
}

async fn replica_sets(
    client: &Client,
    namespace: &str,
    uid: &str,
    workload: &mut Workload,
) -> Result<(), kube::Error> {
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let which = ListParams::default().labels(&workload.selector);
    let mut newest = None;
    for set in sets.list_metadata(&which).await?.items {
        if !set.owner_references().iter().any(|owner| owner.uid == uid) {
            continue;
        }
        let revision: u64 = set
            .annotations()
            .get(REVISION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let hash = set.labels().get(VERSION_LABEL).cloned();
        newest = newest.max(hash.map(|hash| (revision, hash)));
        workload.owners.extend(set.uid());
    }
    workload.newest = newest.map(|(_, hash)| hash);
    Ok(())
}

fn selector_text(selector: &Value) -> String {
    let parsed = serde_json::from_value(selector.clone()).ok().and_then(
        |selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
            Selector::try_from(selector).ok()
        },
    );
    parsed
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

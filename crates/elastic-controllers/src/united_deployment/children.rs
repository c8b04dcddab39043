//! Reads and writes of the child workloads and their pods.

use std::collections::BTreeMap;

use elastic_core::names::SUBSET_LABEL;
use elastic_core::pod_facts::has_ended;
use elastic_core::united_deployment::{ChildKind, UnitedDeployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams, Preconditions,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::pass::{PassError, selector_text};

/// A child that exists.
pub(super) struct Child {
    pub(super) kind: ChildKind,
    pub(super) object: Value,
}

impl Child {
    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(super) fn subset(&self) -> &str {
        let labels = &self.object["metadata"]["labels"];
        labels[SUBSET_LABEL].as_str().unwrap_or_default()
    }

    fn count(&self, part: &str, member: &str) -> Option<u32> {
        let found = self.object[part][member].as_u64();
        found.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// `spec.replicas`; a child without the field has one.
    pub(super) fn wanted(&self) -> u32 {
        self.count("spec", "replicas").unwrap_or(1)
    }

    /// A number of its status.
    pub(super) fn status(&self, member: &str) -> u32 {
        self.count("status", member).unwrap_or(0)
    }

    /// Whether its status is about its newest spec.
    pub(super) fn is_observed(&self) -> bool {
        let observed = self.object["status"]["observedGeneration"].as_i64();
        observed >= self.object["metadata"]["generation"].as_i64()
    }
}

/// Access to the children of one owner.
pub(super) struct Children<'a> {
    pub(super) owner: &'a UnitedDeployment,
    client: &'a Client,
    namespace: String,
}

impl<'a> Children<'a> {
    pub(super) fn new(client: &'a Client, owner: &'a UnitedDeployment) -> Self {
        Self {
            owner,
            client,
            namespace: owner.namespace().unwrap_or_default(),
        }
    }

    fn api(&self, kind: ChildKind) -> Api<DynamicObject> {
        let plural = match kind {
            ChildKind::Deployment => "deployments",
            ChildKind::StatefulSet => "statefulsets",
        };
        let kind = GroupVersionKind::gvk("apps", "v1", kind.name());
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// All children, also those of subsets no longer in the spec, and of the other kind.
    pub(super) async fn list(&self) -> Result<Vec<Child>, PassError> {
        let uid = self.owner.uid().unwrap_or_default();
        let labelled = ListParams::default().labels(SUBSET_LABEL);
        let mut children = Vec::new();
        for kind in [ChildKind::Deployment, ChildKind::StatefulSet] {
            let listed = self.api(kind).list(&labelled).await;
            let list =
                listed.map_err(PassError::about("list children of", &self.owner.name_any()))?;
            let owned = list
                .items
                .into_iter()
                .filter(|child| child.owner_references().iter().any(|one| one.uid == uid));
            children.extend(owned.map(|child| Child {
                kind,
                object: json!(child),
            }));
        }
        Ok(children)
    }

    pub(super) async fn create(&self, kind: ChildKind, child: &Value) -> Result<(), PassError> {
        let name = child["metadata"]["name"].as_str().unwrap_or_default();
        let object = read(child, name)?;
        let created = self.api(kind).create(&PostParams::default(), &object).await;
        created.map(drop).map_err(|error| match error {
            kube::Error::Api(status) if status.is_already_exists() => {
                PassError::NotOurs(format!("{} {name}", kind.name().to_lowercase()))
            }
            error => PassError::about("create", name)(error),
        })
    }

    /// Writes everything derived, keeping what others put on the object; a write in between is a conflict, never lost.
    pub(super) async fn replace(&self, existing: &Child, derived: &Value) -> Result<(), PassError> {
        let name = existing.name();
        let mut next = existing.object.clone();
        for member in ["labels", "annotations"] {
            for (key, value) in derived["metadata"][member]
                .as_object()
                .into_iter()
                .flatten()
            {
                next["metadata"][member][key] = value.clone();
            }
        }
        next["spec"] = derived["spec"].clone();
        next["metadata"]["managedFields"] = Value::Null;
        let object = read(&next, name)?;
        let written = self
            .api(existing.kind)
            .replace(name, &PostParams::default(), &object)
            .await;
        written.map(drop).map_err(PassError::about("update", name))
    }

    pub(super) async fn set_replicas(&self, child: &Child, replicas: u32) -> Result<(), PassError> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let written = self
            .api(child.kind)
            .patch(child.name(), &PatchParams::default(), &patch)
            .await;
        written
            .map(drop)
            .map_err(PassError::about("scale", child.name()))
    }

    /// Deletes exactly this object, not a newer one of the same name.
    pub(super) async fn delete(&self, child: &Child) -> Result<(), PassError> {
        let exactly = Preconditions {
            uid: child.object["metadata"]["uid"].as_str().map(str::to_owned),
            resource_version: None,
        };
        let how = DeleteParams::background().preconditions(exactly);
        match self.api(child.kind).delete(child.name(), &how).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => outcome
                .map(drop)
                .map_err(PassError::about("delete", child.name())),
        }
    }

    /// Pods that have not ended, by subset.
    pub(super) async fn pods(&self) -> Result<BTreeMap<String, Vec<Pod>>, PassError> {
        let base = selector_text(&self.owner.spec.selector, "spec.selector")?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("{base},{SUBSET_LABEL}"));
        let listed = pods.list(&ours).await;
        let list = listed.map_err(PassError::about("list pods of", &self.owner.name_any()))?;
        let mut subsets: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in list.items.into_iter().filter(|pod| !has_ended(pod)) {
            let subset = pod.labels().get(SUBSET_LABEL).cloned().unwrap_or_default();
            subsets.entry(subset).or_default().push(pod);
        }
        Ok(subsets)
    }
}

fn read(object: &Value, name: &str) -> Result<DynamicObject, PassError> {
    let read = serde_json::from_value(object.clone());
    read.map_err(|error| PassError::about("write", name)(kube::Error::SerdeError(error)))
}

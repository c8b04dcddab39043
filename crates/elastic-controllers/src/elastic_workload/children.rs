//! Reads and writes of the source and the unit Deployments.

use std::time::Duration;

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::ChildState;
use elastic_core::names::{POD_MOMENTS_ANNOTATION, UNIT_LABEL, WORKLOAD_LABEL};
use elastic_core::timeline::SampleMoments;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams, Preconditions,
};
use kube::core::{PartialObjectMeta, Selector};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::ReconcileError;

/// Asking for the samples behind a rise takes this long at most.
const SAMPLES_TIMEOUT: Duration = Duration::from_millis(300);

/// Access to the children of one workload.
pub(super) struct Children<'a> {
    pub(super) workload: &'a ElasticWorkload,
    client: &'a Client,
    api: Api<Deployment>,
}

impl<'a> Children<'a> {
    pub(super) fn new(client: &'a Client, workload: &'a ElasticWorkload) -> Self {
        let api = Api::namespaced(client.clone(), &workload.namespace().unwrap_or_default());
        Self {
            workload,
            client,
            api,
        }
    }

    /// The source, unless it is absent or on its way out.
    pub(super) async fn source(&self) -> Result<Option<Deployment>, ReconcileError> {
        let name = &self.workload.spec.source_target.name;
        let found = self
            .api
            .get_opt(name)
            .await
            .map_err(ReconcileError::about("read", name))?;
        Ok(found.filter(|source| source.metadata.deletion_timestamp.is_none()))
    }

    /// All Deployments that belong to this workload as units, also those no longer in the spec.
    pub(super) async fn units(&self) -> Result<Vec<Deployment>, ReconcileError> {
        let name = self.workload.name_any();
        let labelled = ListParams::default().labels(&format!("{WORKLOAD_LABEL}={name}"));
        let list = self
            .api
            .list(&labelled)
            .await
            .map_err(ReconcileError::about("list units of", &name))?;
        let uid = self.workload.uid().unwrap_or_default();
        let mut units = list.items;
        units.retain(|unit| unit.owner_references().iter().any(|owner| owner.uid == uid));
        Ok(units)
    }

    pub(super) async fn create(&self, unit: &Deployment) -> Result<Deployment, ReconcileError> {
        let name = unit.name_any();
        self.api
            .create(&PostParams::default(), unit)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) if status.is_already_exists() => {
                    ReconcileError::NotOurs(name)
                }
                error => ReconcileError::about("create", &name)(error),
            })
    }

    /// Writes everything derived, keeping what others put on the object; a write in between is a conflict, never lost.
    pub(super) async fn update(
        &self,
        existing: &Deployment,
        derived: &Deployment,
    ) -> Result<(), ReconcileError> {
        let name = existing.name_any();
        let mut next = existing.clone();
        next.labels_mut().extend(derived.labels().clone());
        next.annotations_mut().extend(derived.annotations().clone());
        next.spec = derived.spec.clone();
        next.metadata.managed_fields = None;
        next.status = None;
        let written = self.api.replace(&name, &PostParams::default(), &next).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("update", &name))
    }

    /// Asks the child `name` for `replicas`.
    pub(super) async fn set_replicas(
        &self,
        name: &str,
        replicas: u32,
    ) -> Result<(), ReconcileError> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let written = self.api.patch(name, &PatchParams::default(), &patch).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("scale", name))
    }

    /// Deletes exactly this object, not a newer one of the same name.
    pub(super) async fn delete(&self, unit: &Deployment) -> Result<(), ReconcileError> {
        let name = unit.name_any();
        let exactly = Preconditions {
            uid: unit.uid(),
            resource_version: None,
        };
        match self
            .api
            .delete(&name, &DeleteParams::background().preconditions(exactly))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => outcome
                .map(drop)
                .map_err(ReconcileError::about("delete", &name)),
        }
    }

    /// Metadata of the living serverless pods, also of those that are being removed.
    pub(super) async fn unit_pods(
        &self,
        selector: &LabelSelector,
    ) -> Result<Vec<PartialObjectMeta<Pod>>, ReconcileError> {
        let name = self.workload.name_any();
        let base = selector_text(selector)?;
        let text = if base.is_empty() {
            UNIT_LABEL.to_owned()
        } else {
            format!("{base},{UNIT_LABEL}")
        };
        let pods: Api<Pod> = Api::namespaced(
            self.client.clone(),
            &self.workload.namespace().unwrap_or_default(),
        );
        let listed = pods
            .list_metadata(&ListParams::default().labels(&text))
            .await;
        let list = listed.map_err(ReconcileError::about("list serverless pods of", &name))?;
        Ok(list.items)
    }

    /// What the metrics API says about when it had its samples of the pods. It only explains a rise, so a metrics API
    /// that is absent, slow or says nothing about moments is no error.
    pub(super) async fn samples(&self, selector: &LabelSelector) -> Vec<SampleMoments> {
        let kind = GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics");
        let resource = ApiResource::from_gvk_with_plural(&kind, "pods");
        let metrics: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            &self.workload.namespace().unwrap_or_default(),
            &resource,
        );
        let Ok(text) = selector_text(selector) else {
            return Vec::new();
        };
        let wanted = ListParams::default().labels(&text);
        let listed = tokio::time::timeout(SAMPLES_TIMEOUT, metrics.list(&wanted)).await;
        let items = listed.ok().and_then(Result::ok).map(|list| list.items);
        let moments = |item: &DynamicObject| -> Option<Vec<SampleMoments>> {
            serde_json::from_str(item.annotations().get(POD_MOMENTS_ANNOTATION)?).ok()
        };
        let items = items.unwrap_or_default();
        items.iter().filter_map(moments).flatten().collect()
    }

    /// Sets the number of replicas of a workload that was written without one.
    pub(super) async fn adopt_replicas(&self, replicas: i32) -> Result<(), ReconcileError> {
        let name = self.workload.name_any();
        let api: Api<ElasticWorkload> = Api::namespaced(
            self.client.clone(),
            &self.workload.namespace().unwrap_or_default(),
        );
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let written = api.patch(&name, &PatchParams::default(), &patch).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("set spec.replicas of", &name))
    }
}

/// A selector as the text that `scale` shows and lists take.
pub(super) fn selector_text(selector: &LabelSelector) -> Result<String, ReconcileError> {
    let parsed = Selector::try_from(selector.clone()).map_err(|_| ReconcileError::Selector)?;
    Ok(parsed.to_string())
}

/// What a Deployment's own numbers say about it.
pub(super) fn child_state(deployment: &Deployment) -> ChildState {
    let count = |value: Option<i32>| u32::try_from(value.unwrap_or(0)).unwrap_or(0);
    let status = deployment.status.as_ref();
    let terminating = status.and_then(|status| status.terminating_replicas);
    ChildState {
        // A Deployment without the field has one replica.
        wanted: deployment
            .spec
            .as_ref()
            .map_or(0, |spec| count(spec.replicas.or(Some(1)))),
        pods: count(status.and_then(|status| status.replicas)).saturating_add(count(terminating)),
    }
}

//! Reads and writes of the source, the units and their pods.

use std::time::Duration;

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{PlacePods, SourceKind, SourceMark, waiting_pod};
use elastic_core::names::{POD_MOMENTS_ANNOTATION, UNIT_LABEL, WORKLOAD_LABEL};
use elastic_core::timeline::SampleMoments;
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
/// Under this name the API keeps what was written here.
pub(super) const FIELD_MANAGER: &str = "elastic-workload";

/// Access to the children of one workload.
pub(super) struct Children<'a> {
    pub(super) workload: &'a ElasticWorkload,
    pub(super) kind: SourceKind,
    client: &'a Client,
    api: Api<DynamicObject>,
}

impl<'a> Children<'a> {
    pub(super) fn new(client: &'a Client, workload: &'a ElasticWorkload, kind: SourceKind) -> Self {
        let namespace = workload.namespace().unwrap_or_default();
        let api = Api::namespaced_with(client.clone(), &namespace, &kind.api_resource());
        Self {
            workload,
            kind,
            client,
            api,
        }
    }

    fn pods(&self) -> Api<Pod> {
        let namespace = self.workload.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }

    /// The source, unless it is absent or on its way out.
    pub(super) async fn source(&self) -> Result<Option<DynamicObject>, ReconcileError> {
        let name = &self.workload.spec.source_target.name;
        let found = self.api.get_opt(name).await;
        let found = found.map_err(ReconcileError::about("read", name))?;
        Ok(found.filter(|source| source.metadata.deletion_timestamp.is_none()))
    }

    /// All objects that belong to this workload as units, also those no longer in the spec.
    pub(super) async fn units(&self) -> Result<Vec<DynamicObject>, ReconcileError> {
        let name = self.workload.name_any();
        let mut units = units_of(&self.api, &name).await?;
        let uid = self.workload.uid().unwrap_or_default();
        units.retain(|unit| unit.owner_references().iter().any(|owner| owner.uid == uid));
        Ok(units)
    }

    pub(super) async fn create(&self, unit: &DynamicObject) -> Result<(), ReconcileError> {
        let name = unit.name_any();
        let created = self.api.create(&PostParams::default(), unit).await;
        created.map(drop).map_err(|error| match error {
            kube::Error::Api(status) if status.is_already_exists() => ReconcileError::NotOurs {
                noun: self.kind.noun(),
                name,
            },
            error => ReconcileError::about("create", &name)(error),
        })
    }

    /// Takes the object's place; a write in between is a conflict, never lost.
    pub(super) async fn replace(&self, unit: &DynamicObject) -> Result<(), ReconcileError> {
        let name = unit.name_any();
        let written = self.api.replace(&name, &PostParams::default(), unit).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("update", &name))
    }

    /// Asks the unit `name` for `replicas`.
    pub(super) async fn scale(&self, name: &str, replicas: u32) -> Result<(), ReconcileError> {
        let patch = Patch::Merge(json!({"spec": {self.kind.replicas_field(): replicas}}));
        let written = self.api.patch(name, &PatchParams::default(), &patch).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("scale", name))
    }

    /// Asks the source for what `mark` says, and notes it there.
    pub(super) async fn ask_source(
        &self,
        source: &DynamicObject,
        mark: &SourceMark,
    ) -> Result<(), ReconcileError> {
        let name = source.name_any();
        let mut patch = json!({"metadata": mark.metadata()});
        if self.kind.wanted(source) != mark.asked {
            patch["spec"] = json!({self.kind.replicas_field(): mark.asked});
        }
        let how = PatchParams::apply(FIELD_MANAGER);
        let written = self.api.patch(&name, &how, &Patch::Merge(patch)).await;
        written
            .map(drop)
            .map_err(ReconcileError::about("scale", &name))
    }

    /// Deletes exactly this object, not a newer one of the same name.
    pub(super) async fn delete(&self, unit: &DynamicObject) -> Result<(), ReconcileError> {
        delete(&self.api, unit).await
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
        let labelled = ListParams::default().labels(&text);
        let listed = self.pods().list_metadata(&labelled).await;
        let list = listed.map_err(ReconcileError::about("list serverless pods of", &name))?;
        Ok(list.items)
    }

    /// The pods of the source and of each of `units`, as far as their capacity is in question. The first is the source's.
    pub(super) async fn place_pods(
        &self,
        selector: &LabelSelector,
        units: &[&str],
    ) -> Result<Vec<PlacePods>, ReconcileError> {
        let name = self.workload.name_any();
        let labelled = ListParams::default().labels(&selector_text(selector)?);
        let listed = self.pods().list(&labelled).await;
        let list = listed.map_err(ReconcileError::about("list pods of", &name))?;
        let mut places = vec![PlacePods::default(); units.len() + 1];
        for pod in &list.items {
            let place = match pod.labels().get(UNIT_LABEL) {
                None => Some(0),
                Some(unit) => units
                    .iter()
                    .position(|name| name == unit)
                    .map(|index| index + 1),
            };
            if let Some(place) = place.and_then(|index| places.get_mut(index)) {
                count_pod(place, pod);
            }
        }
        Ok(places)
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
    pub(super) async fn adopt_replicas(&self, replicas: u32) -> Result<(), ReconcileError> {
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

fn count_pod(place: &mut PlacePods, pod: &Pod) {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Failed" | "Succeeded"));
    place.waiting.extend(waiting_pod(pod));
    if ended || pod.metadata.deletion_timestamp.is_some() {
        return;
    }
    place.living += 1;
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    place.ready += u32::from(ready);
}

/// All objects that are labelled as units of the workload `name`, whoever owns them.
pub(super) async fn units_of(
    api: &Api<DynamicObject>,
    name: &str,
) -> Result<Vec<DynamicObject>, ReconcileError> {
    let labelled = ListParams::default().labels(&format!("{WORKLOAD_LABEL}={name}"));
    let list = api.list(&labelled).await;
    let list = list.map_err(ReconcileError::about("list units of", name))?;
    Ok(list.items)
}

/// Deletes exactly this object, not a newer one of the same name; one that is gone is fine.
pub(super) async fn delete(
    api: &Api<DynamicObject>,
    unit: &DynamicObject,
) -> Result<(), ReconcileError> {
    let name = unit.name_any();
    let exactly = Preconditions {
        uid: unit.uid(),
        resource_version: None,
    };
    let how = DeleteParams::background().preconditions(exactly);
    match api.delete(&name, &how).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome
            .map(drop)
            .map_err(ReconcileError::about("delete", &name)),
    }
}

/// A selector as the text that `scale` shows and lists take.
pub(super) fn selector_text(selector: &LabelSelector) -> Result<String, ReconcileError> {
    let parsed = Selector::try_from(selector.clone()).map_err(|_| ReconcileError::Selector)?;
    Ok(parsed.to_string())
}

//! The pods of a Job: their labels and finalizer, their index, and who of them still counts as tracked.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use serde_json::{Value, json};

use crate::shared::objects::name;
use crate::shared::ownership::controller_reference;

/// Holds a pod until it has been counted.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Whether a pod has not been counted yet.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == TRACKING_FINALIZER)
}

/// The completion index of a pod.
pub fn index(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)
}

/// How often the index of a pod had failed before that pod.
pub fn earlier_failures(pod: &Pod) -> i32 {
    annotation(pod, INDEX_FAILURES).unwrap_or(0)
}

fn annotation(pod: &Pod, key: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Whether each pod of a Job has a number of its own.
pub fn is_indexed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// One pod to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NewPod {
    /// Its index, for indexed Jobs.
    pub index: Option<i32>,
    /// How often that index has failed, where failures are counted by index.
    pub index_failures: Option<i32>,
}

/// The pod as the Job's template says.
pub fn pod_body(job: &Job, new: NewPod) -> Value {
    let template = job
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut spec = template.spec.unwrap_or_default();
    let (mut labels, mut annotations) = (
        meta.labels.unwrap_or_default(),
        meta.annotations.unwrap_or_default(),
    );
    let mut prefix = name(&job.metadata).to_owned();
    if let Some(index) = new.index {
        prefix = format!("{prefix}-{index}");
        labels.insert(INDEX.to_owned(), index.to_string());
        annotations.insert(INDEX.to_owned(), index.to_string());
        spec.hostname = Some(prefix.clone());
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            tell_index(container);
        }
    }
    if let Some(failures) = new.index_failures {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    let mut finalizers = meta.finalizers.unwrap_or_default();
    finalizers.push(TRACKING_FINALIZER.to_owned());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{prefix}-"),
            "namespace": job.metadata.namespace,
            "labels": labels,
            "annotations": (!annotations.is_empty()).then_some(annotations),
            "finalizers": finalizers,
            "ownerReferences": [controller_reference(job)],
        },
        "spec": spec,
    })
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|one| one.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        api_version: None,
        field_path: format!("metadata.labels['{INDEX}']"),
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

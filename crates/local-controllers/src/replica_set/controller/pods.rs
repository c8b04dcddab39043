//! Creates and deletes the pods of a set, many at once, after a first few have shown that it works.

use std::sync::Arc;

use http::Method;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Controller;
use crate::shared::batch::{Failures, each};
use crate::shared::objects::{name, namespace};
use crate::shared::requests::{delete as delete_object, path_of, send};
use crate::shared::{ControllerError, ObjectKey};

/// So many are tried before all others.
const FIRST_BATCH: usize = 16;

#[derive(Deserialize)]
struct Created {
    metadata: CreatedMeta,
}

#[derive(Deserialize)]
struct CreatedMeta {
    name: String,
}

/// Creates that many pods from the set's template.
pub(super) async fn create(
    controller: &Controller,
    key: &ObjectKey,
    set: &ReplicaSet,
    count: usize,
) -> Result<(), ControllerError> {
    let body: Arc<[u8]> = pod_body(set).to_string().into_bytes().into();
    let path: Arc<str> = path_of::<Pod>(&key.namespace, "", "").into();
    controller.expectations.expect_creations(key, count);
    let mut done = 0;
    let mut failures = Failures::new(count);
    while done < count && failures.is_empty() {
        let batch = if done == 0 {
            count.min(FIRST_BATCH)
        } else {
            count - done
        };
        let requests = (0..batch).map(|_| {
            let (client, body, path) = (
                controller.cluster.client().clone(),
                Arc::clone(&body),
                Arc::clone(&path),
            );
            async move {
                send::<Created>(
                    &client,
                    Method::POST,
                    &path,
                    "application/json",
                    body.to_vec(),
                )
                .await
            }
        });
        each(requests, |result| match result {
            Ok(created) => {
                let message = format!("Created pod: {}", created.metadata.name);
                controller.record(set, false, "SuccessfulCreate", message);
            }
            Err(error) => {
                controller.expectations.creation_seen(key);
                if !error.is_namespace_going() {
                    let message = format!("Error creating: {}", error.api_message());
                    controller.record(set, true, "FailedCreate", message);
                }
                failures.add(error);
            }
        })
        .await;
        done += batch;
    }
    for _ in done..count {
        controller.expectations.creation_seen(key);
    }
    failures.into_result()
}

/// Deletes those pods.
pub(super) async fn delete(
    controller: &Controller,
    key: &ObjectKey,
    set: &ReplicaSet,
    victims: Vec<Arc<Pod>>,
) -> Result<(), ControllerError> {
    let keys: Vec<ObjectKey> = victims
        .iter()
        .map(|pod| ObjectKey::of(pod.as_ref()))
        .collect();
    controller.expectations.expect_deletions(key, keys);
    let mut failures = Failures::new(victims.len());
    let requests = victims.into_iter().map(|pod| {
        let client = controller.cluster.client().clone();
        async move {
            let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.metadata.uid},
            });
            let result = delete_object(&client, &path, &options).await;
            (ObjectKey::of(pod.as_ref()), result)
        }
    });
    each(requests, |(pod, result)| match result {
        Ok(()) => controller.record(
            set,
            false,
            "SuccessfulDelete",
            format!("Deleted pod: {}", pod.name),
        ),
        Err(error) => {
            controller.expectations.deletion_seen(key, &pod);
            let message = format!("Error deleting: {}", error.api_message());
            controller.record(set, true, "FailedDelete", message);
            failures.add(error);
        }
    })
    .await;
    failures.into_result()
}

/// A pod as the set's template says.
fn pod_body(set: &ReplicaSet) -> Value {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let meta = template.and_then(|template| template.metadata.as_ref());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", name(&set.metadata)),
            "namespace": set.metadata.namespace,
            "labels": meta.and_then(|meta| meta.labels.as_ref()),
            "annotations": meta.and_then(|meta| meta.annotations.as_ref()),
            "finalizers": meta.and_then(|meta| meta.finalizers.as_ref()),
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.metadata.name, "uid": set.metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template.and_then(|template| template.spec.as_ref()),
    })
}

//! What policies do with pods: write several at once, and delete one exactly as it was seen.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::pass::PassError;

/// Pods written at the same time.
const MAX_WRITES: usize = 32;

/// Writes a merge patch on each pod; one that has changed or gone meanwhile is seen again.
pub(crate) async fn patch_all(
    client: &Client,
    namespace: &str,
    writes: Vec<(String, Value)>,
) -> Result<(), PassError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut written = futures::stream::iter(writes)
        .map(|(name, patch)| {
            let pods = pods.clone();
            async move {
                let patch = Patch::Merge(patch);
                let outcome = pods.patch(&name, &PatchParams::default(), &patch).await;
                (name, outcome)
            }
        })
        .buffer_unordered(MAX_WRITES);
    while let Some((name, outcome)) = written.next().await {
        match outcome {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            outcome => drop(outcome.map_err(PassError::about("write pod", &name))?),
        }
    }
    Ok(())
}

/// Deletes a pod exactly as it was seen: one that has found its place meanwhile stays.
pub(crate) async fn delete_as_seen(client: &Client, pod: &Pod) -> Result<(), PassError> {
    let namespace = pod.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let how = DeleteParams::default().preconditions(Preconditions {
        uid: pod.uid(),
        resource_version: pod.resource_version(),
    });
    match pods.delete(&pod.name_any(), &how).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        outcome => outcome
            .map(drop)
            .map_err(PassError::about("delete pod", &pod.name_any())),
    }
}

/// All nodes by name.
pub(crate) async fn nodes(client: &Client) -> Result<BTreeMap<String, Node>, PassError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let listed = nodes.list(&ListParams::default()).await;
    let list = listed.map_err(PassError::about("list", "nodes"))?;
    let named = list.items.into_iter().map(|node| (node.name_any(), node));
    Ok(named.collect())
}

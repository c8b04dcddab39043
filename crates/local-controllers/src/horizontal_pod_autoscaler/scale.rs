//! Reads and writes the `/scale` of any kind.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use kube::core::GroupVersionKind;
use kube::discovery;
use serde::Deserialize;
use serde_json::json;

use crate::shared::ControllerError;
use crate::shared::requests::{get, merge_blind};

/// What a scale says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Scale {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    replicas: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    selector: String,
}

impl Scale {
    pub(super) fn replicas(&self) -> i32 {
        self.spec.replicas
    }

    pub(super) fn selector(&self) -> &str {
        &self.status.selector
    }
}

/// Knows the resource names of kinds, once asked for.
#[derive(Default)]
pub(super) struct Scales {
    plurals: Mutex<HashMap<(String, String), String>>,
}

impl Scales {
    pub(super) async fn read(
        &self,
        client: &Client,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<Scale, ControllerError> {
        let path = self.path(client, namespace, target).await?;
        get(client, &path).await
    }

    /// Sets the replicas whatever else changes on the target meanwhile.
    pub(super) async fn write(
        &self,
        client: &Client,
        namespace: &str,
        target: &CrossVersionObjectReference,
        replicas: i32,
    ) -> Result<(), ControllerError> {
        let path = self.path(client, namespace, target).await?;
        merge_blind(client, &path, &json!({"spec": {"replicas": replicas}})).await
    }

    async fn path(
        &self,
        client: &Client,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<String, ControllerError> {
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let plural = self.plural(client, api_version, &target.kind).await?;
        let root = if api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let name = &target.name;
        Ok(format!(
            "/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}/scale"
        ))
    }

    async fn plural(
        &self,
        client: &Client,
        api_version: &str,
        kind: &str,
    ) -> Result<String, ControllerError> {
        if let ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet") = (api_version, kind) {
            return Ok(format!("{}s", kind.to_lowercase()));
        }
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self
            .plurals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind_of = GroupVersionKind::gvk(group, version, kind);
        let (resource, _) = discovery::pinned_kind(client, &kind_of)
            .await
            .map_err(|error| {
                tracing::debug!(%error, kind, api_version, "kind not found in discovery");
                ControllerError::Object(format!("no matches for kind {kind:?} in group {group:?}"))
            })?;
        let mut plurals = self.plurals.lock().unwrap_or_else(PoisonError::into_inner);
        plurals.insert(key, resource.plural.clone());
        Ok(resource.plural)
    }
}

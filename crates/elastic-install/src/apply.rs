//! Brings objects to a cluster by server-side apply, and tells of each what became of it.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::manifests::is_users;
use elastic_core::definitions::is_foreign;
use elastic_core::names::{MANAGED_BY, MANAGED_BY_LABEL};

/// Owner of the fields that are applied.
pub const MANAGER: &str = "springtide-addon";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was different.
    Configured,
    /// It was as it should be.
    Unchanged,
    /// It is the users' or another product's, and is there already.
    Kept,
    /// It was there and is gone.
    Deleted,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Kept => "kept as it is",
            Self::Deleted => "deleted",
        })
    }
}

/// An object could not be brought where it belongs.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} {object}")]
pub struct ApplyError {
    attempted: &'static str,
    object: String,
    #[source]
    source: Box<kube::Error>,
}

/// `kind/name` with the namespace before it, as messages name objects.
pub fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]).to_lowercase();
    let metadata = &object["metadata"];
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind}/{} in {namespace}", text(&metadata["name"])),
        None => format!("{kind}/{}", text(&metadata["name"])),
    }
}

/// The way to an object of any kind.
pub(crate) fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = match version.split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), version),
    };
    let kind = GroupVersionKind {
        group,
        version,
        kind: text(&object["kind"]),
    };
    // The plural is the kind with an s for everything that we install.
    let resource = ApiResource::from_gvk(&kind);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Applies one object; with `dry_run` the server only says what it would do.
pub async fn apply(client: &Client, object: &Value, dry_run: bool) -> Result<Outcome, ApplyError> {
    let failed = |attempted| {
        move |error| ApplyError {
            attempted,
            object: title(object),
            source: Box::new(error),
        }
    };
    let api = api(client, object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let before = api.get_opt(name).await.map_err(failed("read"))?;
    let others = before.as_ref().is_some_and(is_others);
    if others || (before.is_some() && is_users(object)) {
        return Ok(Outcome::Kept);
    }
    let moved = before.as_ref().is_some_and(is_managed_webhook);
    if moved && dry_run {
        return Ok(Outcome::Configured);
    }
    if moved {
        // An entry has a URL or a Service; what others wrote stays through an apply, and both together are refused.
        let gone = api.delete(name, &DeleteParams::default()).await;
        gone.map_err(failed("replace"))?;
    }
    let mut parameters = PatchParams::apply(MANAGER).force();
    parameters.dry_run = dry_run;
    let after = api
        .patch(name, &parameters, &Patch::Apply(object))
        .await
        .map_err(failed("apply"))?;
    Ok(match before {
        None => Outcome::Created,
        Some(before) if content(&before) == content(&after) => Outcome::Unchanged,
        Some(_) => Outcome::Configured,
    })
}

/// Whether it is a webhook configuration that a replica outside the cluster registered for itself.
fn is_managed_webhook(object: &DynamicObject) -> bool {
    let webhooks = object.data["webhooks"].as_array();
    let mut webhooks = webhooks.into_iter().flatten();
    webhooks.any(|webhook| webhook["clientConfig"]["url"].is_string())
}

/// Whether it is the definition of a kind that another product brought.
fn is_others(object: &DynamicObject) -> bool {
    let definition = object
        .types
        .as_ref()
        .is_some_and(|types| types.kind == "CustomResourceDefinition");
    definition
        && is_foreign(&object.name_any())
        && object
            .labels()
            .get(MANAGED_BY_LABEL)
            .is_none_or(|by| by != MANAGED_BY)
}

/// Everything but what the server writes for itself.
fn content(object: &DynamicObject) -> Value {
    let mut object = json!(object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for member in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(member);
        }
    }
    object
}

/// Deletes one object and what belongs to it, unless it is another product's; `None` when it was not there.
pub(crate) async fn delete(client: &Client, object: &Value) -> Result<Option<Outcome>, ApplyError> {
    if find(client, object).await?.as_ref().is_some_and(is_others) {
        return Ok(Some(Outcome::Kept));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match api(client, object)
        .delete(name, &DeleteParams::background())
        .await
    {
        Ok(_) => Ok(Some(Outcome::Deleted)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(source) => Err(ApplyError {
            attempted: "delete",
            object: title(object),
            source: Box::new(source),
        }),
    }
}

/// Whether an object is there.
pub(crate) async fn find(
    client: &Client,
    object: &Value,
) -> Result<Option<DynamicObject>, ApplyError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let found = api(client, object).get_opt(name).await;
    found.map_err(|source| ApplyError {
        attempted: "read",
        object: title(object),
        source: Box::new(source),
    })
}

//! Reads and writes the `/scale` of any kind.

use elastic_core::horizontal_pod_autoscaler::ScaleView;
use http::Method;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::api::{ApiFailure, escape, get, send};
use crate::kinds::Kinds;

/// Writes tried when somebody else changed the target meanwhile, but not its size.
const WRITES_MAX: u32 = 4;
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;

/// A scale as it was read.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The part that counts.
    pub view: ScaleView,
    raw: Value,
    path: String,
    what: String,
}

fn split(target: &CrossVersionObjectReference) -> Result<&str, String> {
    let api_version = target.api_version.as_deref().unwrap_or_default();
    match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [_] => Ok(""),
        [group, _] => Ok(group),
        _ => Err(format!("unexpected GroupVersion string: {api_version}")),
    }
}

/// Reads the scale of a target.
///
/// # Errors
/// The sentence for the autoscaler's condition.
pub(crate) async fn read(
    client: &Client,
    kinds: &Kinds,
    namespace: &str,
    target: &CrossVersionObjectReference,
) -> Result<Scale, String> {
    let group = split(target)?;
    let place = kinds
        .find(client, group, &target.kind)
        .await
        .map_err(|error| {
            format!("unable to determine resource for scale target reference: {error}")
        })?;
    let (root, plural, name) = (place.root(), &place.plural, escape(&target.name));
    let path = format!("{root}/namespaces/{namespace}/{plural}/{name}/scale");
    let what = format!("{} {}", place.resource(), target.name);
    let raw: Value = get(client, &path, &what).await.map_err(|error| {
        if error.code == Some(NOT_FOUND) {
            kinds.forget(group, &target.kind);
        }
        error.message
    })?;
    Ok(Scale {
        view: ScaleView::read(&raw)?,
        raw,
        path,
        what,
    })
}

/// Sets the replicas, unless somebody else has changed the size since it was read.
///
/// # Errors
/// The API server's sentence.
pub(crate) async fn write(
    client: &Client,
    scale: &Scale,
    replicas: i32,
    field_manager: &str,
) -> Result<(), String> {
    let mut raw = scale.raw.clone();
    for _ in 1..WRITES_MAX {
        match put(client, scale, &mut raw, replicas, field_manager).await {
            Err(error) if error.code == Some(CONFLICT) => {
                let newer: Value = get(client, &scale.path, &scale.what)
                    .await
                    .map_err(|error| error.message)?;
                let size = |scale: &Value| scale["spec"]["replicas"].as_i64().unwrap_or(0);
                if size(&newer) != i64::from(scale.view.spec_replicas) {
                    return Err(error.message);
                }
                raw = newer;
            }
            result => return result.map_err(|error| error.message),
        }
    }
    let last = put(client, scale, &mut raw, replicas, field_manager).await;
    last.map_err(|error| error.message)
}

async fn put(
    client: &Client,
    scale: &Scale,
    raw: &mut Value,
    replicas: i32,
    field_manager: &str,
) -> Result<(), ApiFailure> {
    raw["spec"]["replicas"] = replicas.into();
    let path = format!("{}?fieldManager={field_manager}", scale.path);
    let body = raw.to_string().into_bytes();
    send::<IgnoredAny>(client, Method::PUT, &path, body, &scale.what)
        .await
        .map(|_| ())
}

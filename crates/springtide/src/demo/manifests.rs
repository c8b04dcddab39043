//! The sample shop's manifests: the same files a user would `kubectl apply`.

use anyhow::Context;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::Scope;
use kube::{Api, Client, Discovery};
use serde::Deserialize;

/// `examples/flash-sale/`, in order.
const FILES: [(&str, &str); 5] = [
    (
        "00-namespace.yaml",
        include_str!("../../../../examples/flash-sale/00-namespace.yaml"),
    ),
    (
        "10-deployment.yaml",
        include_str!("../../../../examples/flash-sale/10-deployment.yaml"),
    ),
    (
        "20-service.yaml",
        include_str!("../../../../examples/flash-sale/20-service.yaml"),
    ),
    (
        "30-elasticworkload.yaml",
        include_str!("../../../../examples/flash-sale/30-elasticworkload.yaml"),
    ),
    (
        "40-horizontalpodautoscaler.yaml",
        include_str!("../../../../examples/flash-sale/40-horizontalpodautoscaler.yaml"),
    ),
];
/// The shop's namespace in those files.
pub const NAMESPACE: &str = "flash-sale";
/// The name of everything in it.
pub const SHOP: &str = "shop";
/// `sourceTarget.max` in those files.
pub const SOURCE_MAX: u32 = 4;

/// Applies all files, as `kubectl apply --server-side` would.
pub async fn apply(client: &Client) -> anyhow::Result<()> {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .context("discover the cluster's kinds")?;
    for (name, text) in FILES {
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = serde_json::Value::deserialize(document)
                .with_context(|| format!("parse {name}"))?;
            let object: DynamicObject =
                serde_json::from_value(value).with_context(|| format!("parse {name}"))?;
            apply_one(client, &discovery, object)
                .await
                .with_context(|| format!("apply {name}"))?;
        }
    }
    Ok(())
}

async fn apply_one(
    client: &Client,
    discovery: &Discovery,
    object: DynamicObject,
) -> anyhow::Result<()> {
    let types = object
        .types
        .clone()
        .context("the manifest has no apiVersion and kind")?;
    let kind = kube::api::GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = discovery
        .resolve_gvk(&kind)
        .with_context(|| format!("the cluster has no kind {}", kind.kind))?;
    let api: Api<DynamicObject> = match (capabilities.scope, &object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let name = object
        .metadata
        .name
        .clone()
        .context("the manifest has no metadata.name")?;
    api.patch(
        &name,
        &PatchParams::apply("springtide-demo").force(),
        &Patch::Apply(&object),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_what_the_manifests_say() {
        let documents =
            |index: usize| serde_yaml::from_str::<serde_json::Value>(FILES[index].1).unwrap();
        let workload = documents(3);
        assert_eq!(workload["spec"]["sourceTarget"]["max"], SOURCE_MAX);
        assert_eq!(workload["metadata"]["namespace"], NAMESPACE);
        assert_eq!(documents(4)["spec"]["scaleTargetRef"]["name"], SHOP);
        assert_eq!(
            documents(1)["spec"]["template"]["spec"]["containers"][0]["image"],
            crate::sample::image::REFERENCE
        );
    }
}

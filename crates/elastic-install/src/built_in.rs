//! Clusters whose server runs the elastic parts itself: they say so in a ConfigMap, and nobody else may run them there.
//!
//! Two sets of virtual nodes under the same names would take nodes, pods and groups from each other.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::json;

use crate::names::{BUILT_IN, NAMESPACE};

/// What to do instead, in a sentence.
pub const REFUSAL: &str = "this cluster is served by `springtide up`, which runs the virtual nodes and the elastic \
                           controllers itself; a second set would take nodes and pods from the first. Start it with \
                           `springtide up --without-addon` to install the add-on";

/// Whether the cluster's server runs the elastic parts.
pub async fn is_marked(client: &Client) -> Result<bool, Error> {
    Ok(maps(client).get_metadata_opt(BUILT_IN).await?.is_some())
}

/// Says that it does, or that it does not.
pub async fn mark(client: &Client, built_in: bool) -> Result<(), Error> {
    let maps = maps(client);
    if !built_in {
        return match maps.delete(BUILT_IN, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        };
    }
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": BUILT_IN, "namespace": NAMESPACE},
        "data": {"note": REFUSAL},
    });
    let how = PatchParams::apply("springtide").force();
    maps.patch(BUILT_IN, &how, &Patch::Apply(map)).await?;
    Ok(())
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

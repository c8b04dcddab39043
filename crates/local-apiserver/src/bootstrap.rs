//! Objects every cluster starts with.

use crate::auth::User;
use crate::core::Core;
use crate::http::body;
use crate::http::dispatch;
use crate::server::StartError;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where the listener inside the cluster is.
const CONTROL_ADDRESS: &str = "10.10.0.1";
const CONTROL_PORT: u16 = 6443;

/// Creates what is missing.
pub async fn run(core: &Arc<Core>, services: Ipv4Addr) -> Result<(), StartError> {
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(core, "/api/v1/namespaces", name, &namespace).await?;
    }
    let address = Ipv4Addr::from_bits(services.to_bits() + 1).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": CONTROL_PORT}],
        },
    });
    ensure(
        core,
        "/api/v1/namespaces/default/services",
        "kubernetes",
        &service,
    )
    .await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": CONTROL_PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [CONTROL_ADDRESS], "conditions": {"ready": true}}],
    });
    ensure(
        core,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        "kubernetes",
        &slice,
    )
    .await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": CONTROL_ADDRESS}], "ports": [{"name": "https", "port": CONTROL_PORT, "protocol": "TCP"}]}],
    });
    ensure(
        core,
        "/api/v1/namespaces/default/endpoints",
        "kubernetes",
        &endpoints,
    )
    .await?;
    authentication(core).await
}

/// Who vouches for clients, for aggregated servers and kubelets: in the form and place that every cluster has.
async fn authentication(core: &Arc<Core>) -> Result<(), StartError> {
    const NAME: &str = "extension-apiserver-authentication";
    let authority = &core.pki.ca_pem;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME},
        "data": {
            "client-ca-file": authority,
            "requestheader-client-ca-file": authority,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        },
    });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    ensure(core, maps, NAME, &map).await?;
    let reader = format!("{NAME}-reader");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": reader},
        "rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME],
            "verbs": ["get", "list", "watch"],
        }],
    });
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles";
    ensure(core, roles, &reader, &role).await
}

/// Creates one object unless it is there.
pub async fn ensure(
    core: &Arc<Core>,
    collection: &str,
    name: &str,
    object: &Value,
) -> Result<(), StartError> {
    let failed = |reason: String| StartError::Bootstrap {
        object: format!("{collection}/{name}"),
        reason,
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(collection)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver/v1.34")
        .body(body::full(object.to_string()))
        .map_err(|error| failed(error.to_string()))?;
    let user = User::new(
        "system:apiserver",
        &["system:masters", "system:authenticated"],
    );
    let response = dispatch::handle(core.clone(), user, request).await;
    // After a restart the object is there, and a Service's own address is taken by itself.
    if response.status().is_success()
        || response.status() == http::StatusCode::CONFLICT
        || exists(core, collection, name)
    {
        return Ok(());
    }
    let bytes = response
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Err(failed(String::from_utf8_lossy(&bytes).into_owned()))
}

fn exists(core: &Core, collection: &str, name: &str) -> bool {
    let crate::http::path::Route::Resource(path) = crate::http::path::parse(collection) else {
        return false;
    };
    let catalog = core.catalog();
    let resource = catalog.resource(&path.group, &path.plural);
    resource.is_some_and(|resource| {
        core.store
            .get(&resource.storage_id, &resource.key(&path.namespace, name))
            .is_some()
    })
}

//! Slices for Endpoints objects that were written by hand, for services without a selector.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use serde_json::{Value, json};

use super::members::inherited_labels;
use super::slices::{MANAGER_LABEL, SERVICE_LABEL};
use crate::shared::objects::name;

/// Who looks after mirrored slices.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const ADDRESSES_MAX: usize = 1000;

/// Whether an Endpoints object is to be mirrored.
pub fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SKIP_LABEL))
        .is_some_and(|text| text == "true");
    let is_lock = meta
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(LEADER));
    let has_selector = service
        .and_then(|service| service.spec.as_ref())
        .is_some_and(|spec| {
            spec.selector
                .as_ref()
                .is_some_and(|selector| !selector.is_empty())
        });
    service.is_some() && !has_selector && !skips && !is_lock
}

/// One slice for each subset.
pub fn slices(endpoints: &Endpoints, service: &Service) -> Vec<Value> {
    endpoints
        .subsets
        .iter()
        .flatten()
        .map(|subset| slice(endpoints, service, subset))
        .collect()
}

fn slice(endpoints: &Endpoints, service: &Service, subset: &EndpointSubset) -> Value {
    let mut labels = inherited_labels(service);
    labels.extend(endpoints.metadata.labels.clone().unwrap_or_default());
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    labels.insert(
        SERVICE_LABEL.to_owned(),
        name(&endpoints.metadata).to_owned(),
    );
    let ready = subset
        .addresses
        .iter()
        .flatten()
        .map(|address| endpoint(address, true));
    let not_ready = subset
        .not_ready_addresses
        .iter()
        .flatten()
        .map(|address| endpoint(address, false));
    let listed: Vec<Value> = ready.chain(not_ready).take(ADDRESSES_MAX).collect();
    let ports: Vec<Value> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let mut written = json!({
                "name": port.name.as_deref().unwrap_or_default(),
                "protocol": port.protocol.as_deref().unwrap_or("TCP"),
                "port": port.port,
            });
            if let Some(app) = &port.app_protocol {
                written["appProtocol"] = app.as_str().into();
            }
            written
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", name(&endpoints.metadata)),
            "namespace": endpoints.metadata.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Endpoints", "name": endpoints.metadata.name,
                "uid": endpoints.metadata.uid, "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "endpoints": listed,
        "ports": ports,
    })
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address.ip], "conditions": {"ready": ready}});
    let more = [
        ("nodeName", json!(address.node_name)),
        ("hostname", json!(address.hostname)),
        ("targetRef", json!(address.target_ref)),
    ];
    for (key, value) in more.into_iter().filter(|(_, value)| !value.is_null()) {
        endpoint[key] = value;
    }
    endpoint
}

/// Whether a slice says what it should.
pub fn is_same(wanted: &Value, existing: &Value) -> bool {
    ["endpoints", "ports", "addressType"]
        .iter()
        .all(|key| wanted[key] == existing[key])
        && wanted["metadata"]["labels"] == existing["metadata"]["labels"]
}

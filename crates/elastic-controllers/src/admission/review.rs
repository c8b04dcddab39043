//! From an `AdmissionReview` request to its answer. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use elastic_core::routing::{self, Route};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::Deserialize;
use serde_json::{Value, json};

/// The parts of a request that matter here.
#[derive(Deserialize)]
struct Review {
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    object: Pod,
}

/// A body that is no review of a pod.
#[derive(Debug, thiserror::Error)]
#[error("read an AdmissionReview of a pod")]
pub(super) struct ReviewError(#[source] serde_json::Error);

/// Answers a review of a pod that came in by `route`.
pub(super) fn answer(body: &[u8], route: Route) -> Result<Value, ReviewError> {
    let review: Review = serde_json::from_slice(body).map_err(ReviewError)?;
    let pod = &review.request.object;
    let labels = pod.metadata.labels.as_ref();
    let routed = match route {
        Route::PodLabel => routing::pod_asks_for_serverless(labels),
        // The API server matched the namespace's labels; only the pod's own can still say otherwise.
        Route::NamespaceLabel => {
            let switched_on = std::iter::once((
                elastic_core::names::ECI_LABEL.to_owned(),
                elastic_core::names::TRUE.to_owned(),
            ));
            routing::route(labels, Some(&switched_on.collect())).is_some()
        }
    };
    let patch = pod
        .spec
        .as_ref()
        .filter(|_| routed)
        .map(patch)
        .unwrap_or_default();
    let mut response = json!({"uid": review.request.uid, "allowed": true});
    if !patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
    }
    Ok(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

/// The changes that routing makes to a pod, as JSON patch operations on the members it may touch.
fn patch(spec: &PodSpec) -> Vec<Value> {
    let mut routed = spec.clone();
    routing::route_to_virtual_nodes(&mut routed);
    let (before, after) = (json!(spec), json!(routed));
    [
        "nodeSelector",
        "affinity",
        "topologySpreadConstraints",
        "tolerations",
    ]
    .into_iter()
    .filter_map(|member| {
        let path = format!("/spec/{member}");
        match (before.get(member), after.get(member)) {
            (before, after) if before == after => None,
            (_, Some(value)) => Some(json!({"op": "add", "path": path, "value": value})),
            (Some(_), None) => Some(json!({"op": "remove", "path": path})),
            (None, None) => None,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(labels: Value, spec: Value) -> Vec<u8> {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "r-1", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels}, "spec": spec}}
        })
        .to_string()
        .into_bytes()
    }

    fn operations(answer: &Value) -> Value {
        let encoded = answer["response"]["patch"].as_str().unwrap();
        serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn a_labelled_pod_gets_selector_and_toleration() {
        let body = review(
            json!({"alibabacloud.com/eci": "true"}),
            json!({"containers": [], "affinity": {"nodeAffinity": {}}, "nodeSelector": {"disk": "ssd"}}),
        );
        let answer = answer(&body, Route::PodLabel).unwrap();
        assert_eq!(answer["response"]["uid"], "r-1");
        assert_eq!(
            operations(&answer),
            json!([
                {"op": "add", "path": "/spec/nodeSelector", "value": {"type": "virtual-kubelet"}},
                {"op": "remove", "path": "/spec/affinity"},
                {"op": "add", "path": "/spec/tolerations",
                 "value": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]}
            ])
        );
    }

    #[test]
    fn a_pod_of_a_labelled_namespace_needs_no_label_but_can_opt_out() {
        let plain = review(json!({}), json!({"containers": []}));
        assert!(answer(&plain, Route::NamespaceLabel).unwrap()["response"]["patch"].is_string());
        let out = review(
            json!({"alibabacloud.com/eci": "false"}),
            json!({"containers": []}),
        );
        assert!(answer(&out, Route::NamespaceLabel).unwrap()["response"]["patch"].is_null());
    }

    #[test]
    fn garbage_is_refused() {
        assert!(answer(b"{}", Route::PodLabel).is_err());
        assert!(answer(b"\xff", Route::PodLabel).is_err());
    }
}

//! From an `AdmissionReview` request to its answer. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use elastic_core::eci_profile::EciProfile;
use elastic_core::names::{ECI_LABEL, TRUE, has_label};
use elastic_core::routing::{self, Placement, Route, RoutingError};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::desk::{Admitted, Newcomer, operations};

type Labels = std::collections::BTreeMap<String, String>;

/// The parts of a request that matter here.
#[derive(Deserialize)]
struct Review {
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: Option<String>,
    object: Pod,
}

/// The parts of a request that matter for a place by a policy; the pod as it was sent.
#[derive(Deserialize)]
struct PlaceReview {
    request: PlaceRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceRequest {
    uid: String,
    #[serde(default)]
    namespace: Option<String>,
    object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

/// The pod that is being created.
pub(super) fn newcomer(body: &[u8]) -> Result<Newcomer, ReviewError> {
    let review: PlaceReview = serde_json::from_slice(body).map_err(ReviewError)?;
    let request = review.request;
    Ok(Newcomer {
        uid: request.uid,
        namespace: request.namespace.unwrap_or_default(),
        pod: request.object,
        dry_run: request.dry_run.unwrap_or(false),
    })
}

/// The answer for a pod that was looked at for a place.
pub(super) fn admitted(uid: &str, before: &Value, admitted: Admitted) -> Value {
    let mut response = json!({"uid": uid, "allowed": true});
    let warnings = match admitted {
        Admitted::Placed(after, warnings) => {
            let patch = Value::Array(operations(before, &after));
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch.to_string()));
            warnings
        }
        Admitted::Unchanged(warnings) => warnings,
        Admitted::Refused(message) => {
            response["allowed"] = json!(false);
            response["status"] = json!({"code": 400, "reason": "BadRequest", "message": message});
            Vec::new()
        }
    };
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// A body that is no review of a pod.
#[derive(Debug, thiserror::Error)]
#[error("read an AdmissionReview of a pod")]
pub(super) struct ReviewError(#[source] serde_json::Error);

/// Why the API server sent a pod here: which of its selectors matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    PodLabel,
    NamespaceLabel,
    BurstAnnotation,
    Selector,
}

/// Answers a review of a pod. `namespace` and `profile` are what is known here; where the API server matched the
/// namespace's labels already, its word counts.
pub(super) fn answer(
    body: &[u8],
    asked: Asked,
    namespace: impl Fn(&str) -> Option<Labels>,
    profile: &EciProfile,
) -> Result<Value, ReviewError> {
    let review: Review = serde_json::from_slice(body).map_err(ReviewError)?;
    let request = review.request;
    let name = request.namespace.unwrap_or_default();
    let placement = placement(&request.object, asked, namespace(&name), profile);
    let mut response = json!({"uid": request.uid, "allowed": true});
    match placement {
        Ok(placement) => {
            let patch = request
                .object
                .spec
                .as_ref()
                .map(|spec| patch(spec, placement));
            if let Some(patch) = patch.filter(|patch| !patch.is_empty()) {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
            }
        }
        Err(error) => {
            response["allowed"] = json!(false);
            response["status"] =
                json!({"code": 400, "reason": "BadRequest", "message": error.to_string()});
        }
    }
    Ok(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

fn placement(
    pod: &Pod,
    asked: Asked,
    known: Option<Labels>,
    profile: &EciProfile,
) -> Result<Placement, RoutingError> {
    let labels = pod.metadata.labels.as_ref();
    let mut namespace = known.clone().unwrap_or_default();
    if asked == Asked::NamespaceLabel {
        // The API server matched the namespace's labels; only the pod's own can still say otherwise.
        namespace.insert(ECI_LABEL.to_owned(), TRUE.to_owned());
    }
    let placement = routing::place(pod, Some(&namespace), profile)?;
    let opted_out = has_label(labels, ECI_LABEL, "false");
    if asked == Asked::Selector && known.is_none() && placement == Placement::Own && !opted_out {
        // Nothing is known about the namespace yet, but the API server found that a rule fits.
        return Ok(Placement::VirtualOnly(Route::Selector));
    }
    Ok(placement)
}

/// The changes that routing makes to a pod, as JSON patch operations on the members it may touch.
fn patch(spec: &PodSpec, placement: Placement) -> Vec<Value> {
    let mut routed = spec.clone();
    match placement {
        Placement::VirtualOnly(_) => routing::route_to_virtual_nodes(&mut routed),
        Placement::Anywhere(_) => routing::tolerate_virtual_nodes(&mut routed),
        // The burst controller acts when own nodes have turned out to have no room.
        Placement::OwnFirst(_) | Placement::Own => return Vec::new(),
    }
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

    fn ask(body: &[u8], asked: Asked) -> Result<Value, ReviewError> {
        answer(body, asked, |_| None, &EciProfile::default())
    }

    #[test]
    fn a_labelled_pod_gets_selector_and_toleration() {
        let body = review(
            json!({"alibabacloud.com/eci": "true"}),
            json!({"containers": [], "affinity": {"nodeAffinity": {}}, "nodeSelector": {"disk": "ssd"}}),
        );
        let answer = ask(&body, Asked::PodLabel).unwrap();
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
        assert!(ask(&plain, Asked::NamespaceLabel).unwrap()["response"]["patch"].is_string());
        let out = review(
            json!({"alibabacloud.com/eci": "false"}),
            json!({"containers": []}),
        );
        assert!(ask(&out, Asked::NamespaceLabel).unwrap()["response"]["patch"].is_null());
    }

    #[test]
    fn garbage_is_refused() {
        assert!(ask(b"{}", Asked::PodLabel).is_err());
        assert!(ask(b"\xff", Asked::PodLabel).is_err());
    }

    fn annotated(value: &str) -> Vec<u8> {
        json!({"request": {"uid": "r-2", "namespace": "shop", "object": {
            "metadata": {"annotations": {"alibabacloud.com/burst-resource": value}}, "spec": {"containers": []}}}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn the_annotation_routes_waits_or_is_refused() {
        let only = ask(&annotated("eci_only"), Asked::BurstAnnotation).unwrap();
        assert_eq!(operations(&only)[0]["path"], "/spec/nodeSelector");
        let first = ask(&annotated("eci"), Asked::BurstAnnotation).unwrap();
        assert_eq!(first["response"], json!({"uid": "r-2", "allowed": true}));
        let wrong = ask(&annotated("acs"), Asked::BurstAnnotation).unwrap();
        assert_eq!(wrong["response"]["allowed"], false);
        let message = wrong["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("burst-resource: \"acs\""), "{message}");
    }

    #[test]
    fn an_earlier_rule_decides_even_when_a_later_one_has_the_webhook() {
        let selectors = r#"[
            {"name": "prefer", "namespaceSelector": {"matchLabels": {"lane": "p"}}, "policy": "normalNodePrefer"},
            {"name": "fair", "namespaceSelector": {"matchLabels": {"lane": "f"}}, "policy": "fair"},
            {"name": "only", "objectSelector": {"matchLabels": {"tier": "web"}}}
        ]"#;
        let profile =
            EciProfile::parse(&[("selectors".to_owned(), selectors.to_owned())].into()).unwrap();
        let body = review(json!({"tier": "web"}), json!({"containers": []}));
        let ask = |lane: Option<&str>| {
            let labels = |_: &str| {
                let lane = lane?;
                Some([("lane".to_owned(), lane.to_owned())].into())
            };
            answer(&body, Asked::Selector, labels, &profile).unwrap()
        };
        assert!(ask(Some("p"))["response"]["patch"].is_null());
        assert_eq!(operations(&ask(Some("f")))[0]["path"], "/spec/tolerations");
        assert_eq!(operations(&ask(Some("x")))[0]["path"], "/spec/nodeSelector");
        assert_eq!(operations(&ask(None))[0]["path"], "/spec/nodeSelector");
    }
}

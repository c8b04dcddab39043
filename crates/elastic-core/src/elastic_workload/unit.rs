//! A unit's Deployment, derived from the source's: the same pods in another place.
//!
//! Its pods carry the source's labels, so that Services keep selecting them, and one more, so that the unit's ReplicaSets
//! and the source's never claim each other's pods. Replicas are not part of the derivation; they are decided in `plan`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::{ElasticUnit, ElasticWorkload};
use crate::names::{DERIVED_FROM_ANNOTATION, UNIT_LABEL, WORKLOAD_LABEL};
use crate::routing;

/// Why no Deployment can be derived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The source has no usable spec.
    #[error("deployment {0} has no spec to derive from")]
    NoSpec(String),
    /// An override would take the pods out of the source's selector.
    #[error(
        "spec.elasticUnit[{unit}].labels: {label} is part of the source's selector and must stay {value:?}"
    )]
    SelectorLabel {
        /// The unit's name.
        unit: String,
        /// The label.
        label: String,
        /// The value in the selector.
        value: String,
    },
}

/// `<source>-unit-<unit>`.
pub fn unit_name(source: &str, unit: &str) -> String {
    format!("{source}-unit-{unit}")
}

/// The Deployment of `unit`, without replicas.
pub fn derive_unit(
    workload: &ElasticWorkload,
    source: &Deployment,
    unit: &ElasticUnit,
) -> Result<Deployment, UnitError> {
    let source_name = source.name_any();
    let spec = source
        .spec
        .as_ref()
        .ok_or_else(|| UnitError::NoSpec(source_name.clone()))?;
    let selector = unit_selector(&spec.selector, unit)?;
    let labels = [
        (WORKLOAD_LABEL, workload.name_any()),
        (UNIT_LABEL, unit.name.clone()),
    ];
    let labels = labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let spec = DeploymentSpec {
        replicas: None,
        selector,
        template: unit_template(&spec.template, unit),
        ..spec.clone()
    };
    let fingerprint = fingerprint(&serde_json::to_value(&spec).unwrap_or_default());
    Ok(Deployment {
        metadata: ObjectMeta {
            name: Some(unit_name(&source_name, &unit.name)),
            namespace: source.namespace(),
            labels: Some(source.labels().clone().into_iter().chain(labels).collect()),
            annotations: Some(BTreeMap::from([(
                DERIVED_FROM_ANNOTATION.to_owned(),
                fingerprint,
            )])),
            owner_references: workload.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

fn unit_selector(source: &LabelSelector, unit: &ElasticUnit) -> Result<LabelSelector, UnitError> {
    let mut selector = source.clone();
    let wanted = selector.match_labels.get_or_insert_default();
    for (label, value) in wanted.iter() {
        if unit.labels.get(label).is_some_and(|other| other != value) {
            let (label, value) = (label.clone(), value.clone());
            return Err(UnitError::SelectorLabel {
                unit: unit.name.clone(),
                label,
                value,
            });
        }
    }
    wanted.insert(UNIT_LABEL.to_owned(), unit.name.clone());
    Ok(selector)
}

fn unit_template(source: &PodTemplateSpec, unit: &ElasticUnit) -> PodTemplateSpec {
    let mut template = source.clone();
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(unit.labels.clone());
    labels.insert(UNIT_LABEL.to_owned(), unit.name.clone());
    if !unit.annotations.is_empty() {
        metadata
            .annotations
            .get_or_insert_default()
            .extend(unit.annotations.clone());
    }
    let routed = routing::pod_asks_for_serverless(metadata.labels.as_ref());
    let spec = template.spec.get_or_insert_default();
    if let Some(node_selector) = &unit.node_selector {
        spec.node_selector = Some(node_selector.clone());
    }
    if let Some(affinity) = &unit.affinity {
        spec.affinity = Some(affinity.clone());
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for toleration in &unit.tolerations {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.is_empty() {
        spec.tolerations = None;
    }
    if routed {
        // What admission would do to each of the pods, done once here, which saves one call per pod in a burst.
        routing::route_to_virtual_nodes(spec);
    }
    template
}

/// Whether `existing` needs no write to be what `derived` says, apart from replicas.
///
/// Everything derived must be there, and the fingerprint must say that nothing was derived earlier which no longer is;
/// fields that the server filled in by itself do not count.
pub fn unit_is_current(existing: &Deployment, derived: &Deployment) -> bool {
    let fingerprint = |unit: &Deployment| unit.annotations().get(DERIVED_FROM_ANNOTATION).cloned();
    let value = |unit: &Deployment| serde_json::to_value(&unit.spec).unwrap_or_default();
    fingerprint(existing) == fingerprint(derived)
        && derived
            .labels()
            .iter()
            .all(|(key, value)| existing.labels().get(key) == Some(value))
        && contains(&value(existing), &value(derived))
}

/// Whether every member of `wanted` is in `actual` with the same value; lists must be as long.
fn contains(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            value.is_null()
                || actual
                    .get(key)
                    .is_some_and(|actual| contains(actual, value))
        }),
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len()
                && actual
                    .iter()
                    .zip(wanted)
                    .all(|(actual, wanted)| contains(actual, wanted))
        }
        (actual, wanted) => actual == wanted,
    }
}

/// FNV-1a over the JSON text, whose keys are sorted; stable over releases, and not meant to resist anybody.
fn fingerprint(value: &Value) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = value.to_string().bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload() -> ElasticWorkload {
        serde_json::from_value(json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload",
            "metadata": {"name": "web-ew", "namespace": "shop", "uid": "u-1"},
            "spec": {
                "replicas": 6,
                "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "min": 2, "max": 4},
                "elasticUnit": [{"name": "vk", "labels": {"alibabacloud.com/eci": "true"}, "annotations": {"a": "b"}}]
            }
        }))
        .unwrap()
    }

    fn source() -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"team": "a"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "shop:1"}], "nodeSelector": {"disk": "ssd"}}
                }
            }
        }))
        .unwrap()
    }

    fn derived(source: &Deployment) -> Deployment {
        let workload = workload();
        derive_unit(&workload, source, &workload.spec.elastic_unit[0]).unwrap()
    }

    #[test]
    fn a_unit_keeps_the_sources_labels_and_gets_its_own() {
        let unit = derived(&source());
        assert_eq!(unit.name_any(), "web-unit-vk");
        assert_eq!(unit.owner_references()[0].uid, "u-1");
        assert_eq!(unit.owner_references()[0].controller, Some(true));
        assert!(
            !unit
                .annotations()
                .contains_key("kubectl.kubernetes.io/last-applied-configuration")
        );
        let spec = unit.spec.unwrap();
        assert_eq!(spec.replicas, None);
        let expected = json!({"app": "web", "autoscaling.alibabacloud.com/elastic-unit": "vk"});
        assert_eq!(
            serde_json::to_value(&spec.selector.match_labels).unwrap(),
            expected
        );
        let metadata = spec.template.metadata.unwrap();
        assert_eq!(metadata.labels.as_ref().unwrap()["app"], "web");
        assert_eq!(
            metadata.labels.as_ref().unwrap()["alibabacloud.com/eci"],
            "true"
        );
        assert_eq!(metadata.annotations.unwrap()["a"], "b");
    }

    #[test]
    fn a_unit_labelled_for_serverless_goes_to_virtual_nodes_only() {
        let pod = derived(&source()).spec.unwrap().template.spec.unwrap();
        let selector: Vec<_> = pod.node_selector.unwrap().into_iter().collect();
        assert_eq!(
            selector,
            [("type".to_owned(), "virtual-kubelet".to_owned())]
        );
        assert_eq!(
            pod.tolerations.unwrap()[0].key.as_deref(),
            Some("virtual-kubelet.io/provider")
        );
    }

    #[test]
    fn a_selector_label_cannot_be_overridden() {
        let mut workload = workload();
        workload.spec.elastic_unit[0]
            .labels
            .insert("app".into(), "other".into());
        let error = derive_unit(&workload, &source(), &workload.spec.elastic_unit[0]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("app is part of the source's selector"),
            "{error}"
        );
    }

    #[test]
    fn what_the_server_adds_does_not_ask_for_a_write_but_every_change_of_the_source_does() {
        let unit = derived(&source());
        let mut stored = unit.clone();
        stored.spec.as_mut().unwrap().replicas = Some(7);
        stored.spec.as_mut().unwrap().progress_deadline_seconds = Some(600);
        assert!(unit_is_current(&stored, &unit));

        let mut changed = source();
        changed
            .spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .as_mut()
            .unwrap()
            .containers[0]
            .image = Some("shop:2".into());
        assert!(!unit_is_current(&stored, &derived(&changed)));

        // Taking something away is a change too, although the rest is still contained.
        let mut with_port = source();
        with_port.spec.as_mut().unwrap().min_ready_seconds = Some(5);
        let stored = derived(&with_port);
        assert!(!unit_is_current(&stored, &unit));
    }

    #[test]
    fn a_hand_edited_unit_is_put_right() {
        let unit = derived(&source());
        let mut edited = unit.clone();
        edited
            .spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .as_mut()
            .unwrap()
            .containers[0]
            .image = Some("other".into());
        assert!(!unit_is_current(&edited, &unit));
    }
}

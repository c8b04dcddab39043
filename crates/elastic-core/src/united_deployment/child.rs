//! A subset's child workload, derived from the template. Replicas are not part of it; they are decided elsewhere.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{Subset, UnitedDeployment};
use crate::eci_profile::matches;
use crate::elastic_workload::{FieldError, contains, fingerprint};
use crate::names::{DERIVED_FROM_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, SUBSET_LABEL};
use crate::node_term;
use crate::strategic_merge::merge_pod;

/// Letters of a child's suffix, as the API server uses them for names it makes.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// The kind of all children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl ChildKind {
    /// As objects name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Deployment => "spec.template.deploymentTemplate",
            Self::StatefulSet => "spec.template.statefulSetTemplate",
        }
    }
}

/// `<name>-<subset>-<suffix>`. The suffix follows from the owner's UID, so that a child is never made twice.
pub fn child_name(owner: &UnitedDeployment, subset: &str) -> String {
    let text = json!([owner.uid().unwrap_or_default(), subset]);
    let text = fingerprint(&text);
    let digits = text.split('.').next().unwrap_or_default();
    let mut hash = u64::from_str_radix(digits, 16).unwrap_or(0);
    let letters = u64::try_from(SUFFIX_LETTERS.len()).unwrap_or(1);
    let mut suffix = String::with_capacity(SUFFIX_LENGTH);
    for _ in 0..SUFFIX_LENGTH {
        let index = usize::try_from(hash % letters).unwrap_or(0);
        suffix.push(char::from(SUFFIX_LETTERS[index]));
        hash /= letters;
    }
    format!("{}-{subset}-{suffix}", owner.name_any())
}

/// The child of `subset`, without replicas, as a whole object.
pub fn derive_child(
    owner: &UnitedDeployment,
    subset: &Subset,
) -> Result<(ChildKind, Value), FieldError> {
    let written = &owner.spec.template;
    let (kind, template) = match (&written.deployment_template, &written.stateful_set_template) {
        (Some(template), None) => (ChildKind::Deployment, template),
        (None, Some(template)) => (ChildKind::StatefulSet, template),
        _ => {
            let reason = "must have exactly one of deploymentTemplate and statefulSetTemplate";
            return Err(wrong("spec.template".into(), reason.into()));
        }
    };
    let mut spec = template["spec"].clone();
    let members = spec
        .as_object_mut()
        .ok_or_else(|| wrong(format!("{}.spec", kind.field()), "is missing".into()))?;
    members.remove("replicas");
    let mut selector = json!(owner.spec.selector);
    selector["matchLabels"][SUBSET_LABEL] = json!(subset.name);
    members.insert("selector".into(), selector);
    if let Some(limit) = owner.spec.revision_history_limit {
        members
            .entry("revisionHistoryLimit")
            .or_insert_with(|| json!(limit));
    }
    if kind == ChildKind::StatefulSet {
        let partition = owner.spec.partition(&subset.name);
        if partition > 0 {
            spec["updateStrategy"]["rollingUpdate"]["partition"] = json!(partition);
        }
    }
    let pods = pod_template(owner, kind, subset, &spec["template"])?;
    spec["template"] = pods;
    Ok((kind, object(owner, kind, subset, template, spec)))
}

fn wrong(field: String, reason: String) -> FieldError {
    FieldError { field, reason }
}

fn pod_template(
    owner: &UnitedDeployment,
    kind: ChildKind,
    subset: &Subset,
    written: &Value,
) -> Result<Value, FieldError> {
    let path = format!("{}.spec.template", kind.field());
    let mut template = written.clone();
    if !template.is_object() {
        return Err(wrong(path, "is missing".into()));
    }
    let spec = template["spec"].take();
    let mut spec: PodSpec = serde_json::from_value(spec).map_err(|error| {
        wrong(
            format!("{path}.spec"),
            format!("is not the spec of a pod: {error}"),
        )
    })?;
    if let Some(term) = &subset.node_selector_term {
        node_term::require_one_of(&mut spec, std::slice::from_ref(term));
    }
    for toleration in &subset.tolerations {
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    template["spec"] = json!(spec);
    if let Some(patch) = &subset.patch {
        template = merge_pod(&template, patch).map_err(|error| {
            let reason = format!("of subset {:?}: {error}", subset.name);
            wrong("spec.topology.subsets.patch".into(), reason)
        })?;
    }
    template["metadata"]["labels"][SUBSET_LABEL] = json!(subset.name);
    let labels: BTreeMap<String, String> =
        serde_json::from_value(template["metadata"]["labels"].clone()).map_err(|error| {
            let reason = format!("are not labels: {error}");
            wrong(format!("{path}.metadata.labels"), reason)
        })?;
    if !matches(&owner.spec.selector, &labels) {
        let reason = format!(
            "do not match spec.selector in subset {:?}; the pods would not be found",
            subset.name
        );
        return Err(wrong(format!("{path}.metadata.labels"), reason));
    }
    Ok(template)
}

fn object(
    owner: &UnitedDeployment,
    kind: ChildKind,
    subset: &Subset,
    template: &Value,
    spec: Value,
) -> Value {
    let texts = |member: &str| {
        let written = template["metadata"][member].as_object().cloned();
        Value::Object(written.unwrap_or_default())
    };
    let mut labels = texts("labels");
    labels[SUBSET_LABEL] = json!(subset.name);
    labels[MANAGED_BY_LABEL] = json!(MANAGED_BY);
    let mut annotations = texts("annotations");
    annotations[DERIVED_FROM_ANNOTATION] = json!(fingerprint(&spec));
    let owners: Vec<_> = owner.controller_owner_ref(&()).into_iter().collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": kind.name(),
        "metadata": {
            "name": child_name(owner, &subset.name),
            "namespace": owner.namespace(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owners
        },
        "spec": spec
    })
}

/// Whether `existing` needs no write to be what `derived` says, apart from replicas.
pub fn child_is_current(existing: &Value, derived: &Value) -> bool {
    let mark = |object: &Value| object["metadata"]["annotations"][DERIVED_FROM_ANNOTATION].clone();
    let same = |member: &str| contains(&existing[member], &derived[member], false);
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    mark(existing) == mark(derived)
        && contains(&labels(existing), &labels(derived), false)
        && same("spec")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> UnitedDeployment {
        let mut owner: UnitedDeployment = serde_json::from_value(json!({
            "apiVersion": "apps.kruise.io/v1alpha1", "kind": "UnitedDeployment",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
            "spec": {
                "replicas": 6, "revisionHistoryLimit": 5, "selector": {"matchLabels": {"app": "web"}},
                "template": {"deploymentTemplate": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"replicas": 99, "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "web", "image": "shop:1"}]}}}}},
                "topology": {"subsets": [{
                    "name": "vk",
                    "nodeSelectorTerm": {"matchExpressions": [{"key": "type", "operator": "In", "values": ["virtual-kubelet"]}]},
                    "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                    "patch": {"spec": {"containers": [{"name": "web", "resources": {"limits": {"cpu": "2"}}}]}}}]}
            }
        }))
        .unwrap();
        owner.spec.replicas = Some(6);
        owner
    }

    #[test]
    fn a_child_has_the_templates_pods_in_its_subsets_place() {
        let owner = owner();
        let (kind, child) = derive_child(&owner, &owner.spec.topology.subsets[0]).unwrap();
        assert_eq!(kind, ChildKind::Deployment);
        let name = child["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("web-vk-") && name.len() == 12, "{name}");
        assert_eq!(name, child_name(&owner, "vk"));
        assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(child["spec"]["replicas"], Value::Null);
        assert_eq!(child["spec"]["revisionHistoryLimit"], 5);
        assert_eq!(
            child["spec"]["selector"]["matchLabels"],
            json!({"app": "web", "apps.kruise.io/subset-name": "vk"})
        );
        let pod = &child["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "shop:1");
        assert_eq!(pod["containers"][0]["resources"]["limits"]["cpu"], "2");
        assert_eq!(pod["tolerations"][0]["operator"], "Exists");
        let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchExpressions"][0]["key"], "type");
        let mut stored = child.clone();
        stored["spec"]["replicas"] = json!(3);
        stored["spec"]["progressDeadlineSeconds"] = json!(600);
        assert!(child_is_current(&stored, &child));
        stored["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        assert!(!child_is_current(&stored, &child));
    }

    #[test]
    fn a_partition_reaches_a_stateful_set_and_a_bad_template_is_named() {
        let mut owner = owner();
        let template = owner.spec.template.deployment_template.take().unwrap();
        owner.spec.template.stateful_set_template = Some(template);
        owner.spec.update_strategy = Some(
            serde_json::from_value(json!({"manualUpdate": {"partitions": {"vk": 2}}})).unwrap(),
        );
        let subset = owner.spec.topology.subsets[0].clone();
        let (kind, child) = derive_child(&owner, &subset).unwrap();
        assert_eq!(kind, ChildKind::StatefulSet);
        let update = &child["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!(update["partition"], 2);
        owner.spec.template.stateful_set_template = Some(
            json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": []}}}}),
        );
        let error = derive_child(&owner, &subset).unwrap_err();
        assert_eq!(
            error.field,
            "spec.template.statefulSetTemplate.spec.template.metadata.labels"
        );
        owner.spec.template.stateful_set_template =
            Some(json!({"spec": {"template": {"spec": {"containers": "none"}}}}));
        let error = derive_child(&owner, &subset).unwrap_err();
        assert_eq!(
            error.field,
            "spec.template.statefulSetTemplate.spec.template.spec"
        );
    }
}

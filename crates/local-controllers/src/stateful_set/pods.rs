//! The numbered pods of a stateful set and their claims: names, labels, volumes, and who owns a claim.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use serde_json::{Value, json};

use crate::shared::objects::{name, uid};
use crate::shared::ownership::controller_reference;

/// The label that says which revision a pod was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The number of a pod in its set, when its name has the set's form.
pub fn ordinal(set: &StatefulSet, pod_name: &str) -> Option<i32> {
    let number = pod_name
        .strip_prefix(name(&set.metadata))?
        .strip_prefix('-')?;
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit())
        && (number == "0" || !number.starts_with('0'));
    number.parse().ok().filter(|_| is_plain)
}

/// The name of the pod with that number.
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

/// The first number of a set.
pub fn first_ordinal(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The revision that a pod was made from.
pub fn revision(pod: &Pod) -> &str {
    let label = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(REVISION_LABEL));
    label.map_or("", String::as_str)
}

/// The pod with that number, from a template.
pub fn pod_body(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    ordinal: i32,
    revision: &str,
) -> Value {
    let pod_name = pod_name(set, ordinal);
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(NAME_LABEL.to_owned(), pod_name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(pod_name.clone());
    spec.subdomain = set
        .spec
        .as_ref()
        .and_then(|spec| spec.service_name.clone())
        .filter(|service| !service.is_empty());
    let mut volumes: Vec<Volume> = templates(set)
        .map(|claim| Volume {
            name: name(&claim.metadata).to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(claim, &pod_name),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let is_claimed = |volume: &Volume| templates(set).any(|one| name(&one.metadata) == volume.name);
    volumes.extend(
        spec.volumes
            .unwrap_or_default()
            .into_iter()
            .filter(|volume| !is_claimed(volume)),
    );
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name,
            "generateName": format!("{}-", name(&set.metadata)),
            "namespace": set.metadata.namespace,
            "labels": labels,
            "annotations": meta.annotations,
            "finalizers": meta.finalizers,
            "ownerReferences": [controller_reference(set)],
        },
        "spec": spec,
    })
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec
        .iter()
        .flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

fn claim_name(template: &PersistentVolumeClaim, pod_name: &str) -> String {
    format!("{}-{pod_name}", name(&template.metadata))
}

/// The claims of the pod with that number, by name, each as it is to be made.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, Value)> {
    let pod_name = pod_name(set, ordinal);
    let selected = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        let claim_name = claim_name(template, &pod_name);
        let mut body = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name,
                "namespace": set.metadata.namespace,
                "labels": labels,
                "annotations": template.metadata.annotations,
            },
            "spec": template.spec,
        });
        if retention(set).goes_with_set {
            body["metadata"]["ownerReferences"] = json!([controller_reference(set)]);
        }
        (claim_name, body)
    };
    templates(set).map(claim).collect()
}

#[derive(Clone, Copy)]
struct Retention {
    goes_with_set: bool,
    goes_with_pod: bool,
}

fn retention(set: &StatefulSet) -> Retention {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let is_delete = |text: Option<&String>| text.is_some_and(|text| text == "Delete");
    Retention {
        goes_with_set: is_delete(policy.and_then(|policy| policy.when_deleted.as_ref())),
        goes_with_pod: is_delete(policy.and_then(|policy| policy.when_scaled.as_ref())),
    }
}

/// The owners that a claim should have, when they differ from those it has. `leaving` is the pod that uses the claim
/// and goes because the set has shrunk: its claim then goes with it, if the set says so.
pub fn claim_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: Option<&Pod>,
    is_leaving: bool,
) -> Option<Value> {
    let retention = retention(set);
    let set_uid = uid(&set.metadata);
    let pod_uid = pod.map_or("", |pod| uid(&pod.metadata));
    let goes_with_pod = retention.goes_with_pod && is_leaving && pod.is_some();
    let goes_with_set = retention.goes_with_set && !goes_with_pod;
    let owners = || claim.metadata.owner_references.iter().flatten();
    let is_ours = |owner: &str| owner == set_uid || (!pod_uid.is_empty() && owner == pod_uid);
    // Someone else who owns the claim decides about it.
    if owners().any(|owner| !is_ours(&owner.uid)) {
        return None;
    }
    let has = |wanted: &str| owners().any(|owner| owner.uid == wanted);
    if has(set_uid) == goes_with_set && (pod.is_none() || has(pod_uid) == goes_with_pod) {
        return None;
    }
    Some(if goes_with_set {
        json!([controller_reference(set)])
    } else if let Some(pod) = pod.filter(|_| goes_with_pod) {
        json!([controller_reference(pod)])
    } else {
        Value::Null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(retention: Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "s"},
            "spec": {
                "serviceName": "svc", "selector": {"matchLabels": {"app": "a"}},
                "ordinals": {"start": 2}, "persistentVolumeClaimRetentionPolicy": retention,
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [], "volumes": [
                    {"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"l": "m"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn only_names_of_the_sets_form_have_a_number() {
        let set = set(json!(null));
        assert_eq!(first_ordinal(&set), 2);
        for (name, expected) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-012", None),
            ("web-", None),
            ("web", None),
            ("web-a", None),
            ("website-1", None),
            ("web-99999999999", None),
        ] {
            assert_eq!(ordinal(&set, name), expected, "{name}");
        }
    }

    #[test]
    fn a_claim_takes_the_place_of_the_templates_volume_of_that_name() {
        let set = set(json!(null));
        let template = &set.spec.as_ref().unwrap().template;
        let pod = pod_body(&set, template, 2, "web-r1");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-2"}}, {"name": "tmp", "emptyDir": {}}])
        );
        assert_eq!(pod["spec"]["hostname"], "web-2");
        assert_eq!(pod["spec"]["subdomain"], "svc");
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app": "a", NAME_LABEL: "web-2", INDEX_LABEL: "2", REVISION_LABEL: "web-r1"})
        );
        let claims = claims(&set, 2);
        assert_eq!(claims[0].0, "data-web-2");
        assert_eq!(
            claims[0].1["metadata"]["labels"],
            json!({"app": "a", "l": "m"})
        );
    }

    #[test]
    fn a_claim_belongs_to_whom_the_policy_says() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "web-2", "uid": "p"}})).unwrap();
        let claim = |owners: Value| -> PersistentVolumeClaim {
            serde_json::from_value(
                json!({"metadata": {"name": "data-web-2", "ownerReferences": owners}}),
            )
            .unwrap()
        };
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid}]);
        let wanted = |scaled: &str, deleted: &str, owners: Value, is_leaving: bool| {
            let set = set(json!({"whenScaled": scaled, "whenDeleted": deleted}));
            claim_owners(&set, &claim(owners), Some(&pod), is_leaving).map(|found| {
                found
                    .as_array()
                    .map_or("nobody".to_owned(), |all| all[0]["uid"].to_string())
            })
        };
        let (delete, retain) = ("Delete", "Retain");
        assert_eq!(wanted(retain, retain, json!([]), true), None);
        assert_eq!(
            wanted(delete, retain, json!([]), true).as_deref(),
            Some("\"p\"")
        );
        assert_eq!(wanted(delete, retain, json!([]), false), None);
        assert_eq!(
            wanted(delete, delete, owner("s"), true).as_deref(),
            Some("\"p\"")
        );
        assert_eq!(
            wanted(delete, delete, json!([]), false).as_deref(),
            Some("\"s\"")
        );
        assert_eq!(
            wanted(retain, retain, owner("s"), false).as_deref(),
            Some("nobody")
        );
        assert_eq!(wanted(delete, delete, owner("stranger"), true), None);
    }
}

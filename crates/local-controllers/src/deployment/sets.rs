//! The replica sets of a deployment: which is the new one, revisions, names, annotations.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::shared::objects::name;

/// The label that tells the sets of one deployment apart.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Which version of the template a set is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a deployment that are not its sets'.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Letters that make no words.
const SAFE_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

type Annotations = BTreeMap<String, String>;

/// `spec.replicas` of a set.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// `status.availableReplicas` of a set.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// `status.replicas` of a set.
pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// The sum over several sets.
pub fn sum(sets: &[Arc<ReplicaSet>], count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(|set| count(set)).sum()
}

fn created(set: &ReplicaSet) -> (Option<&Time>, &str) {
    (
        set.metadata.creation_timestamp.as_ref(),
        name(&set.metadata),
    )
}

/// Oldest first.
pub fn sort_by_age(sets: &mut [Arc<ReplicaSet>]) {
    sets.sort_by(|one, other| created(one).cmp(&created(other)));
}

/// A set's revision; 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    let text = set
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Splits the sets into the one that has the deployment's template and all others.
pub fn split(
    deployment: &Deployment,
    mut sets: Vec<Arc<ReplicaSet>>,
) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    sort_by_age(&mut sets);
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let position = sets.iter().position(|set| {
        let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        own.zip(template)
            .is_some_and(|(own, wanted)| same_template(own, wanted))
    });
    let new = position.map(|index| sets.remove(index));
    (new, sets)
}

/// Whether two templates are the same but for the hash label.
pub fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let meta = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        meta.labels.get_or_insert_default().remove(HASH_LABEL);
        meta.annotations.get_or_insert_default();
        meta.creation_timestamp = None;
        meta
    };
    one.spec == other.spec && meta(one) == meta(other)
}

/// A hash over the template, stable over versions of this program, in letters that fit into names.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let text = json!([template, collisions]).to_string();
    for byte in text.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(SAFE_LETTERS[usize::from(digit) % SAFE_LETTERS.len()]))
        .collect()
}

/// The annotations that record what a set was last sized for.
pub fn size_annotations(replicas: i32, surge: i32) -> [(&'static str, String); 2] {
    [
        (DESIRED_REPLICAS, replicas.to_string()),
        (MAX_REPLICAS, (replicas + surge).to_string()),
    ]
}

/// For how many replicas of the deployment a set was last sized.
pub fn sized_for(set: &ReplicaSet) -> Option<i32> {
    annotation_number(set, DESIRED_REPLICAS)
}

/// The same with the surge.
pub fn sized_for_max(set: &ReplicaSet) -> Option<i32> {
    annotation_number(set, MAX_REPLICAS)
}

fn annotation_number(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// What the new set's annotations should be: the deployment's, its revision and the revisions it had before.
pub fn wanted_annotations(
    deployment: &Deployment,
    set: Option<&ReplicaSet>,
    old: &[Arc<ReplicaSet>],
) -> Annotations {
    let mut wanted = set
        .and_then(|set| set.metadata.annotations.clone())
        .unwrap_or_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            wanted.insert(key.clone(), value.clone());
        }
    }
    let next = old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    let previous = wanted.get(REVISION).cloned();
    let current = previous
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0_i64);
    if current < next {
        wanted.insert(REVISION.to_owned(), next.to_string());
        if let Some(previous) = previous {
            let history = wanted
                .get(REVISION_HISTORY)
                .filter(|history| !history.is_empty());
            let history =
                history.map_or(previous.clone(), |history| format!("{history},{previous}"));
            wanted.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    wanted
}

/// A new set for the deployment's template.
pub fn new_set(
    deployment: &Deployment,
    replicas: i32,
    surge: i32,
    old: &[Arc<ReplicaSet>],
) -> Option<Value> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = json!(spec.template);
    template["metadata"]["labels"][HASH_LABEL] = hash.clone().into();
    let mut selector = json!(spec.selector);
    selector["matchLabels"][HASH_LABEL] = hash.clone().into();
    let mut annotations = wanted_annotations(deployment, None, old);
    let total = spec.replicas.unwrap_or(1);
    annotations.extend(size_annotations(total, surge).map(|(key, value)| (key.to_owned(), value)));
    Some(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", name(&deployment.metadata)),
            "namespace": deployment.metadata.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.metadata.name,
                "uid": deployment.metadata.uid, "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        }))
        .unwrap()
    }

    fn set(name: &str, image: &str, annotations: Value) -> Arc<ReplicaSet> {
        let mut object = json!({
            "metadata": {"name": name, "annotations": annotations, "creationTimestamp": "2026-11-21T11:00:00Z"},
            "spec": {"selector": {}, "template": template(image)},
        });
        object["spec"]["template"]["metadata"]["labels"][HASH_LABEL] = name.into();
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "uid": "u", "annotations": {"team": "x", REVISION: "7"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template(image)},
        }))
        .unwrap()
    }

    #[test]
    fn the_new_set_is_found_by_its_template_whatever_its_name() {
        let sets = vec![set("one", "i:1", json!({})), set("two", "i:2", json!({}))];
        let (new, old) = split(&deployment("i:2"), sets.clone());
        assert_eq!((name(&new.unwrap().metadata), old.len()), ("two", 1));
        assert!(split(&deployment("i:3"), sets).0.is_none());
    }

    #[test]
    fn the_hash_depends_on_template_and_collisions_only() {
        let hash = template_hash(&template("i:1"), 0);
        assert_eq!(hash, template_hash(&template("i:1"), 0));
        assert_ne!(hash, template_hash(&template("i:1"), 1));
        assert_ne!(hash, template_hash(&template("i:2"), 0));
        assert!(
            hash.bytes().all(|letter| SAFE_LETTERS.contains(&letter)),
            "{hash}"
        );
    }

    #[test]
    fn a_set_used_again_gets_the_next_revision_and_remembers_the_last() {
        let old = [
            set("two", "i:2", json!({REVISION: "2"})),
            set("three", "i:3", json!({REVISION: "3"})),
        ];
        let again = set("one", "i:1", json!({REVISION: "1"}));
        let annotations = wanted_annotations(&deployment("i:1"), Some(&again), &old);
        assert_eq!(annotations[REVISION], "4");
        assert_eq!(annotations[REVISION_HISTORY], "1");
        assert_eq!(annotations["team"], "x");
        let newest = set("one", "i:1", json!({REVISION: "9"}));
        assert_eq!(
            wanted_annotations(&deployment("i:1"), Some(&newest), &old)[REVISION],
            "9"
        );
    }

    #[test]
    fn a_new_set_selects_by_its_hash() {
        let set = new_set(&deployment("i:1"), 2, 1, &[]).unwrap();
        let hash = set["metadata"]["labels"][HASH_LABEL].as_str().unwrap();
        assert_eq!(set["metadata"]["name"], format!("d-{hash}"));
        assert_eq!(set["spec"]["selector"]["matchLabels"][HASH_LABEL], hash);
        assert_eq!(set["metadata"]["annotations"][DESIRED_REPLICAS], "3");
        assert_eq!(set["metadata"]["annotations"][MAX_REPLICAS], "4");
        assert_eq!(set["metadata"]["annotations"][REVISION], "1");
    }
}

//! The revisions of a stateful set: which template is the current one, which is being rolled out, and which old ones
//! may go.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::{Value, json};

use super::pods;
use crate::deployment::sets::template_hash;
use crate::shared::objects::name;
use crate::shared::ownership::controller_reference;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";
const HISTORY_DEFAULT: i32 = 10;

/// What is to be done about the revisions.
pub struct Outlook {
    /// The revision that pods below the partition keep.
    pub current: String,
    /// The revision of the set's template.
    pub update: String,
    /// To be made first.
    pub create: Option<Value>,
    /// An older revision that is used again, with its new number.
    pub renumber: Option<(Arc<ControllerRevision>, i64)>,
}

/// Decides. `known` are the set's revisions, in any order.
pub fn outlook(set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> Outlook {
    let wanted = data(set);
    let same = known
        .iter()
        .filter(|one| one.data.as_ref().is_some_and(|data| data.0 == wanted));
    let same = same.max_by_key(|one| one.revision);
    let newest = known.iter().map(|one| one.revision).max().unwrap_or(0);
    let (update, create, renumber) = match same {
        Some(same) if same.revision == newest => (name(&same.metadata).to_owned(), None, None),
        Some(same) => {
            let renumber = (Arc::clone(same), newest + 1);
            (name(&same.metadata).to_owned(), None, Some(renumber))
        }
        None => {
            let body = new_revision(set, wanted, newest + 1);
            let update = body["metadata"]["name"].as_str().unwrap_or_default();
            (update.to_owned(), Some(body), None)
        }
    };
    let known_current = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone());
    let current = known_current
        .filter(|current| known.iter().any(|one| name(&one.metadata) == current))
        .unwrap_or_else(|| update.clone());
    Outlook {
        current,
        update,
        create,
        renumber,
    }
}

/// What a revision records: the template, whole.
fn data(set: &StatefulSet) -> Value {
    let mut template = json!(set.spec.as_ref().map(|spec| &spec.template));
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn new_revision(set: &StatefulSet, data: Value, number: i64) -> Value {
    let template = set.spec.as_ref().map(|spec| spec.template.clone());
    let collisions = set
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template_hash(&template.unwrap_or_default(), collisions.unwrap_or(0));
    let mut labels = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": format!("{}-{hash}", name(&set.metadata)),
            "namespace": set.metadata.namespace,
            "labels": labels,
            "annotations": set.metadata.annotations,
            "ownerReferences": [controller_reference(set)],
        },
        "data": data,
        "revision": number,
    })
}

/// The template that a revision records.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = &revision.data.as_ref()?.0["spec"]["template"];
    serde_json::from_value(template.clone()).ok()
}

/// Revisions beyond the history that no pod uses, oldest first.
pub fn surplus(
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    outlook: &Outlook,
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let is_live = |one: &ControllerRevision| {
        let name = name(&one.metadata);
        name == outlook.current
            || name == outlook.update
            || pods.iter().any(|pod| pods::revision(pod) == name)
    };
    let mut history: Vec<_> = known.iter().filter(|one| !is_live(one)).cloned().collect();
    history.sort_by_key(|one| one.revision);
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit);
    let kept = usize::try_from(limit.unwrap_or(HISTORY_DEFAULT)).unwrap_or(0);
    history.truncate(history.len().saturating_sub(kept));
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str, current: Option<&str>) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "s"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "revisionHistoryLimit": 1,
                     "template": {"spec": {"containers": [{"name": "c", "image": image}]}}},
            "status": {"replicas": 0, "currentRevision": current},
        }))
        .unwrap()
    }

    fn made(image: &str, number: i64) -> Arc<ControllerRevision> {
        let set = set(image, None);
        let body = new_revision(&set, data(&set), number);
        Arc::new(serde_json::from_value(body).unwrap())
    }

    #[test]
    fn the_first_revision_is_current_and_update() {
        let outlook = outlook(&set("i:1", None), &[]);
        let body = outlook.create.unwrap();
        assert_eq!(body["revision"], 1);
        assert_eq!(outlook.current, outlook.update);
        assert_eq!(body["metadata"]["name"], outlook.update.as_str());
        assert_eq!(body["data"]["spec"]["template"]["$patch"], "replace");
    }

    #[test]
    fn a_template_used_again_gets_the_next_number_and_its_old_name() {
        let known = [made("i:1", 1), made("i:2", 2)];
        let second = name(&known[1].metadata).to_owned();
        let outlook = outlook(&set("i:1", Some(&second)), &known);
        assert!(outlook.create.is_none());
        let (revision, number) = outlook.renumber.unwrap();
        assert_eq!(
            (name(&revision.metadata), number),
            (outlook.update.as_str(), 3)
        );
        assert_eq!(outlook.current, second);
        assert_eq!(
            template(&known[1]).unwrap().spec.unwrap().containers[0].image,
            Some("i:2".to_owned())
        );
    }

    #[test]
    fn only_unused_revisions_beyond_the_limit_go() {
        let known = [
            made("i:1", 1),
            made("i:2", 2),
            made("i:3", 3),
            made("i:4", 4),
        ];
        let set = set("i:4", None);
        let outlook = outlook(&set, &known);
        let user: Pod = serde_json::from_value(
            json!({"metadata": {"labels": {pods::REVISION_LABEL: known[0].metadata.name}}}),
        )
        .unwrap();
        let gone = surplus(&set, &known, &outlook, &[Arc::new(user)]);
        assert_eq!(gone.iter().map(|one| one.revision).collect::<Vec<_>>(), [2]);
    }
}

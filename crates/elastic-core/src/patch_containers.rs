//! Patches that speak of containers a pod does not have.
//!
//! Merged as they are, they would add a container without an image, and no API server takes such a pod. A whole container,
//! one with an image, is an addition and stays.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The lists of a pod that hold containers.
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// An element of a patch that no container answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Where in the patch, from its root.
    pub path: String,
    /// The container's name.
    pub name: String,
}

impl Stranger {
    /// What is wrong and what would be right; `owner` is what lacks the container.
    pub fn reason(&self, owner: &str) -> String {
        format!(
            "names container {:?}, which {owner} does not have; correct the name, or give the container an image to add it",
            self.name
        )
    }
}

/// The elements of `patch` for containers that `target`, a pod or a pod template, does not have.
pub fn strangers(target: &Value, patch: &Value) -> Vec<Stranger> {
    let mut found = Vec::new();
    for list in LISTS {
        let known = names(&target["spec"][list]);
        let elements = patch["spec"][list].as_array();
        let replaced = elements.into_iter().flatten().any(is_replace);
        for (index, element) in elements.into_iter().flatten().enumerate() {
            let Some(name) = element["name"].as_str() else {
                continue;
            };
            let known = known.contains(name) && !replaced;
            let whole = element["image"]
                .as_str()
                .is_some_and(|image| !image.is_empty());
            if !known && !whole && element["$patch"] != "delete" {
                found.push(Stranger {
                    path: format!("spec.{list}[{index}]"),
                    name: name.to_owned(),
                });
            }
        }
    }
    found
}

/// The patch without those elements, and without lists that hold nothing else.
pub fn without_strangers(target: &Value, patch: &Value) -> Value {
    let strangers = strangers(target, patch);
    let mut rest = patch.clone();
    for list in LISTS {
        let Some(elements) = patch["spec"][list].as_array() else {
            continue;
        };
        let stays = |index: usize| {
            let path = format!("spec.{list}[{index}]");
            !strangers.iter().any(|stranger| stranger.path == path)
        };
        let kept = elements
            .iter()
            .enumerate()
            .filter(|(index, _)| stays(*index));
        let kept: Vec<Value> = kept.map(|(_, element)| element.clone()).collect();
        if kept.len() == elements.len() {
            continue;
        }
        // A list that is replaced by nothing would leave a pod without containers.
        if kept.iter().all(is_replace) {
            if let Some(spec) = rest["spec"].as_object_mut() {
                spec.remove(list);
            }
        } else {
            rest["spec"][list] = json!(kept);
        }
    }
    rest
}

fn names(containers: &Value) -> BTreeSet<&str> {
    let all = containers.as_array().into_iter().flatten();
    all.filter_map(|container| container["name"].as_str())
        .collect()
}

/// An element that only says that the whole list is replaced.
fn is_replace(element: &Value) -> bool {
    element["$patch"] == "replace" && element["name"].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategic_merge::merge_pod;

    fn pod() -> Value {
        json!({"spec": {
            "containers": [{"name": "web", "image": "w:1"}, {"name": "side", "image": "s:1"}],
            "initContainers": [{"name": "prepare", "image": "p:1"}]
        }})
    }

    #[test]
    fn only_parts_of_containers_that_are_not_there_are_strangers() {
        let cases = [
            (json!({"containers": [{"name": "web", "env": []}]}), vec![]),
            (
                json!({"containers": [{"name": "new", "image": "n:1"}]}),
                vec![],
            ),
            (
                json!({"containers": [{"name": "gone", "$patch": "delete"}]}),
                vec![],
            ),
            (json!({"nodeSelector": {"a": "b"}}), vec![]),
            (
                json!({"containers": [{"name": "web"}, {"name": "wbe", "env": []}]}),
                vec!["spec.containers[1] wbe"],
            ),
            (
                json!({"initContainers": [{"name": "web", "env": []}]}),
                vec!["spec.initContainers[0] web"],
            ),
            (
                json!({"containers": [{"$patch": "replace"}, {"name": "web", "env": []}]}),
                vec!["spec.containers[1] web"],
            ),
        ];
        for (spec, expected) in cases {
            let found = strangers(&pod(), &json!({"spec": spec}));
            let found = found.into_iter();
            let texts: Vec<String> = found
                .map(|one| format!("{} {}", one.path, one.name))
                .collect();
            assert_eq!(texts, expected, "{spec}");
        }
    }

    #[test]
    fn the_rest_of_a_patch_holds_without_its_strangers() {
        let patch = json!({
            "metadata": {"labels": {"tier": "serverless"}},
            "spec": {"containers": [
                {"name": "wbe", "env": [{"name": "A", "value": "1"}]},
                {"name": "side", "env": [{"name": "B", "value": "2"}]}
            ]}
        });
        let merged = merge_pod(&pod(), &without_strangers(&pod(), &patch)).unwrap();
        let containers = merged["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!(containers[1]["env"][0]["name"], "B");
        assert_eq!(merged["metadata"]["labels"]["tier"], "serverless");
        let only = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "wbe"}], "priority": 1}});
        let merged = merge_pod(&pod(), &without_strangers(&pod(), &only)).unwrap();
        assert_eq!(merged["spec"]["containers"], pod()["spec"]["containers"]);
        assert_eq!(merged["spec"]["priority"], 1);
        let plain = json!({"metadata": {}});
        assert_eq!(without_strangers(&pod(), &plain), plain);
        let reason = strangers(&pod(), &patch)[0].reason("the pod template");
        assert_eq!(
            reason,
            "names container \"wbe\", which the pod template does not have; correct the name, or give the container an image to add it"
        );
    }
}

//! What becomes of one object, given what is known of its owners and dependents.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::graph::{Graph, Object};

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Leave,
    /// Ask the API server for these owners and judge again.
    AskFor(Vec<OwnerReference>),
    /// Take these owners out of its metadata: they are gone or about to be, others are not.
    DropOwners(Vec<String>),
    /// Delete it with this propagation policy.
    Delete(&'static str),
    /// All that it waited for is gone: take out the finalizer.
    Release,
    /// It waits for these dependents: look at them.
    LookAt(Vec<String>),
    /// Take it out of its dependents' metadata, then take out the finalizer.
    LetGo(Vec<String>),
}

/// Judges one object. `confirmed` are the owners that the API server has just confirmed.
pub fn judge(graph: &Graph, object: &Object, confirmed: &HashSet<String>) -> Verdict {
    if object.is_going && object.has_orphan {
        return Verdict::LetGo(
            graph
                .dependents(&object.uid)
                .map(|dependent| dependent.uid.clone())
                .collect(),
        );
    }
    if object.goes_in_foreground() {
        return wait_for_dependents(graph, object);
    }
    if object.is_going || object.owners.is_empty() {
        return Verdict::Leave;
    }
    let (mut solid, mut waiting, mut absent, mut unknown) = (0, Vec::new(), Vec::new(), Vec::new());
    for owner in &object.owners {
        match state_of(graph, object, owner, confirmed) {
            OwnerState::Solid => solid += 1,
            OwnerState::Waiting => waiting.push(owner.uid.clone()),
            OwnerState::Absent => absent.push(owner.uid.clone()),
            OwnerState::Unknown => unknown.push(owner.clone()),
        }
    }
    if !unknown.is_empty() {
        return Verdict::AskFor(unknown);
    }
    if solid > 0 {
        absent.extend(waiting);
        return if absent.is_empty() {
            Verdict::Leave
        } else {
            Verdict::DropOwners(absent)
        };
    }
    if !waiting.is_empty() && graph.dependents(&object.uid).next().is_some() {
        return Verdict::Delete("Foreground");
    }
    Verdict::Delete(match (object.has_orphan, object.has_foreground) {
        (true, _) => "Orphan",
        (false, true) => "Foreground",
        (false, false) => "Background",
    })
}

#[derive(PartialEq)]
enum OwnerState {
    Solid,
    Waiting,
    Absent,
    Unknown,
}

fn state_of(
    graph: &Graph,
    object: &Object,
    reference: &OwnerReference,
    confirmed: &HashSet<String>,
) -> OwnerState {
    let Some(owner) = graph.get(&reference.uid) else {
        return if graph.is_gone(&reference.uid) {
            OwnerState::Absent
        } else if confirmed.contains(&reference.uid) {
            OwnerState::Solid
        } else {
            OwnerState::Unknown
        };
    };
    if owner.resource.is_namespaced && owner.namespace != object.namespace {
        // An owner must be in the same namespace. A cluster-scoped object cannot have a namespaced owner at all; then
        // nothing is certain enough to delete it.
        return if object.resource.is_namespaced {
            OwnerState::Absent
        } else {
            OwnerState::Solid
        };
    }
    if owner.goes_in_foreground() && reference.block_owner_deletion == Some(true) {
        return OwnerState::Waiting;
    }
    OwnerState::Solid
}

fn wait_for_dependents(graph: &Graph, object: &Object) -> Verdict {
    let blocks = |dependent: &&Object| {
        dependent
            .owners
            .iter()
            .any(|owner| owner.uid == object.uid && owner.block_owner_deletion == Some(true))
    };
    let blocking: Vec<&Object> = graph.dependents(&object.uid).filter(blocks).collect();
    if blocking.is_empty() {
        return Verdict::Release;
    }
    let still = blocking.iter().filter(|dependent| !dependent.is_going);
    Verdict::LookAt(still.map(|dependent| dependent.uid.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::catalog::ServedResource;
    use kube::core::GroupVersionKind;
    use kube::discovery::ApiResource;
    use std::sync::Arc;

    fn resource(is_namespaced: bool) -> Arc<ServedResource> {
        let api = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"));
        Arc::new(ServedResource { api, is_namespaced })
    }

    fn object(uid: &str, owners: &[(&str, bool)]) -> Object {
        let owners = owners.iter().map(|(owner, blocks)| OwnerReference {
            uid: (*owner).to_owned(),
            name: (*owner).to_owned(),
            block_owner_deletion: Some(*blocks),
            ..OwnerReference::default()
        });
        Object {
            resource: resource(true),
            namespace: "n".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            version: None,
            owners: owners.collect(),
            is_going: false,
            has_foreground: false,
            has_orphan: false,
        }
    }

    fn going(uid: &str, foreground: bool, owners: &[(&str, bool)]) -> Object {
        Object {
            is_going: true,
            has_foreground: foreground,
            has_orphan: !foreground,
            ..object(uid, owners)
        }
    }

    fn graph(objects: &[Object]) -> Graph {
        let mut graph = Graph::default();
        for object in objects {
            graph.observe(object.clone());
        }
        graph
    }

    fn verdict(graph: &Graph, uid: &str) -> Verdict {
        judge(graph, graph.get(uid).unwrap(), &HashSet::new())
    }

    #[test]
    fn an_unknown_owner_is_asked_for_and_an_absent_one_means_the_end() {
        let mut graph = graph(&[object("child", &[("owner", false)])]);
        assert!(matches!(verdict(&graph, "child"), Verdict::AskFor(owners) if owners.len() == 1));
        graph.mark_gone("owner");
        assert_eq!(verdict(&graph, "child"), Verdict::Delete("Background"));
    }

    #[test]
    fn a_child_lives_as_long_as_one_owner_does() {
        let mut graph = graph(&[
            object("one", &[]),
            object("two", &[]),
            object("child", &[("one", true), ("two", false)]),
        ]);
        assert_eq!(verdict(&graph, "child"), Verdict::Leave);
        assert_eq!(graph.forget("one"), ["child"]);
        assert_eq!(
            verdict(&graph, "child"),
            Verdict::DropOwners(vec!["one".to_owned()])
        );
        graph.forget("two");
        assert_eq!(verdict(&graph, "child"), Verdict::Delete("Background"));
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents_only() {
        let mut graph = graph(&[
            object("owner", &[]),
            object("blocking", &[("owner", true)]),
            object("other", &[("owner", false)]),
        ]);
        let mut look_at = graph.observe(going("owner", true, &[]));
        look_at.sort();
        assert_eq!(look_at, ["blocking", "other", "owner"]);
        assert_eq!(
            verdict(&graph, "owner"),
            Verdict::LookAt(vec!["blocking".to_owned()])
        );
        assert_eq!(verdict(&graph, "blocking"), Verdict::Delete("Background"));
        assert_eq!(verdict(&graph, "other"), Verdict::Leave);
        assert_eq!(graph.forget("blocking"), ["owner"]);
        assert_eq!(verdict(&graph, "owner"), Verdict::Release);
    }

    #[test]
    fn a_chain_is_deleted_in_the_foreground_from_its_end() {
        let graph = graph(&[
            object("child", &[("middle", true)]),
            object("middle", &[("owner", true)]),
            going("owner", true, &[]),
        ]);
        assert_eq!(verdict(&graph, "middle"), Verdict::Delete("Foreground"));
    }

    #[test]
    fn orphaning_lets_all_dependents_go() {
        let graph = graph(&[
            object("child", &[("owner", true)]),
            going("owner", false, &[]),
        ]);
        assert_eq!(
            verdict(&graph, "owner"),
            Verdict::LetGo(vec!["child".to_owned()])
        );
        assert_eq!(verdict(&graph, "child"), Verdict::Leave);
    }

    #[test]
    fn cycles_do_not_block() {
        let mut graph = graph(&[
            object("a", &[("b", true)]),
            object("b", &[("c", true)]),
            object("c", &[("a", true)]),
        ]);
        graph.observe(going("a", true, &[("b", true)]));
        assert_eq!(verdict(&graph, "c"), Verdict::Delete("Foreground"));
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let elsewhere = Object {
            namespace: "m".to_owned(),
            ..object("owner", &[])
        };
        let graph = graph(&[elsewhere, object("child", &[("owner", false)])]);
        assert_eq!(verdict(&graph, "child"), Verdict::Delete("Background"));
    }
}

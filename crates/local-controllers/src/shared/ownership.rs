//! Which pods are a controller's own: those that name it and match, orphans that match (they are adopted), and its own
//! that match no more (they are released).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::objects::{is_active, name, namespace, uid};
use super::requests::{ControllerError, merge_strategic, path_of};
use super::selector;

/// The pods around an object, sorted.
#[derive(Debug, Default, PartialEq)]
pub struct Claim {
    /// Its own, the adopted ones included.
    pub own: Vec<Arc<Pod>>,
    /// To be adopted.
    pub adopt: Vec<Arc<Pod>>,
    /// To be released.
    pub release: Vec<Arc<Pod>>,
}

/// Sorts pods. An owner that is going keeps what it has and takes nothing more.
pub fn claim(
    wanted: &LabelSelector,
    is_owner_going: bool,
    owned: Vec<Arc<Pod>>,
    uncontrolled: Vec<Arc<Pod>>,
    may_adopt: impl Fn(&Pod) -> bool,
) -> Claim {
    let matches = |pod: &Pod| selector::matches(wanted, pod.metadata.labels.as_ref());
    let mut sorted = Claim::default();
    for pod in owned {
        if matches(&pod) {
            sorted.own.push(pod);
        } else if !is_owner_going && pod.metadata.deletion_timestamp.is_none() {
            sorted.release.push(pod);
        }
    }
    if !is_owner_going {
        let orphans = uncontrolled.into_iter();
        sorted.adopt = orphans
            .filter(|pod| is_active(pod) && matches(pod) && may_adopt(pod))
            .collect();
        sorted.own.extend(sorted.adopt.iter().cloned());
    }
    sorted
}

/// A reference that makes an object the controller of another.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "name": owner.meta().name, "uid": owner.meta().uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Writes the adoptions and releases; a pod that changed meanwhile is looked at again later.
///
/// # Errors
/// When the API server refuses one for another reason.
pub async fn carry_out<K: Resource<DynamicType = ()>>(
    client: &Client,
    owner: &K,
    claim: &Claim,
) -> Result<(), ControllerError> {
    let (mine, gone) = (
        controller_reference(owner),
        json!({"$patch": "delete", "uid": uid(owner.meta())}),
    );
    let adoptions = claim.adopt.iter().map(|pod| (pod, &mine));
    for (pod, reference) in adoptions.chain(claim.release.iter().map(|pod| (pod, &gone))) {
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [reference]}});
        let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
        match merge_strategic(client, &path, &patch).await {
            Err(error) if !error.is_race() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

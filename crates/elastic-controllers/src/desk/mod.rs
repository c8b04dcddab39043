//! Gives pods their places when they are created: what admission does for WorkloadSpreads and ResourcePolicies.
//!
//! Pods come many at a time and to several replicas of the webhook. Those that wait for the same policy are given their
//! places together, and what was given is written into the policy's status, under the version that was read, before any of
//! them is answered; so two replicas never give the same place twice. Whatever fails here lets the pod in unchanged.

mod batch;
mod policy;
mod spread;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::policy_view::PolicyView;
use batch::{Counter, Outcome};

/// Less than the API server waits for the webhook.
const PATIENCE: Duration = Duration::from_millis(1600);
/// Places are given again when somebody else gave some in between.
const MAX_ATTEMPTS: usize = 5;
/// Pods that have not ended.
const LIVING: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// ReplicaSets whose owner is remembered.
const MAX_OWNERS: usize = 4096;
/// Nodes are listed again after this.
const NODES_HOLD: Duration = Duration::from_secs(5);

/// A pod that is being created.
#[derive(Clone)]
pub(crate) struct Newcomer {
    /// The call that creates it.
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) pod: Value,
    /// Nothing may be written on its account.
    pub(crate) dry_run: bool,
}

/// What became of it. The texts are for whoever creates it.
pub(crate) enum Admitted {
    /// With its place, or behind a gate until there is one.
    Placed(Value, Vec<String>),
    /// As it was.
    Unchanged(Vec<String>),
    /// Not at all.
    Refused(String),
}

impl Admitted {
    fn is_untouched(&self) -> bool {
        matches!(self, Self::Unchanged(texts) if texts.is_empty())
    }
}

/// A policy's name, with its namespace and kind.
type Key = (&'static str, String, String);

/// Where places are given.
pub(crate) struct Desk {
    client: Client,
    view: PolicyView,
    counters: Mutex<HashMap<Key, Arc<Counter>>>,
    /// The Deployments of ReplicaSets, by the ReplicaSets' UIDs.
    owners: Mutex<HashMap<String, Option<OwnerReference>>>,
    nodes: Mutex<Option<(Instant, Arc<Vec<Node>>)>>,
}

impl Desk {
    pub(crate) fn new(client: Client, view: PolicyView) -> Self {
        Self {
            client,
            view,
            counters: Mutex::default(),
            owners: Mutex::default(),
            nodes: Mutex::default(),
        }
    }

    /// Gives the pod its place, if any policy has one for it.
    pub(crate) async fn admit(&self, newcomer: Newcomer) -> Admitted {
        let work = async {
            // A WorkloadSpread names the pod's workload, a ResourcePolicy only labels, so that one comes first.
            match spread::admit(self, newcomer.clone()).await {
                admitted if admitted.is_untouched() => policy::admit(self, newcomer).await,
                admitted => admitted,
            }
        };
        let working = tokio::time::timeout(PATIENCE, work);
        working.await.unwrap_or_else(|_| {
            tracing::warn!("a pod could not be given its place in time, it is let in unchanged");
            let text = "no place could be given to the pod in time, it is not spread";
            Admitted::Unchanged(vec![text.to_owned()])
        })
    }

    fn counter(&self, key: Key) -> Arc<Counter> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody uses are forgotten, so that the map stays as small as the policies that work.
        counters.retain(|_, counter| Arc::strong_count(counter) > 1);
        counters.entry(key).or_default().clone()
    }

    /// The controller of a ReplicaSet.
    async fn owner_of_replica_set(
        &self,
        namespace: &str,
        set: &OwnerReference,
    ) -> Option<OwnerReference> {
        let known = {
            let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.get(&set.uid).cloned()
        };
        if let Some(owner) = known {
            return owner;
        }
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let found = match sets.get_metadata_opt(&set.name).await {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(namespace, name = set.name, %error, "owner of a pod cannot be read");
                return None;
            }
        };
        let mut references = found.owner_references().iter();
        let owner = references.find(|one| one.controller == Some(true)).cloned();
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS {
            owners.clear();
        }
        owners.insert(set.uid.clone(), owner.clone());
        owner
    }

    /// All nodes, as they were a moment ago.
    async fn nodes(&self) -> Result<Arc<Vec<Node>>, kube::Error> {
        let held = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.clone()
        };
        if let Some((at, nodes)) = held.filter(|(at, _)| at.elapsed() < NODES_HOLD) {
            let _ = at;
            return Ok(nodes);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let list = Arc::new(api.list(&ListParams::default()).await?.items);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        *nodes = Some((Instant::now(), list.clone()));
        Ok(list)
    }
}

/// Tries to give places until nobody else gives any in between; lets the pods in unchanged when that cannot be done.
async fn in_attempts<F>(
    (kind, namespace, name): (&str, &str, &str),
    pods: usize,
    attempt: impl Fn() -> F,
) -> Vec<Outcome>
where
    F: Future<Output = Result<Vec<Outcome>, kube::Error>>,
{
    for _ in 0..MAX_ATTEMPTS {
        match attempt().await {
            Ok(outcomes) => return outcomes,
            // Somebody else gave places in between; look again.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(kind, namespace, name, %error, "pods cannot be given places, they are let in unchanged");
                break;
            }
        }
    }
    vec![None; pods]
}

/// A pod's labels.
fn labels(pod: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default()
}

/// The changes from one pod to another, as JSON patch operations on whole members.
pub(crate) fn operations(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    for part in ["metadata", "spec"] {
        if !before[part].is_object() && after[part].is_object() {
            operations.push(json!({"op": "add", "path": format!("/{part}"), "value": after[part]}));
            continue;
        }
        let members = |pod: &Value| -> Vec<String> {
            let members = pod[part].as_object();
            members
                .into_iter()
                .flat_map(|members| members.keys().cloned())
                .collect()
        };
        let mut all = members(before);
        all.extend(members(after));
        all.sort();
        all.dedup();
        for member in all {
            let path = format!("/{part}/{}", member.replace('~', "~0").replace('/', "~1"));
            match (before[part].get(&member), after[part].get(&member)) {
                (old, Some(new)) if old != Some(new) => {
                    operations.push(json!({"op": "add", "path": path, "value": new}));
                }
                (Some(_), None) => operations.push(json!({"op": "remove", "path": path})),
                _ => {}
            }
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_that_differ_are_written() {
        let before = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"affinity": {}, "containers": []}});
        let after = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {"y": "2"}}, "spec": {"containers": [], "tolerations": [1]}});
        assert_eq!(
            operations(&before, &after),
            [
                json!({"op": "add", "path": "/metadata/annotations", "value": {"y": "2"}}),
                json!({"op": "remove", "path": "/spec/affinity"}),
                json!({"op": "add", "path": "/spec/tolerations", "value": [1]}),
            ]
        );
    }
}

//! Creates the Node object, keeps its lease and its status fresh, and puts it back when somebody deletes it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::object::{Mood, NodeFacts, node, repair, status};
use crate::config::Timing;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
/// Between tries while the API does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until `shutdown`. The node stays registered: its pods are still running in the cloud.
pub(crate) async fn keep_alive(
    client: Client,
    facts: NodeFacts,
    timing: Timing,
    mut mood: watch::Receiver<Mood>,
    shutdown: CancellationToken,
) {
    let heart = Heart {
        nodes: Api::all(client.clone()),
        leases: Api::namespaced(client, LEASE_NAMESPACE),
        facts,
    };
    let mut status_due = Instant::now();
    loop {
        let now = mood.borrow_and_update().clone();
        let wait = match heart.beat(&now, Instant::now() >= status_due).await {
            Ok(wrote_status) => {
                if wrote_status {
                    status_due = Instant::now() + timing.node_status;
                }
                timing.lease_renewal
            }
            Err(error) => {
                tracing::warn!(node = heart.facts.spec.name(), %error, "heartbeat of the virtual node failed");
                RETRY
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            Ok(()) = mood.changed() => status_due = Instant::now(),
        }
    }
}

/// Takes a node that has no pods any more out of the API.
pub(crate) async fn unregister(client: &Client, name: &str) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let gone = |outcome: Result<(), kube::Error>| match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome,
    };
    gone(nodes.delete(name, &DeleteParams::default()).await.map(drop))?;
    gone(
        leases
            .delete(name, &DeleteParams::default())
            .await
            .map(drop),
    )
}

struct Heart {
    nodes: Api<Node>,
    leases: Api<Lease>,
    facts: NodeFacts,
}

impl Heart {
    /// Returns whether the status was written.
    async fn beat(&self, mood: &Mood, with_status: bool) -> Result<bool, kube::Error> {
        let name = self.facts.spec.name();
        let existing = self.nodes.get_opt(&name).await?;
        let uid = match &existing {
            Some(node) => node.uid(),
            None => self.create(mood).await?.uid(),
        };
        let wrote = match existing {
            Some(existing) if with_status => {
                self.restore(&existing, mood).await?;
                true
            }
            Some(_) => false,
            None => true,
        };
        self.renew(&name, uid).await?;
        Ok(wrote)
    }

    async fn create(&self, mood: &Mood) -> Result<Node, kube::Error> {
        let wanted = node(&self.facts, mood, Timestamp::now());
        let created = self.nodes.create(&PostParams::default(), &wanted).await?;
        // The status of a new object is the status subresource's business on many servers.
        let patch = Patch::Merge(json!({"status": wanted.status}));
        self.nodes
            .patch_status(&created.name_any(), &PatchParams::default(), &patch)
            .await
    }

    /// Labels, taints and status as they should be; changes by others on the virtual node are not supported.
    async fn restore(&self, existing: &Node, mood: &Mood) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let name = existing.name_any();
        if let Some(patch) = repair(existing, &self.facts, mood) {
            self.nodes
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        let before = existing
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        let patch = Patch::Merge(json!({"status": status(&self.facts, mood, &before, now)}));
        self.nodes
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
            .map(drop)
    }

    async fn renew(&self, name: &str, uid: Option<String>) -> Result<(), kube::Error> {
        // A Lease has microseconds in its time; more digits are refused.
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string();
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let patch = Patch::Merge(json!({"spec": spec}));
        match self
            .leases
            .patch(name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid.unwrap_or_default()}]);
                let metadata =
                    json!({"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": owner});
                let lease: Lease =
                    serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
                        .map_err(kube::Error::SerdeError)?;
                self.leases
                    .create(&PostParams::default(), &lease)
                    .await
                    .map(drop)
            }
            outcome => outcome.map(drop),
        }
    }
}

//! Watches deployments and their sets, carries out the plan.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{Action, State, plan};
use super::rollout::{Bounds, Resize};
use super::sets::{same_template, size, size_annotations};
use super::status;
use crate::shared::cache::{controlled_by, in_namespace, uncontrolled_in};
use crate::shared::objects::{controller_of, is_finished, name, namespace, uid};
use crate::shared::recorder::reference;
use crate::shared::requests::{create, delete, get, merge, merge_strategic, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue, selector};

const COMPONENT: &str = "deployment-controller";
const WORKERS: usize = 4;
/// Status changes of sets come in bursts and are looked at together.
const SET_EVENT_DELAY: Duration = Duration::from_millis(5);

struct Controller {
    cluster: Cluster,
    deployments: Arc<Cache<Deployment>>,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        deployments: cluster.deployments(),
        sets: cluster.replica_sets(),
        pods: cluster.pods(),
        queue: Arc::new(WorkQueue::default()),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.deployments.wait_synced(),
                controller.sets.wait_synced(),
                controller.pods.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        controller.subscribe();
        let queue = Arc::clone(&controller.queue);
        queue.start_workers(COMPONENT, WORKERS, &starter, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(key).await }
        });
    });
}

impl Controller {
    fn subscribe(self: &Arc<Self>) {
        let controller = Arc::downgrade(self);
        self.deployments.subscribe(move |old, new| {
            if let (Some(controller), Some(deployment)) = (controller.upgrade(), new) {
                let is_same = old.is_some_and(|old| {
                    let (old, new) = (&old.metadata, &deployment.metadata);
                    old.uid == new.uid
                        && old.generation == new.generation
                        && old.annotations == new.annotations
                        && old.deletion_timestamp == new.deletion_timestamp
                });
                if !is_same {
                    controller.queue.add(ObjectKey::of(deployment.as_ref()));
                }
            }
        });
        let controller = Arc::downgrade(self);
        self.sets.subscribe(move |old, new| {
            if let Some(controller) = controller.upgrade() {
                controller.set_changed(old, new);
            }
        });
        let controller = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let (Some(controller), Some(pod), None) = (controller.upgrade(), old, new) {
                controller.pod_gone(pod);
            }
        });
    }

    fn set_changed(&self, old: Option<&Arc<ReplicaSet>>, new: Option<&Arc<ReplicaSet>>) {
        for set in [old, new].into_iter().flatten() {
            if let Some(owner) = owning_deployment(set) {
                let is_status_only = old.zip(new).is_some_and(|(old, new)| {
                    old.metadata.generation == new.metadata.generation
                        && old.metadata.owner_references == new.metadata.owner_references
                });
                let delay = if is_status_only {
                    SET_EVENT_DELAY
                } else {
                    Duration::ZERO
                };
                self.queue.add_after(owner, delay);
            }
        }
        if let Some(set) = new.filter(|set| controller_of(&set.metadata).is_none()) {
            for deployment in self
                .deployments
                .indexed(&in_namespace(namespace(&set.metadata)))
            {
                if selects(&deployment, set) {
                    self.queue.add(ObjectKey::of(deployment.as_ref()));
                }
            }
        }
    }

    /// The last old pod of a recreation makes room for the new ones.
    fn pod_gone(&self, pod: &Pod) {
        let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")
        else {
            return;
        };
        let set = self.sets.named(namespace(&pod.metadata), &owner.name);
        let Some(key) = set.and_then(|set| owning_deployment(&set)) else {
            return;
        };
        if self
            .deployments
            .get(&key)
            .is_some_and(|deployment| !Bounds::of(&deployment).is_rolling)
        {
            self.queue.add(key);
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(deployment) = self.deployments.get(&key) else {
            return Ok(Next::Wait);
        };
        let sets = self.claim(&deployment).await?;
        let plan = plan(State {
            deployment: &deployment,
            old_pods_run: &|new| self.old_pods_run(&sets, new),
            sets: sets.clone(),
            now: Timestamp::now(),
        });
        for action in plan.actions {
            self.carry_out(&deployment, action).await?;
        }
        if deployment.status.as_ref() != Some(&plan.status) {
            self.write_status(&key, &status::patch(&plan.status))
                .await?;
        }
        Ok(plan.next_look.map_or(Next::Wait, Next::After))
    }

    /// The deployment's sets, after orphans that match were adopted and strangers released.
    async fn claim(
        &self,
        deployment: &Deployment,
    ) -> Result<Vec<Arc<ReplicaSet>>, ControllerError> {
        let mut owned = self.sets.indexed(&controlled_by(uid(&deployment.metadata)));
        if deployment.metadata.deletion_timestamp.is_some() {
            return Ok(owned);
        }
        let strangers: Vec<_> = owned
            .iter()
            .filter(|set| !selects(deployment, set))
            .cloned()
            .collect();
        owned.retain(|set| selects(deployment, set));
        for set in strangers {
            let gone = json!({"$patch": "delete", "uid": deployment.metadata.uid});
            self.set_owner(&set, &gone).await?;
        }
        for set in self
            .sets
            .indexed(&uncontrolled_in(namespace(&deployment.metadata)))
        {
            if set.metadata.deletion_timestamp.is_none() && selects(deployment, &set) {
                let owner = json!({
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.metadata.name,
                    "uid": deployment.metadata.uid, "controller": true, "blockOwnerDeletion": true,
                });
                self.set_owner(&set, &owner).await?;
                owned.push(set);
            }
        }
        Ok(owned)
    }

    async fn set_owner(&self, set: &ReplicaSet, reference: &Value) -> Result<(), ControllerError> {
        let patch = json!({"metadata": {"uid": set.metadata.uid, "ownerReferences": [reference]}});
        let path = path_of::<ReplicaSet>(namespace(&set.metadata), name(&set.metadata), "");
        match merge_strategic(self.cluster.client(), &path, &patch).await {
            Err(error) if !error.is_race() => Err(error),
            _ => Ok(()),
        }
    }

    fn old_pods_run(&self, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> bool {
        let is_new =
            |set: &ReplicaSet| new.is_some_and(|new| uid(&new.metadata) == uid(&set.metadata));
        sets.iter().filter(|set| !is_new(set)).any(|set| {
            super::sets::actual(set) > 0
                || self
                    .pods
                    .indexed(&controlled_by(uid(&set.metadata)))
                    .iter()
                    .any(|pod| !is_finished(pod))
        })
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        action: Action,
    ) -> Result<(), ControllerError> {
        let client = self.cluster.client();
        match action {
            Action::Create(set) => self.create_set(deployment, &set).await,
            Action::Annotate(set, annotations) => {
                self.patch_set(&set, json!({"metadata": {"annotations": annotations}}))
                    .await
            }
            Action::Resize(resize) => self.resize(deployment, &resize).await,
            Action::Delete(set) => {
                let path = path_of::<ReplicaSet>(namespace(&set.metadata), name(&set.metadata), "");
                let options = json!({"preconditions": {"uid": set.metadata.uid}});
                delete(client, &path, &options).await
            }
            Action::SetRevision(revision) => {
                let path = path_of::<Deployment>(
                    namespace(&deployment.metadata),
                    name(&deployment.metadata),
                    "",
                );
                let patch = json!({"metadata": {"annotations": {super::sets::REVISION: revision}}});
                let written = merge::<Deployment>(client, &path, &patch).await?;
                self.deployments.write_through(written);
                Ok(())
            }
        }
    }

    async fn create_set(
        &self,
        deployment: &Deployment,
        set: &Value,
    ) -> Result<(), ControllerError> {
        let client = self.cluster.client();
        let path = path_of::<ReplicaSet>(namespace(&deployment.metadata), "", "");
        let set_name = set["metadata"]["name"].as_str().unwrap_or_default();
        match create::<ReplicaSet>(client, &path, set).await {
            Ok(created) => {
                let count = size(&created);
                if count > 0 {
                    self.record_scaling(deployment, true, set_name, 0, count);
                }
                self.sets.write_through(created);
                Ok(())
            }
            Err(error) if error.code() == Some(409) => {
                self.settle_collision(deployment, set_name).await
            }
            Err(error) if error.is_namespace_going() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A set of that name exists: ours from an earlier attempt, or another template with the same hash.
    async fn settle_collision(
        &self,
        deployment: &Deployment,
        set_name: &str,
    ) -> Result<(), ControllerError> {
        let key = ObjectKey::of(deployment);
        let path = path_of::<ReplicaSet>(&key.namespace, set_name, "");
        let existing: ReplicaSet = get(self.cluster.client(), &path).await?;
        let is_ours = controller_of(&existing.metadata)
            .is_some_and(|owner| owner.uid == uid(&deployment.metadata));
        let template = existing
            .spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref());
        let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
        if is_ours
            && template
                .zip(wanted)
                .is_some_and(|(one, other)| same_template(one, other))
        {
            self.sets.write_through(existing);
            return Ok(());
        }
        let count = deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count)
            .unwrap_or(0)
            + 1;
        self.write_status(&key, &json!({"status": {"collisionCount": count}}))
            .await?;
        Err(ControllerError::Object(format!(
            "replica set {set_name} exists with another template"
        )))
    }

    async fn resize(
        &self,
        deployment: &Deployment,
        resize: &Resize,
    ) -> Result<(), ControllerError> {
        let bounds = Bounds::of(deployment);
        let annotations: std::collections::BTreeMap<_, _> =
            size_annotations(bounds.replicas, bounds.surge)
                .into_iter()
                .collect();
        let patch =
            json!({"metadata": {"annotations": annotations}, "spec": {"replicas": resize.to}});
        let before = size(&resize.set);
        self.patch_set(&resize.set, patch).await?;
        if resize.to != before {
            let is_up = resize.to > before;
            self.record_scaling(
                deployment,
                is_up,
                name(&resize.set.metadata),
                before,
                resize.to,
            );
        }
        Ok(())
    }

    async fn patch_set(&self, set: &ReplicaSet, mut patch: Value) -> Result<(), ControllerError> {
        patch["metadata"]["uid"] = json!(set.metadata.uid);
        let path = path_of::<ReplicaSet>(namespace(&set.metadata), name(&set.metadata), "");
        let written = merge::<ReplicaSet>(self.cluster.client(), &path, &patch).await?;
        self.sets.write_through(written);
        Ok(())
    }

    async fn write_status(&self, key: &ObjectKey, patch: &Value) -> Result<(), ControllerError> {
        let path = path_of::<Deployment>(&key.namespace, &key.name, "status");
        match merge::<Deployment>(self.cluster.client(), &path, patch).await {
            Ok(written) => self.deployments.write_through(written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn record_scaling(&self, deployment: &Deployment, is_up: bool, set: &str, from: i32, to: i32) {
        let direction = if is_up { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.cluster.recorder().record(
            COMPONENT,
            reference(deployment),
            false,
            "ScalingReplicaSet",
            message,
        );
    }
}

fn owning_deployment(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(ObjectKey::new(namespace(&set.metadata), &owner.name))
}

fn selects(deployment: &Deployment, set: &ReplicaSet) -> bool {
    deployment
        .spec
        .as_ref()
        .is_some_and(|spec| selector::matches(&spec.selector, set.metadata.labels.as_ref()))
}

//! Watches sets and pods, carries out the plan, writes the status at a bounded rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use super::plan::{self, Change, Plan, State};
use super::status::{self, Failure};
use crate::shared::cache::{controlled_by, in_namespace, uncontrolled_in};
use crate::shared::objects::{controller_of, is_active, name, namespace, uid};
use crate::shared::recorder::reference;
use crate::shared::requests::{merge, merge_strategic, path_of};
use crate::shared::{
    Cache, Cluster, ControllerError, Expectations, Next, ObjectKey, WorkQueue, selector,
};

mod pods;

pub(super) const COMPONENT: &str = "replicaset-controller";
const WORKERS: usize = 4;
/// Pod events of a burst are looked at together.
const POD_EVENT_DELAY: Duration = Duration::from_millis(10);
/// A changing status is written at most this often.
const STATUS_INTERVAL: Duration = Duration::from_millis(25);

/// The controller's shared parts.
pub(super) struct Controller {
    pub(super) cluster: Cluster,
    pub(super) pods: Arc<Cache<Pod>>,
    pub(super) sets: Arc<Cache<ReplicaSet>>,
    pub(super) expectations: Expectations,
    queue: Arc<WorkQueue<ObjectKey>>,
    written: Mutex<HashMap<ObjectKey, Instant>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        pods: cluster.pods(),
        sets: cluster.replica_sets(),
        expectations: Expectations::default(),
        queue: Arc::new(WorkQueue::default()),
        written: Mutex::default(),
    });
    let task = Arc::clone(&controller);
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async { tokio::join!(task.pods.wait_synced(), task.sets.wait_synced()) };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        task.subscribe();
        let queue = Arc::clone(&task.queue);
        queue.start_workers(COMPONENT, WORKERS, &starter, move |key| {
            let controller = Arc::clone(&task);
            async move { controller.reconcile(key).await }
        });
    });
}

impl Controller {
    fn subscribe(self: &Arc<Self>) {
        let controller = Arc::downgrade(self);
        self.sets.subscribe(move |old, new| {
            if let Some(controller) = controller.upgrade() {
                controller.set_changed(old, new);
            }
        });
        let controller = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let Some(controller) = controller.upgrade() {
                controller.pod_changed(old, new);
            }
        });
    }

    fn set_changed(&self, old: Option<&Arc<ReplicaSet>>, new: Option<&Arc<ReplicaSet>>) {
        let Some(set) = new.or(old) else { return };
        if let (Some(old), Some(new)) = (old, new) {
            let (old, new) = (&old.metadata, &new.metadata);
            let is_same = old.uid == new.uid
                && old.generation == new.generation
                && old.deletion_timestamp.is_some() == new.deletion_timestamp.is_some();
            if is_same {
                return;
            }
        }
        let key = ObjectKey::of(set.as_ref());
        if new.is_none() {
            self.expectations.forget(&key);
            self.written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
        }
        self.queue.add(key);
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let (Some(old), Some(new)) = (old, new)
            && !plan::is_relevant(old, new)
        {
            return;
        }
        let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        if let Some(pod) = new.or(old) {
            let pod_key = ObjectKey::of(pod.as_ref());
            match owning_set(pod) {
                Some(owner) => {
                    if new.is_none() || going(pod) {
                        self.expectations.deletion_seen(&owner, &pod_key);
                    } else if old.is_none() {
                        self.expectations.creation_seen(&owner);
                    }
                    self.queue.add_after(owner, POD_EVENT_DELAY);
                }
                None if new.is_some() && controller_of(&pod.metadata).is_none() => {
                    self.wake_matching(pod)
                }
                None => {}
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && let Some(owner) =
                owning_set(old).filter(|owner| owning_set(new).as_ref() != Some(owner))
        {
            self.queue.add(owner);
        }
    }

    /// An orphan may belong to any set of its namespace.
    fn wake_matching(&self, pod: &Pod) {
        for set in self.sets.indexed(&in_namespace(namespace(&pod.metadata))) {
            let selected = set.spec.as_ref().is_some_and(|spec| {
                selector::matches(&spec.selector, pod.metadata.labels.as_ref())
            });
            if selected {
                self.queue.add(ObjectKey::of(set.as_ref()));
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(set) = self.sets.get(&key) else {
            return Ok(Next::Wait);
        };
        let state = State {
            set: &set,
            owned: self.pods.indexed(&controlled_by(uid(&set.metadata))),
            uncontrolled: self.pods.indexed(&uncontrolled_in(&key.namespace)),
            expectations_met: self.expectations.are_met(&key),
        };
        let plan = plan::plan(state);
        let claimed = self.claim(&set, &plan).await;
        let changed = match plan.change {
            Change::Nothing => Ok(()),
            Change::Create(count) => pods::create(self, &key, &set, count).await,
            Change::Delete(count) => {
                let related = self.related(&set, &plan);
                let victims =
                    plan::choose_victims(plan.counted.clone(), &related, count, Timestamp::now());
                pods::delete(self, &key, &set, victims).await
            }
        };
        let failure = changed
            .as_ref()
            .err()
            .map(|error| failure_of(&plan.change, error));
        let next = self
            .write_status(&key, &set, &plan, failure.as_ref())
            .await?;
        claimed?;
        match changed {
            Err(error) if error.is_namespace_going() => Ok(Next::Wait),
            Err(error) => Err(error),
            Ok(()) => Ok(next),
        }
    }

    async fn claim(&self, set: &ReplicaSet, plan: &Plan) -> Result<(), ControllerError> {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.metadata.name, "uid": set.metadata.uid,
            "controller": true, "blockOwnerDeletion": true,
        });
        let gone = json!({"$patch": "delete", "uid": set.metadata.uid});
        let adoptions = plan.adopt.iter().map(|pod| (pod, &owner));
        for (pod, reference) in adoptions.chain(plan.release.iter().map(|pod| (pod, &gone))) {
            let patch =
                json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [reference]}});
            let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
            match merge_strategic(self.cluster.client(), &path, &patch).await {
                Err(error) if !error.is_race() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The active pods of all sets that have the same owner as this one, which say how crowded a node is.
    fn related(&self, set: &ReplicaSet, plan: &Plan) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else {
            return plan.counted.clone();
        };
        let sets = self.sets.indexed(&controlled_by(&owner.uid));
        let pods = sets
            .iter()
            .flat_map(|set| self.pods.indexed(&controlled_by(uid(&set.metadata))));
        pods.filter(|pod| is_active(pod)).collect()
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        plan: &Plan,
        failure: Option<&Failure>,
    ) -> Result<Next, ControllerError> {
        // The creations of this round are in the store when it is read again; the status follows then.
        let outlook = status::status(set, &plan.counted, failure, Timestamp::now());
        let next = outlook.next_available.map_or(Next::Wait, Next::After);
        if set.status.as_ref() == Some(&outlook.status) {
            return Ok(next);
        }
        if let Some(left) = self.status_delay(key, set, &outlook.status) {
            return Ok(Next::After(left));
        }
        let path = path_of::<ReplicaSet>(&key.namespace, &key.name, "status");
        match merge::<ReplicaSet>(
            self.cluster.client(),
            &path,
            &status::patch(&outlook.status),
        )
        .await
        {
            Ok(written) => self.sets.write_through(written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), Instant::now());
        Ok(next)
    }

    /// How long the status must wait, unless it has arrived where it is going.
    fn status_delay(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        status: &k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Option<Duration> {
        let wanted = i32::try_from(plan::wanted_replicas(set)).unwrap_or(i32::MAX);
        let is_settled =
            status.replicas == wanted && status.available_replicas.unwrap_or(0) == wanted;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let left = STATUS_INTERVAL.checked_sub(written.get(key)?.elapsed())?;
        (!is_settled && !left.is_zero()).then_some(left)
    }

    pub(super) fn record(&self, set: &ReplicaSet, is_warning: bool, reason: &str, message: String) {
        self.cluster
            .recorder()
            .record(COMPONENT, reference(set), is_warning, reason, message);
    }
}

fn owning_set(pod: &Pod) -> Option<ObjectKey> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    Some(ObjectKey::new(namespace(&pod.metadata), &owner.name))
}

fn failure_of(change: &Change, error: &ControllerError) -> Failure {
    let reason = if matches!(change, Change::Delete(_)) {
        "FailedDelete"
    } else {
        "FailedCreate"
    };
    (reason, error.api_message())
}

//! Watches sets, pods, revisions and claims, and carries out the plan.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use serde_json::{Value, json};

use super::plan::{self, Plan, State, Step};
use super::pods::{claim_owners, claims, first_ordinal, ordinal, pod_body};
use super::revisions::{self, Outlook};
use super::status;
use crate::shared::batch::{Failures, each};
use crate::shared::cache::{controlled_by, in_namespace, uncontrolled_in};
use crate::shared::objects::{controller_of, name, namespace, phase, uid};
use crate::shared::recorder::reference;
use crate::shared::requests::{create, delete, get, merge, path_of, send};
use crate::shared::{
    Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue, ownership, selector,
};

const COMPONENT: &str = "statefulset-controller";
const WORKERS: usize = 4;
/// Pod events of a burst are looked at together.
const POD_EVENT_DELAY: Duration = Duration::from_millis(5);

struct Controller {
    cluster: Cluster,
    sets: Arc<Cache<StatefulSet>>,
    pods: Arc<Cache<Pod>>,
    revisions: Arc<Cache<ControllerRevision>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        sets: cluster.stateful_sets(),
        pods: cluster.pods(),
        revisions: cluster.revisions(),
        claims: cluster.claims(),
        queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.sets.wait_synced(),
                controller.pods.wait_synced(),
                controller.revisions.wait_synced(),
                controller.claims.wait_synced()
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
        self.sets.subscribe(move |old, new| {
            let (Some(controller), Some(set)) = (controller.upgrade(), new) else {
                return;
            };
            let is_same = old.is_some_and(|old| {
                let (old, new) = (&old.metadata, &set.metadata);
                old.uid == new.uid
                    && old.generation == new.generation
                    && old.deletion_timestamp == new.deletion_timestamp
            });
            if !is_same {
                controller.queue.add(ObjectKey::of(set.as_ref()));
            }
        });
        let controller = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let Some(controller) = controller.upgrade() {
                controller.pod_changed(old, new);
            }
        });
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        for pod in [old, new].into_iter().flatten() {
            if let Some(owner) = owning_set(pod) {
                self.queue.add_after(owner, POD_EVENT_DELAY);
            }
        }
        let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none()) else {
            return;
        };
        for set in self
            .sets
            .indexed(&in_namespace(namespace(&orphan.metadata)))
        {
            if selects(&set, orphan) {
                self.queue.add(ObjectKey::of(set.as_ref()));
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(set) = self.sets.get(&key) else {
            return Ok(Next::Wait);
        };
        let Some(spec) = set.spec.as_ref() else {
            return Ok(Next::Wait);
        };
        let claim = ownership::claim(
            &spec.selector,
            set.metadata.deletion_timestamp.is_some(),
            self.pods.indexed(&controlled_by(uid(&set.metadata))),
            self.pods.indexed(&uncontrolled_in(&key.namespace)),
            |pod| ordinal(&set, name(&pod.metadata)).is_some(),
        );
        ownership::carry_out(self.cluster.client(), set.as_ref(), &claim).await?;
        let outlook = self.settle_revisions(&set).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&State {
            set: &set,
            pods: &claim.own,
            current: &outlook.current,
            update: &outlook.update,
            now,
        });
        let acted = self.act(&set, &outlook, &claim.own, &plan).await;
        let seen = status::status(&set, &claim.own, &outlook.current, &outlook.update, now);
        if set.status.as_ref() != Some(&seen.status) {
            self.write_status(&key, &status::patch(&seen.status))
                .await?;
        }
        match acted {
            Err(error) if error.is_namespace_going() => return Ok(Next::Wait),
            result => result?,
        }
        if set.metadata.deletion_timestamp.is_none() {
            let known = self.known_revisions(&set);
            for surplus in revisions::surplus(&set, &known, &outlook, &claim.own) {
                let path =
                    path_of::<ControllerRevision>(&key.namespace, name(&surplus.metadata), "");
                delete(self.cluster.client(), &path, &json!({})).await?;
            }
        }
        Ok(seen.next_available.map_or(Next::Wait, Next::After))
    }

    fn known_revisions(&self, set: &StatefulSet) -> Vec<Arc<ControllerRevision>> {
        self.revisions.indexed(&controlled_by(uid(&set.metadata)))
    }

    /// Makes the revision of the set's template, or gives an old one a new number.
    async fn settle_revisions(&self, set: &StatefulSet) -> Result<Outlook, ControllerError> {
        let client = self.cluster.client();
        let outlook = revisions::outlook(set, &self.known_revisions(set));
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(outlook);
        }
        let collection = path_of::<ControllerRevision>(namespace(&set.metadata), "", "");
        if let Some(body) = &outlook.create {
            match create::<ControllerRevision>(client, &collection, body).await {
                Ok(made) => self.revisions.write_through(made),
                Err(error) if error.code() == Some(409) => {
                    self.settle_collision(set, &outlook.update).await?;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((revision, number)) = &outlook.renumber {
            let path = format!("{collection}/{}", name(&revision.metadata));
            let patch = json!({"metadata": {"uid": revision.metadata.uid}, "revision": number});
            let written = merge::<ControllerRevision>(client, &path, &patch).await?;
            self.revisions.write_through(written);
        }
        Ok(outlook)
    }

    /// A revision of that name exists: ours from an earlier attempt, or another template with the same hash.
    async fn settle_collision(
        &self,
        set: &StatefulSet,
        revision: &str,
    ) -> Result<(), ControllerError> {
        let path = path_of::<ControllerRevision>(namespace(&set.metadata), revision, "");
        let existing: ControllerRevision = get(self.cluster.client(), &path).await?;
        let is_ours =
            controller_of(&existing.metadata).is_some_and(|owner| owner.uid == uid(&set.metadata));
        let template = set.spec.as_ref().map(|spec| spec.template.clone());
        if is_ours && revisions::template(&existing) == template {
            self.revisions.write_through(existing);
            return Ok(());
        }
        let count = set
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let patch = json!({"status": {"collisionCount": count.unwrap_or(0) + 1}});
        self.write_status(&ObjectKey::of(set), &patch).await?;
        Err(ControllerError::Object(format!(
            "controller revision {revision} exists with another template"
        )))
    }

    async fn act(
        &self,
        set: &Arc<StatefulSet>,
        outlook: &Outlook,
        pods: &[Arc<Pod>],
        plan: &Plan,
    ) -> Result<(), ControllerError> {
        self.settle_claims(set, pods, plan).await?;
        let mut creations = Vec::new();
        for step in &plan.steps {
            match step {
                Step::Create(number, revision) => creations.push((*number, revision.clone())),
                Step::Delete(pod) => self.remove(set, pod).await?,
                Step::Replace(pod) => {
                    let what = match phase(pod) {
                        "Failed" => ("RecreatingFailedPod", "failed"),
                        _ => ("RecreatingTerminatedPod", "terminated"),
                    };
                    let message = format!(
                        "StatefulSet {} is recreating {} Pod {}",
                        ObjectKey::of(set.as_ref()),
                        what.1,
                        name(&pod.metadata)
                    );
                    self.record(set, true, what.0, message);
                    self.remove(set, pod).await?;
                }
            }
        }
        self.make_all(set, outlook, creations).await
    }

    /// Makes missing claims of pods that wait for them, and says to whom each claim belongs.
    async fn settle_claims(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        plan: &Plan,
    ) -> Result<(), ControllerError> {
        let home = namespace(&set.metadata);
        for pod in pods {
            let Some(number) = ordinal(set, name(&pod.metadata)) else {
                continue;
            };
            if phase(pod) == "Pending" && number >= first_ordinal(set) {
                self.make_claims(set, number).await?;
            }
            let is_leaving = plan.condemned.contains(pod);
            for (claim, _) in claims(set, number) {
                let known = self.claims.named(home, &claim);
                let owners =
                    known.and_then(|known| claim_owners(set, &known, Some(pod), is_leaving));
                if let Some(owners) = owners {
                    let path = path_of::<PersistentVolumeClaim>(home, &claim, "");
                    let patch = json!({"metadata": {"ownerReferences": owners}});
                    let written = merge(self.cluster.client(), &path, &patch).await?;
                    self.claims.write_through(written);
                }
            }
        }
        Ok(())
    }

    async fn make_claims(&self, set: &StatefulSet, number: i32) -> Result<(), ControllerError> {
        let home = namespace(&set.metadata);
        for (claim, body) in claims(set, number) {
            if self.claims.named(home, &claim).is_some() {
                continue;
            }
            let path = path_of::<PersistentVolumeClaim>(home, "", "");
            let pod = super::pods::pod_name(set, number);
            let about = format!(
                "create Claim {claim} Pod {pod} in StatefulSet {}",
                name(&set.metadata)
            );
            match create(self.cluster.client(), &path, &body).await {
                Ok(made) => {
                    self.claims.write_through(made);
                    self.record(set, false, "SuccessfulCreate", format!("{about} success"));
                }
                Err(error) if error.code() == Some(409) => {}
                Err(error) => {
                    let message = format!("{about} failed error: {}", error.api_message());
                    self.record(set, true, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn make_all(
        &self,
        set: &Arc<StatefulSet>,
        outlook: &Outlook,
        creations: Vec<(i32, String)>,
    ) -> Result<(), ControllerError> {
        let path: Arc<str> = path_of::<Pod>(namespace(&set.metadata), "", "").into();
        let mut requests = Vec::with_capacity(creations.len());
        for (number, revision) in creations {
            self.make_claims(set, number).await?;
            let template = self.template(set, outlook, &revision);
            let body = pod_body(set, &template, number, &revision);
            let pod = super::pods::pod_name(set, number);
            let (client, path) = (self.cluster.client().clone(), Arc::clone(&path));
            requests.push(async move {
                let result = create::<Pod>(&client, &path, &body).await;
                (pod, result)
            });
        }
        let mut failures = Failures::new(requests.len());
        each(requests.into_iter(), |(pod, result)| {
            let about = format!("create Pod {pod} in StatefulSet {}", name(&set.metadata));
            match result {
                Ok(made) => {
                    self.pods.write_through(made);
                    self.record(
                        set,
                        false,
                        "SuccessfulCreate",
                        format!("{about} successful"),
                    );
                }
                // Made in an earlier round, or someone else's; the watch shows which.
                Err(error) if error.code() == Some(409) => failures.add(error),
                Err(error) => {
                    let message = format!("{about} failed error: {}", error.api_message());
                    self.record(set, true, "FailedCreate", message);
                    failures.add(error);
                }
            }
        })
        .await;
        failures.into_result()
    }

    /// The template of a revision; the set's own when the revision cannot be read.
    fn template(&self, set: &StatefulSet, outlook: &Outlook, revision: &str) -> PodTemplateSpec {
        let own = || {
            set.spec
                .as_ref()
                .map(|spec| spec.template.clone())
                .unwrap_or_default()
        };
        if revision == outlook.update {
            return own();
        }
        let known = self.revisions.named(namespace(&set.metadata), revision);
        known
            .and_then(|known| revisions::template(&known))
            .unwrap_or_else(own)
    }

    async fn remove(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ControllerError> {
        let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
        let options = json!({"preconditions": {"uid": pod.metadata.uid}});
        let about = format!(
            "delete Pod {} in StatefulSet {}",
            name(&pod.metadata),
            name(&set.metadata)
        );
        let body = options.to_string().into_bytes();
        let client = self.cluster.client();
        match send::<Value>(client, Method::DELETE, &path, "application/json", body).await {
            Ok(answer) => {
                // What goes is seen at once, so that the next look does not remove it again.
                if let Ok(going) = serde_json::from_value::<Pod>(answer)
                    && going.metadata.deletion_timestamp.is_some()
                {
                    self.pods.write_through(going);
                }
                self.record(
                    set,
                    false,
                    "SuccessfulDelete",
                    format!("{about} successful"),
                );
                Ok(())
            }
            Err(error) if error.is_race() => Ok(()),
            Err(error) => {
                let message = format!("{about} failed error: {}", error.api_message());
                self.record(set, true, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(&self, key: &ObjectKey, patch: &Value) -> Result<(), ControllerError> {
        let path = path_of::<StatefulSet>(&key.namespace, &key.name, "status");
        match merge::<StatefulSet>(self.cluster.client(), &path, patch).await {
            Ok(written) => self.sets.write_through(written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn record(&self, set: &StatefulSet, is_warning: bool, reason: &str, message: String) {
        self.cluster
            .recorder()
            .record(COMPONENT, reference(set), is_warning, reason, message);
    }
}

fn owning_set(pod: &Pod) -> Option<ObjectKey> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "StatefulSet")?;
    Some(ObjectKey::new(namespace(&pod.metadata), &owner.name))
}

fn selects(set: &StatefulSet, pod: &Pod) -> bool {
    set.spec
        .as_ref()
        .is_some_and(|spec| selector::matches(&spec.selector, pod.metadata.labels.as_ref()))
}

//! Watches jobs and their pods, and carries out the plan.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{Plan, plan};
use super::pods::{NewPod, TRACKING_FINALIZER, is_tracked, pod_body};
use super::status;
use crate::shared::batch::{Failures, each};
use crate::shared::cache::{controlled_by, in_namespace, uncontrolled_in};
use crate::shared::objects::{controller_of, name, namespace, uid};
use crate::shared::recorder::reference;
use crate::shared::requests::{create, delete, merge, path_of, send};
use crate::shared::{
    Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue, ownership, selector,
};

const COMPONENT: &str = "job-controller";
/// The name that `managedBy` gives to this controller.
const MANAGER: &str = "kubernetes.io/job-controller";
const WORKERS: usize = 4;
/// Pods end in waves and are counted together.
const POD_EVENT_DELAY: Duration = Duration::from_millis(100);

struct Controller {
    cluster: Cluster,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        jobs: cluster.jobs(),
        pods: cluster.pods(),
        queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced =
            async { tokio::join!(controller.jobs.wait_synced(), controller.pods.wait_synced()) };
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
        self.jobs.subscribe(move |old, new| {
            let (Some(controller), Some(job)) = (controller.upgrade(), new.or(old)) else {
                return;
            };
            let is_same = old.zip(new).is_some_and(|(old, new)| {
                let (old, new) = (&old.metadata, &new.metadata);
                old.uid == new.uid
                    && old.generation == new.generation
                    && old.deletion_timestamp == new.deletion_timestamp
            });
            if !is_same {
                controller.queue.add(ObjectKey::of(job.as_ref()));
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
            if let Some(owner) = owning_job(pod) {
                self.queue.add_after(owner, POD_EVENT_DELAY);
            }
        }
        let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none()) else {
            return;
        };
        for job in self
            .jobs
            .indexed(&in_namespace(namespace(&orphan.metadata)))
        {
            if selects(&job, orphan) {
                self.queue.add(ObjectKey::of(job.as_ref()));
            }
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        self.let_orphans_go(&key).await?;
        let Some(job) = self.jobs.get(&key) else {
            return Ok(Next::Wait);
        };
        let Some(spec) = job.spec.as_ref() else {
            return Ok(Next::Wait);
        };
        if spec
            .managed_by
            .as_deref()
            .is_some_and(|manager| manager != MANAGER)
        {
            return Ok(Next::Wait);
        }
        let claim = ownership::claim(
            &spec.selector.clone().unwrap_or_default(),
            job.metadata.deletion_timestamp.is_some(),
            self.pods.indexed(&controlled_by(uid(&job.metadata))),
            self.pods.indexed(&uncontrolled_in(&key.namespace)),
            |_| true,
        );
        ownership::carry_out(self.cluster.client(), job.as_ref(), &claim).await?;
        let mut plan = plan(&job, &claim.own, Timestamp::now());
        if plan.is_expired {
            return self.remove(&key, &job).await;
        }
        let acted = self.act(&job, &mut plan).await;
        if job.status.as_ref() != Some(&plan.status) {
            let path = path_of::<Job>(&key.namespace, &key.name, "status");
            match merge::<Job>(self.cluster.client(), &path, &status::patch(&plan.status)).await {
                Ok(written) => self.jobs.write_through(written),
                Err(error) if error.is_not_found() => return Ok(Next::Wait),
                Err(error) => return Err(error),
            }
        }
        for event in &plan.events {
            self.record(&job, event.is_warning, &event.reason, event.message.clone());
        }
        let is_counting = !plan.untrack.is_empty();
        self.untrack(plan.untrack).await?;
        match acted {
            Err(error) if error.is_namespace_going() => return Ok(Next::Wait),
            result => result?,
        }
        // What has just been let go moves into the counters at once.
        let soon = is_counting.then_some(Duration::ZERO);
        Ok(soon.or(plan.next).map_or(Next::Wait, Next::After))
    }

    /// Makes and removes pods; the plan's status takes up what went through.
    async fn act(&self, job: &Arc<Job>, plan: &mut Plan) -> Result<(), ControllerError> {
        let (made, making) = self.make(job, &plan.create).await;
        let (removed, removing) = self.remove_pods(job, &plan.delete).await;
        let active = plan.status.active.unwrap_or(0) + made - removed;
        plan.status.active = (active > 0).then_some(active);
        plan.status.terminating = Some(plan.status.terminating.unwrap_or(0) + removed);
        making.and(removing)
    }

    async fn make(&self, job: &Job, pods: &[NewPod]) -> (i32, Result<(), ControllerError>) {
        let path: Arc<str> = path_of::<Pod>(namespace(&job.metadata), "", "").into();
        let requests = pods.iter().map(|new| {
            let (client, path) = (self.cluster.client().clone(), Arc::clone(&path));
            let body = pod_body(job, *new);
            async move { create::<Pod>(&client, &path, &body).await }
        });
        let (mut made, mut failures) = (0, Failures::new(pods.len()));
        each(requests, |result| match result {
            Ok(pod) => {
                made += 1;
                let message = format!("Created pod: {}", name(&pod.metadata));
                self.pods.write_through(pod);
                self.record(job, false, "SuccessfulCreate", message);
            }
            Err(error) => {
                if !error.is_namespace_going() {
                    let message = format!("Error creating: {}", error.api_message());
                    self.record(job, true, "FailedCreate", message);
                }
                failures.add(error);
            }
        })
        .await;
        (made, failures.into_result())
    }

    async fn remove_pods(
        &self,
        job: &Job,
        pods: &[Arc<Pod>],
    ) -> (i32, Result<(), ControllerError>) {
        let requests = pods.iter().cloned().map(|pod| {
            let client = self.cluster.client().clone();
            async move {
                let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
                let options = json!({"preconditions": {"uid": pod.metadata.uid}});
                let body = options.to_string().into_bytes();
                let result =
                    send::<Value>(&client, Method::DELETE, &path, "application/json", body).await;
                (pod, result)
            }
        });
        let (mut removed, mut failures) = (0, Failures::new(pods.len()));
        each(requests, |(pod, result)| match result {
            Ok(answer) => {
                removed += 1;
                if let Ok(going) = serde_json::from_value::<Pod>(answer)
                    && going.metadata.deletion_timestamp.is_some()
                {
                    self.pods.write_through(going);
                }
                let message = format!("Deleted pod: {}", name(&pod.metadata));
                self.record(job, false, "SuccessfulDelete", message);
            }
            Err(error) if error.is_race() => {}
            Err(error) => {
                let message = format!("Error deleting: {}", error.api_message());
                self.record(job, true, "FailedDelete", message);
                failures.add(error);
            }
        })
        .await;
        (removed, failures.into_result())
    }

    /// Takes the finalizer off pods.
    async fn untrack(&self, pods: Vec<Arc<Pod>>) -> Result<(), ControllerError> {
        let total = pods.len();
        let requests = pods.into_iter().map(|pod| {
            let client = self.cluster.client().clone();
            async move {
                let path = path_of::<Pod>(namespace(&pod.metadata), name(&pod.metadata), "");
                let patch = json!({"metadata": {
                    "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER],
                }});
                let (kind, body) = (
                    "application/strategic-merge-patch+json",
                    patch.to_string().into_bytes(),
                );
                send::<Pod>(&client, Method::PATCH, &path, kind, body).await
            }
        });
        let mut failures = Failures::new(total);
        each(requests, |result| match result {
            Ok(pod) => self.pods.write_through(pod),
            Err(error) if error.is_race() => {}
            Err(error) => failures.add(error),
        })
        .await;
        failures.into_result()
    }

    /// Pods of a Job that is gone are counted by nobody.
    async fn let_orphans_go(&self, key: &ObjectKey) -> Result<(), ControllerError> {
        let job = self.jobs.get(key);
        let alive = job.as_ref().map_or("", |job| uid(&job.metadata));
        let mut orphans = self.pods.indexed(&in_namespace(&key.namespace));
        orphans.retain(|pod| {
            let owner = controller_of(&pod.metadata);
            is_tracked(pod)
                && owner.is_none_or(|owner| {
                    owner.kind == "Job" && *owner.name == *key.name && owner.uid != alive
                })
        });
        self.untrack(orphans).await
    }

    async fn remove(&self, key: &ObjectKey, job: &Job) -> Result<Next, ControllerError> {
        let path = path_of::<Job>(&key.namespace, &key.name, "");
        let options =
            json!({"propagationPolicy": "Foreground", "preconditions": {"uid": job.metadata.uid}});
        match delete(self.cluster.client(), &path, &options).await {
            Err(error) if !error.is_race() => Err(error),
            _ => Ok(Next::Wait),
        }
    }

    fn record(&self, job: &Job, is_warning: bool, reason: &str, message: String) {
        self.cluster
            .recorder()
            .record(COMPONENT, reference(job), is_warning, reason, message);
    }
}

fn owning_job(pod: &Pod) -> Option<ObjectKey> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job")?;
    Some(ObjectKey::new(namespace(&pod.metadata), &owner.name))
}

fn selects(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|wanted| selector::matches(wanted, pod.metadata.labels.as_ref()))
}

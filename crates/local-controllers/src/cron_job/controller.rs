//! Watches CronJobs and their Jobs, and carries out the plan.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::plan::{Plan, plan};
use super::times::Times;
use crate::shared::cache::controlled_by;
use crate::shared::objects::{controller_of, name, namespace, uid, whole_seconds};
use crate::shared::ownership::controller_reference;
use crate::shared::recorder::reference;
use crate::shared::requests::{create, delete, merge, path_of, to_value};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "cronjob-controller";
const WORKERS: usize = 2;
/// On a Job: the time it was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct Controller {
    cluster: Cluster,
    cron_jobs: Arc<Cache<CronJob>>,
    jobs: Arc<Cache<Job>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        cron_jobs: cluster.cron_jobs(),
        jobs: cluster.jobs(),
        queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.cron_jobs.wait_synced(),
                controller.jobs.wait_synced()
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
        self.cron_jobs.subscribe(move |old, new| {
            let (Some(controller), Some(cron)) = (controller.upgrade(), new.or(old)) else {
                return;
            };
            // Its own writes of the status need no other look.
            let is_same = old.zip(new).is_some_and(|(old, new)| {
                old.metadata.generation == new.metadata.generation
                    && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
            });
            if !is_same {
                controller.queue.add(ObjectKey::of(cron.as_ref()));
            }
        });
        let controller = Arc::downgrade(self);
        self.jobs.subscribe(move |old, new| {
            let (Some(controller), Some(job)) = (controller.upgrade(), new.or(old)) else {
                return;
            };
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
            if let Some(owner) = owner {
                let key = ObjectKey::new(namespace(&job.metadata), &owner.name);
                controller.queue.add(key);
            }
        });
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(cron) = self.cron_jobs.get(&key) else {
            return Ok(Next::Wait);
        };
        let jobs = self.jobs.indexed(&controlled_by(uid(&cron.metadata)));
        let mut plan = plan(&cron, &jobs, Timestamp::now());
        for event in &plan.events {
            self.record(&cron, event.is_warning, event.reason, event.message.clone());
        }
        let outcome = self.act(&cron, &mut plan).await;
        self.write_status(&cron, &plan.status).await?;
        outcome?;
        Ok(plan.again.map_or(Next::Wait, Next::After))
    }

    async fn act(&self, cron: &CronJob, plan: &mut Plan) -> Result<(), ControllerError> {
        for job in &plan.retired {
            self.delete(cron, name(&job.metadata), uid(&job.metadata))
                .await?;
        }
        for job in std::mem::take(&mut plan.replaced) {
            let (name, uid) = (job.name.unwrap_or_default(), job.uid.unwrap_or_default());
            self.delete(cron, &name, &uid).await?;
            let active = plan.status.active.iter_mut().flatten();
            let left: Vec<ObjectReference> = active
                .filter(|one| one.uid.as_deref() != Some(&uid))
                .map(std::mem::take)
                .collect();
            plan.status.active = (!left.is_empty()).then_some(left);
        }
        let Some(at) = plan.start else {
            return Ok(());
        };
        let Some(job) = self.make(cron, at).await? else {
            return Ok(());
        };
        let active = plan.status.active.get_or_insert_default();
        if !active.iter().any(|one| one.uid == job.metadata.uid) {
            active.push(reference(&job));
        }
        plan.status.last_schedule_time = Some(whole_seconds(at));
        Ok(())
    }

    /// Makes the Job of a time; `None` when its namespace is going.
    async fn make(&self, cron: &CronJob, at: Timestamp) -> Result<Option<Job>, ControllerError> {
        let space = namespace(&cron.metadata);
        let body = job_body(cron, at)?;
        let path = path_of::<Job>(space, "", "");
        match create::<Job>(self.cluster.client(), &path, &body).await {
            Ok(job) => {
                let message = format!("Created job {}", name(&job.metadata));
                self.record(cron, false, "SuccessfulCreate", message);
                self.jobs.write_through(job.clone());
                Ok(Some(job))
            }
            Err(error) if error.is_namespace_going() => Ok(None),
            Err(error) => {
                // Made for this time already, by a look whose status was not written.
                let known = self
                    .jobs
                    .named(space, body["metadata"]["name"].as_str().unwrap_or_default());
                let own = known.filter(|job| {
                    controller_of(&job.metadata)
                        .is_some_and(|owner| owner.uid == uid(&cron.metadata))
                });
                if let Some(job) = own.filter(|_| error.code() == Some(409)) {
                    return Ok(Some(job.as_ref().clone()));
                }
                let message = format!("Error creating job: {}", error.api_message());
                self.record(cron, true, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &str, uid: &str) -> Result<(), ControllerError> {
        let path = path_of::<Job>(namespace(&cron.metadata), job, "");
        let options = json!({"propagationPolicy": "Background", "preconditions": {"uid": uid}});
        match delete(self.cluster.client(), &path, &options).await {
            Ok(()) => {
                self.record(
                    cron,
                    false,
                    "SuccessfulDelete",
                    format!("Deleted job {job}"),
                );
                Ok(())
            }
            Err(error) if error.is_race() => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", error.api_message());
                self.record(cron, true, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(
        &self,
        cron: &CronJob,
        status: &CronJobStatus,
    ) -> Result<(), ControllerError> {
        if cron.status.clone().unwrap_or_default() == *status {
            return Ok(());
        }
        let patch = json!({"status": {
            "active": status.active, "lastScheduleTime": status.last_schedule_time,
            "lastSuccessfulTime": status.last_successful_time
        }});
        let path = path_of::<CronJob>(namespace(&cron.metadata), name(&cron.metadata), "status");
        match merge::<CronJob>(self.cluster.client(), &path, &patch).await {
            Ok(written) => {
                self.cron_jobs.write_through(written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn record(&self, cron: &CronJob, is_warning: bool, reason: &str, message: String) {
        let recorder = self.cluster.recorder();
        recorder.record(COMPONENT, reference(cron), is_warning, reason, message);
    }
}

/// The Job of a time; its name tells the time, so that no two are made for the same one.
fn job_body(cron: &CronJob, at: Timestamp) -> Result<Value, ControllerError> {
    let template = cron.spec.clone().unwrap_or_default().job_template;
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    if let Ok(times) = Times::read(cron) {
        annotations.insert(SCHEDULED.to_owned(), times.text(at));
    }
    // Schedules finer than a minute need the second in the name.
    let minutes = at.as_second() / 60;
    let number = if at.as_second() % 60 == 0 {
        minutes
    } else {
        at.as_second()
    };
    Ok(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": format!("{}-{number}", name(&cron.metadata)), "namespace": cron.metadata.namespace,
            "labels": metadata.labels.unwrap_or_default(), "annotations": annotations,
            "ownerReferences": [controller_reference(cron)]
        },
        "spec": to_value(&template.spec.unwrap_or_default())?
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_after_its_time_and_says_it_in_the_schedules_zone() {
        let cron: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "report", "namespace": "shop", "uid": "u-1"},
            "spec": {"schedule": "0 8 * * *", "timeZone": "Asia/Shanghai", "jobTemplate": {
                "metadata": {"labels": {"app": "report"}, "annotations": {"a": "b"}}, "spec": {"backoffLimit": 2, "template": {}}}}
        }))
        .unwrap();
        let body = job_body(&cron, "2026-01-02T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(body["metadata"]["name"], "report-29455200");
        assert_eq!(
            body["metadata"]["annotations"],
            json!({"a": "b", SCHEDULED: "2026-01-02T08:00:00+08:00"})
        );
        assert_eq!(body["metadata"]["ownerReferences"][0]["kind"], "CronJob");
        assert_eq!(body["spec"]["backoffLimit"], 2);
    }
}

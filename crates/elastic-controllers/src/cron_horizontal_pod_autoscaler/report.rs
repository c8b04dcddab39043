//! Status writes and events. A status is only written over the version it was decided from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::{CronHorizontalPodAutoscalerStatus, EventText};
use elastic_core::events::{EventKind, event};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

const COMPONENT: &str = "CronHorizontalPodAutoscaler";
/// Events that can still be counted up instead of posted anew.
const EVENTS_MOST: usize = 4096;

/// How a status write went.
pub(super) enum Written {
    /// As the server has it now.
    Done(Arc<CronHorizontalPodAutoscaler>),
    /// Somebody else wrote in between; this is what there is now.
    Other(Arc<CronHorizontalPodAutoscaler>),
    /// The object is gone.
    Gone,
}

type Key = (String, &'static str, String);

/// Writes what users look at.
pub(super) struct Reporter {
    client: Client,
    /// By object, reason and message: name of the event and its count. Losing it costs a second event, no more.
    posted: Mutex<HashMap<Key, (String, i32)>>,
}

impl Reporter {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            posted: Mutex::default(),
        }
    }

    fn api(&self, object: &CronHorizontalPodAutoscaler) -> Api<CronHorizontalPodAutoscaler> {
        let namespace = object.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }

    /// Writes a status; the version it gets is added to `versions`.
    pub(super) async fn write(
        &self,
        object: &CronHorizontalPodAutoscaler,
        status: CronHorizontalPodAutoscalerStatus,
        versions: &mut Vec<String>,
    ) -> Result<Written, kube::Error> {
        let mut next = object.clone();
        next.status = Some(status);
        let api = self.api(object);
        let name = object.name_any();
        let params = PostParams::default();
        match api.replace_status(&name, &params, &next).await {
            Ok(written) => {
                let version = written.resource_version().unwrap_or_default();
                versions.push(version);
                Ok(Written::Done(Arc::new(written)))
            }
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(Written::Gone),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => {
                let found = api.get_opt(&name).await?;
                // Another object of the same name is none of this one's business.
                let same = found.filter(|found| found.uid() == object.uid());
                Ok(same.map_or(Written::Gone, |found| Written::Other(Arc::new(found))))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn post(
        &self,
        object: &CronHorizontalPodAutoscaler,
        events: Vec<EventText>,
        now: Timestamp,
    ) {
        for text in events {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            match text.kind {
                EventKind::Normal => {
                    tracing::info!(
                        namespace,
                        name,
                        reason = text.reason,
                        message = text.message
                    );
                }
                EventKind::Warning => {
                    tracing::warn!(
                        namespace,
                        name,
                        reason = text.reason,
                        message = text.message
                    );
                }
            }
            if let Err(error) = self.post_one(object, &text, now).await {
                // An event that cannot be posted must not stop the work it tells about.
                tracing::warn!(namespace, name, %error, "event could not be posted");
            }
        }
    }

    async fn post_one(
        &self,
        object: &CronHorizontalPodAutoscaler,
        text: &EventText,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let events: Api<Event> =
            Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let key = (
            object.uid().unwrap_or_default(),
            text.reason,
            text.message.clone(),
        );
        let before = self.lock().get(&key).cloned();
        if let Some((name, count)) = before {
            let patch = Patch::Merge(json!({"count": count + 1, "lastTimestamp": Time(now)}));
            match events.patch(&name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    self.remember(key, name, count + 1);
                    return Ok(());
                }
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let about = object.object_ref(&());
        let new = event(
            &about,
            COMPONENT,
            text.kind,
            text.reason,
            &text.message,
            now,
        );
        // The name is made from the time, and two events may have the same.
        let new = Event {
            metadata: kube::core::ObjectMeta {
                name: Some(format!(
                    "{}.{}",
                    object.name_any(),
                    uuid::Uuid::new_v4().simple()
                )),
                ..new.metadata
            },
            ..new
        };
        let made = events.create(&PostParams::default(), &new).await?;
        self.remember(key, made.name_any(), 1);
        Ok(())
    }

    fn remember(&self, key: Key, name: String, count: i32) {
        let mut posted = self.lock();
        if posted.len() >= EVENTS_MOST {
            posted.clear();
        }
        posted.insert(key, (name, count));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (String, i32)>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

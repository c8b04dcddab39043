//! What the passes of several controllers share: their error, and the conditions and events they leave behind.

use std::fmt::Debug;
use std::pin::pin;

use elastic_core::elastic_workload::{ConditionStatus, FieldError, set_condition};
use elastic_core::events::{EventKind, event};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::api::{Api, PostParams};
use kube::core::{NamespaceResourceScope, Selector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Why a pass could not finish; it is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The API refused or could not be reached.
    #[error("{verb} {name}")]
    Api {
        verb: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// An object that is in the way belongs to somebody else.
    #[error("{0} exists and does not belong to this object; delete or rename it")]
    NotOurs(String),
    /// A field cannot be followed.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl PassError {
    pub(crate) fn about(verb: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Api {
            verb,
            name,
            source: Box::new(source),
        }
    }

    /// What the user can do something about; the rest is tried again quietly.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotOurs(_) => Some(("NameTaken", self.to_string())),
            Self::Field(error) => Some(("Invalid", error.to_string())),
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if matches!(status.code, 403 | 404 | 422) => {
                    Some(("Refused", format!("{self}: {}", status.message)))
                }
                _ => None,
            },
        }
    }

    pub(crate) fn cause(&self) -> Option<String> {
        std::error::Error::source(self).map(ToString::to_string)
    }
}

/// All problems as one text.
pub(crate) fn join(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Replaces an object's status as it stands. Whether it was written; not when somebody else wrote in between.
pub(crate) async fn replace_status<K>(client: &Client, object: &K) -> Result<bool, PassError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let name = object.name_any();
    match api
        .replace_status(&name, &PostParams::default(), object)
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(PassError::about("write status of", &name)(error)),
    }
}

/// A selector as the text that `scale` shows and lists take.
pub(crate) fn selector_text(selector: &LabelSelector, field: &str) -> Result<String, PassError> {
    let parsed = Selector::try_from(selector.clone()).map_err(|error| FieldError {
        field: field.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(parsed.to_string())
}

/// Conditions of an object's status in the making, and the events that tell of them.
pub(crate) struct Teller {
    pub(crate) conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
    events: Vec<(EventKind, &'static str, String)>,
}

impl Teller {
    pub(crate) fn new(known: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            conditions: known.to_vec(),
            generation,
            now,
            events: Vec::new(),
        }
    }

    /// A condition that is as it should be; nothing else is said.
    pub(crate) fn holds(&mut self, type_: &str, reason: &str, message: &str) {
        set_condition(
            &mut self.conditions,
            type_,
            ConditionStatus::True,
            reason,
            message,
            self.generation,
            self.now,
        );
    }

    /// A condition that is not as it should be, with an event when that is new.
    pub(crate) fn fails(&mut self, type_: &str, reason: &'static str, message: &str) {
        let known = self.conditions.iter().any(|condition| {
            condition.type_ == type_ && condition.reason == reason && condition.message == message
        });
        set_condition(
            &mut self.conditions,
            type_,
            ConditionStatus::False,
            reason,
            message,
            self.generation,
            self.now,
        );
        if !known {
            self.event(EventKind::Warning, reason, message);
        }
    }

    pub(crate) fn event(&mut self, kind: EventKind, reason: &'static str, message: &str) {
        self.events.push((kind, reason, message.to_owned()));
    }

    /// Posts the events; one that cannot be posted does not stop the work it tells about.
    pub(crate) async fn post(self, client: &Client, about: &ObjectReference, component: &str) {
        for (kind, reason, message) in self.events {
            tracing::info!(
                namespace = about.namespace,
                name = about.name,
                kind = about.kind,
                reason,
                message,
                "policy"
            );
            post_event(client, about, component, kind, reason, &message).await;
        }
    }
}

pub(crate) async fn post_event(
    client: &Client,
    about: &ObjectReference,
    component: &str,
    kind: EventKind,
    reason: &str,
    message: &str,
) {
    let object = event(about, component, kind, reason, message, Timestamp::now());
    let namespace = about.namespace.as_deref().unwrap_or("default");
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    if let Err(error) = events.create(&PostParams::default(), &object).await {
        tracing::debug!(name = about.name, reason, %error, "event could not be posted");
    }
}

/// The new status as a merge patch: members that are no longer there, however deep, are taken away by `null`.
pub(crate) fn status_patch(old: &impl Serialize, next: &impl Serialize) -> Value {
    let (old, mut next) = (json!(old), json!(next));
    take_away(&old, &mut next);
    json!({"status": next})
}

fn take_away(old: &Value, next: &mut Value) {
    let (Some(old), Some(next)) = (old.as_object(), next.as_object_mut()) else {
        return;
    };
    for (key, before) in old {
        take_away(before, next.entry(key.clone()).or_insert(Value::Null));
    }
}

/// Waits for the first object of a kind: to watch all pods costs something, so that begins with it.
pub(crate) async fn wait_for_first<K>(objects: &Api<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let stream = watcher(objects.clone(), watcher::Config::default()).default_backoff();
    let mut stream = pin!(stream.applied_objects());
    while let Some(seen) = stream.next().await {
        match seen {
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(kind = %K::kind(&()), %error, "watch broke off, it is taken up again")
            }
        }
    }
}

/// An object's generation.
pub(crate) fn generation<K: Resource>(object: &K) -> i64 {
    object.meta().generation.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_gone_are_taken_away_at_any_depth() {
        let old = json!({"gone": 1, "source": {"shortage": {"capacity": 1, "recovered": "then"}}, "units": [{"a": 1}]});
        let next = json!({"source": {"shortage": {"capacity": 2}}, "units": [{}]});
        assert_eq!(
            status_patch(&old, &next),
            json!({"status": {"gone": null, "source": {"shortage": {"capacity": 2, "recovered": null}}, "units": [{}]}})
        );
    }
}

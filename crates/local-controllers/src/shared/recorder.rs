//! Events as upstream's recorder writes them: similar ones are combined, repeated ones counted, and a noisy object is
//! cut off. Recording never waits; when the queue is full the event is dropped, and writing is paced so that it does
//! not compete with the work that it tells of.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::requests::{ControllerError, create, merge_blind, path_of};

const QUEUE_EVENTS_MAX: usize = 8192;
const MEMORY_ENTRIES_MAX: usize = 4096;
const SIMILAR_EVENTS_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const OBJECT_BURST: f64 = 25.0;
const OBJECT_REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// Time between two writes once a first handful has gone out.
const PACE: Duration = Duration::from_millis(5);
const PACE_BURST: u32 = 20;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Which controller tells it.
    pub component: &'static str,
    /// About what.
    pub object: ObjectReference,
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
    /// What was being done, for events in the newer form; they keep their time to the microsecond.
    pub action: Option<&'static str>,
    /// When.
    pub at: Timestamp,
}

/// Where controllers hand their events in. Cheap to copy.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Happening>,
}

/// The task that writes them.
pub struct EventWriter {
    client: Client,
    queue: mpsc::Receiver<Happening>,
    correlator: Correlator,
}

/// A reference to an object for its events.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

impl EventRecorder {
    /// The recorder and its writer.
    pub fn new(client: Client) -> (Self, EventWriter) {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS_MAX);
        (
            EventRecorder { queue: sender },
            EventWriter {
                client,
                queue: receiver,
                correlator: Correlator::default(),
            },
        )
    }

    /// Records something about an object.
    pub fn record(
        &self,
        component: &'static str,
        object: ObjectReference,
        is_warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record_action(component, object, is_warning, reason, message, None);
    }

    /// Records something with the action that led to it.
    pub fn record_action(
        &self,
        component: &'static str,
        object: ObjectReference,
        is_warning: bool,
        reason: &str,
        message: impl Into<String>,
        action: Option<&'static str>,
    ) {
        let (reason, message, at) = (reason.to_owned(), message.into(), Timestamp::now());
        let happening = Happening {
            component,
            object,
            is_warning,
            reason,
            message,
            action,
            at,
        };
        if self.queue.try_send(happening).is_err() {
            tracing::debug!(component, "event dropped, the queue is full");
        }
    }
}

impl EventWriter {
    /// Writes until the shutdown; what is still queued then is dropped.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut in_burst = 0;
        loop {
            let happening = tokio::select! {
                () = shutdown.cancelled() => return,
                happening = self.queue.recv() => happening,
            };
            let Some(happening) = happening else { return };
            if let Some(write) = self.correlator.correlate(&happening, Instant::now()) {
                if let Err(error) = self.write(&happening, write).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "event not written"
                    );
                }
                in_burst += 1;
            }
            if self.queue.is_empty() {
                in_burst = 0;
            } else if in_burst > PACE_BURST {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    async fn write(&mut self, happening: &Happening, write: Write) -> Result<(), ControllerError> {
        // Events about cluster-scoped objects live in the default namespace.
        let namespace = happening.object.namespace.as_deref().unwrap_or("default");
        if let Some(known) = &write.known_name {
            let patch = json!({
                "count": write.count,
                "lastTimestamp": seconds(happening.at),
                "message": write.message,
            });
            let path = path_of::<k8s_openapi::api::core::v1::Event>(namespace, known, "");
            match merge_blind(&self.client, &path, &patch).await {
                Err(error) if error.is_not_found() => {}
                result => return result,
            }
        }
        let name = format!(
            "{}.{:x}",
            happening.object.name.as_deref().unwrap_or_default(),
            happening.at.as_nanosecond()
        );
        let body = event_body(happening, &write, namespace, &name);
        let path = path_of::<k8s_openapi::api::core::v1::Event>(namespace, "", "");
        create::<IgnoredAny>(&self.client, &path, &body).await?;
        self.correlator.written(&write.key, name);
        Ok(())
    }
}

fn seconds(time: Timestamp) -> String {
    super::objects::whole_seconds(time).0.to_string()
}

fn event_body(happening: &Happening, write: &Write, namespace: &str, name: &str) -> Value {
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": happening.object,
        "reason": happening.reason,
        "message": write.message,
        "source": {"component": happening.component},
        "firstTimestamp": seconds(happening.at),
        "lastTimestamp": seconds(happening.at),
        "count": write.count,
        "type": if happening.is_warning { "Warning" } else { "Normal" },
        "reportingComponent": happening.component,
        "reportingInstance": "",
    });
    if let Some(action) = happening.action {
        body["action"] = action.into();
        body["reportingInstance"] = happening.component.into();
        body["eventTime"] = format!("{:.6}", happening.at).into();
    }
    body
}

#[derive(Debug, PartialEq, Eq)]
struct Write {
    key: String,
    known_name: Option<String>,
    count: u32,
    message: String,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    last: Instant,
}

/// Decides what becomes of each event.
#[derive(Debug, Default)]
struct Correlator {
    similar: HashMap<String, Similar>,
    counted: HashMap<String, (u32, Option<String>)>,
    budgets: HashMap<String, (f64, Instant)>,
}

impl Correlator {
    fn correlate(&mut self, happening: &Happening, now: Instant) -> Option<Write> {
        self.stay_bounded();
        let object = &happening.object;
        let subject = format!(
            "{}|{}|{}|{}|{}",
            happening.component,
            object.kind.as_deref().unwrap_or_default(),
            object.namespace.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
            object.uid.as_deref().unwrap_or_default(),
        );
        let group = format!("{subject}|{}|{}", happening.is_warning, happening.reason);
        let (key, message) = if self.is_one_too_many(&group, &happening.message, now) {
            (
                group,
                format!("(combined from similar events): {}", happening.message),
            )
        } else {
            (
                format!("{group}|{}", happening.message),
                happening.message.clone(),
            )
        };
        let counted = self.counted.entry(key.clone()).or_default();
        counted.0 += 1;
        let (count, known_name) = counted.clone();
        let (budget, refilled) = self.budgets.entry(subject).or_insert((OBJECT_BURST, now));
        *budget = (*budget + refilled.elapsed().as_secs_f64() * OBJECT_REFILL_PER_SECOND)
            .min(OBJECT_BURST);
        *refilled = now;
        if *budget < 1.0 {
            return None;
        }
        *budget -= 1.0;
        Some(Write {
            key,
            known_name,
            count,
            message,
        })
    }

    fn is_one_too_many(&mut self, group: &str, message: &str, now: Instant) -> bool {
        let similar = self
            .similar
            .entry(group.to_owned())
            .or_insert_with(|| Similar {
                messages: HashSet::new(),
                last: now,
            });
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_EVENTS_MAX {
            similar.messages.insert(message.to_owned());
            return similar.messages.len() >= SIMILAR_EVENTS_MAX;
        }
        true
    }

    fn written(&mut self, key: &str, name: String) {
        if let Some(counted) = self.counted.get_mut(key) {
            counted.1 = Some(name);
        }
    }

    /// Forgetting only makes an event appear again instead of being counted.
    fn stay_bounded(&mut self) {
        if self.similar.len() > MEMORY_ENTRIES_MAX {
            self.similar.clear();
        }
        if self.counted.len() > MEMORY_ENTRIES_MAX {
            self.counted.clear();
        }
        if self.budgets.len() > MEMORY_ENTRIES_MAX {
            self.budgets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(message: &str) -> Happening {
        Happening {
            component: "replicaset-controller",
            object: ObjectReference {
                name: Some("set".to_owned()),
                ..ObjectReference::default()
            },
            is_warning: false,
            reason: "SuccessfulCreate".to_owned(),
            message: message.to_owned(),
            action: None,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_counted_on_the_first_one() {
        let mut correlator = Correlator::default();
        let first = correlator
            .correlate(&happening("a"), Instant::now())
            .unwrap();
        assert_eq!((first.count, first.known_name.as_deref()), (1, None));
        correlator.written(&first.key, "set.1".to_owned());
        let second = correlator
            .correlate(&happening("a"), Instant::now())
            .unwrap();
        assert_eq!(
            (second.count, second.known_name.as_deref()),
            (2, Some("set.1"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_similar_events_are_combined_and_then_cut_off() {
        let mut correlator = Correlator::default();
        let writes: Vec<_> = (0..40)
            .map(|index| correlator.correlate(&happening(&format!("pod {index}")), Instant::now()))
            .collect();
        assert_eq!(writes[8].as_ref().unwrap().message, "pod 8");
        assert_eq!(
            writes[9].as_ref().unwrap().message,
            "(combined from similar events): pod 9"
        );
        assert_eq!(writes[24].as_ref().unwrap().count, 16);
        assert!(writes[25..].iter().all(Option::is_none));
    }

    #[test]
    fn an_event_with_an_action_keeps_its_microseconds() {
        let mut scheduled = happening("x");
        scheduled.action = Some("Binding");
        scheduled.at = "2026-11-21T11:00:00.123456Z".parse().unwrap();
        let write = Write {
            key: String::new(),
            known_name: None,
            count: 1,
            message: "x".to_owned(),
        };
        let body = event_body(&scheduled, &write, "n", "x.1");
        assert_eq!(body["eventTime"], "2026-11-21T11:00:00.123456Z");
        assert_eq!(body["firstTimestamp"], "2026-11-21T11:00:00Z");
    }
}

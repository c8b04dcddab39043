//! Events on the object that the user looks at, as plain objects; posting them is the adapters' work.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Longest message the API takes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Whether something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As expected.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An event about `about`. Its name is made unique from the time, as upstream does.
pub fn event(
    about: &ObjectReference,
    component: &str,
    kind: EventKind,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Event {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let name = about.name.as_deref().unwrap_or("unknown");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(
                about
                    .namespace
                    .clone()
                    .unwrap_or_else(|| "default".to_owned()),
            ),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(
            if kind == EventKind::Normal {
                "Normal"
            } else {
                "Warning"
            }
            .to_owned(),
        ),
        reason: Some(reason.to_owned()),
        message: Some(message[..end].to_owned()),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let about = ObjectReference {
            name: Some("web".into()),
            namespace: Some("shop".into()),
            ..Default::default()
        };
        let message = "é".repeat(800);
        let event = event(
            &about,
            "c",
            EventKind::Warning,
            "R",
            &message,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(event.message.unwrap().len(), 1024);
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}

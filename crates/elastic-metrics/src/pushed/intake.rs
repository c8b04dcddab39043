//! Takes remote-write messages over the metrics server: where they may be sent, how much at a time, and what is told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::board::{Board, MAX_SERIES, NAMESPACE_LABEL, Taken};
use super::message::{self, Pushed};
use super::snappy;
use crate::status::failure;

/// The API group under which metrics are pushed.
pub(crate) const PUSHED: &str = "pushed.autoscaling.alibabacloud.com";
pub(crate) const PUSHED_VERSION: &str = "v1";
/// What has to be allowed: `create` on it, in a namespace or in all.
pub(crate) const PUSHED_RESOURCE: &str = "pushedmetrics";
/// Longest body, as it is sent.
const MAX_PACKED_BYTES: usize = 4 * 1024 * 1024;
/// And when it is unpacked.
const MAX_UNPACKED_BYTES: usize = 32 * 1024 * 1024;
/// A sender that takes longer sends again.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages read at the same time; more wait.
static PLACES: Semaphore = Semaphore::const_new(8);

type Answered = (StatusCode, Value);

/// The namespace a path pushes to, if it is such a path; none means all of them.
pub(crate) fn place_of(path: &str) -> Option<Option<&str>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis", PUSHED, PUSHED_VERSION, PUSHED_RESOURCE] => Some(None),
        [
            "apis",
            PUSHED,
            PUSHED_VERSION,
            "namespaces",
            namespace,
            PUSHED_RESOURCE,
        ] if !namespace.is_empty() => Some(Some(namespace)),
        _ => None,
    }
}

fn refused(code: StatusCode, message: &str) -> Answered {
    let reason = match code {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "BadRequest",
    };
    failure(code, reason, message)
}

/// Reads a message into the board. Says what is answered and what has changed, and has the body for others.
pub(crate) async fn accept(
    board: &Board,
    (namespace, replica_labels): (Option<&str>, &[String]),
    headers: &HeaderMap,
    body: Incoming,
) -> (Answered, Taken, Option<Bytes>) {
    match read(namespace, headers, body).await {
        Ok((mut pushed, packed)) => {
            for one in &mut pushed {
                one.replica = taken_out(&mut one.labels, replica_labels);
            }
            let taken = board.put(pushed, Timestamp::now().as_millisecond());
            (told(&taken), taken, Some(packed))
        }
        Err(answered) => (answered, Taken::default(), None),
    }
}

fn told(taken: &Taken) -> Answered {
    match taken.left_out {
        0 => (StatusCode::NO_CONTENT, Value::Null),
        left_out => {
            let message = format!(
                "{left_out} new series are left out, {MAX_SERIES} are kept at most; push only what autoscalers use (write_relabel_configs)"
            );
            refused(StatusCode::BAD_REQUEST, &message)
        }
    }
}

async fn read(
    namespace: Option<&str>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Vec<Pushed>, Bytes), Answered> {
    is_remote_write(headers)?;
    let late = |_| {
        refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the body did not come in time",
        )
    };
    let packed = tokio::time::timeout(BODY_TIMEOUT, async {
        // The semaphore is never closed.
        let place = PLACES.acquire().await.ok();
        (Limited::new(body, MAX_PACKED_BYTES).collect().await, place)
    });
    let (packed, _place) = packed.await.map_err(late)?;
    let packed = packed.map_err(|_| {
        let message = format!(
            "the body broke off or is longer than {MAX_PACKED_BYTES} bytes; lower max_samples_per_send of the sender"
        );
        refused(StatusCode::PAYLOAD_TOO_LARGE, &message)
    })?;
    let bad = |message: String| refused(StatusCode::BAD_REQUEST, &message);
    let packed = packed.to_bytes();
    let message = snappy::unpack(&packed, MAX_UNPACKED_BYTES);
    let message = message.map_err(|error| bad(error.to_string()))?;
    let mut pushed = message::read(&message).map_err(|error| bad(error.to_string()))?;
    if let Some(namespace) = namespace {
        for one in &mut pushed {
            confine(one, namespace).map_err(bad)?;
        }
    }
    Ok((pushed, packed))
}

/// Takes labels out that say who sends and not what is measured, and gives what they said.
fn taken_out(labels: &mut BTreeMap<String, String>, names: &[String]) -> String {
    let said = names.iter().filter_map(|name| labels.remove(name));
    said.collect::<Vec<_>>().join("/")
}

/// What is pushed to a namespace is of that namespace.
fn confine(one: &mut Pushed, namespace: &str) -> Result<(), String> {
    let own = one.labels.entry(NAMESPACE_LABEL.to_owned());
    let own = own.or_insert_with(|| namespace.to_owned());
    if own == namespace {
        return Ok(());
    }
    let metric = &one.metric;
    Err(format!(
        "a series of {metric} has namespace {own:?} and is pushed to namespace {namespace:?}; push it there, or to all namespaces"
    ))
}

fn is_remote_write(headers: &HeaderMap) -> Result<(), Answered> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let is_second_version =
        parameters.contains("proto=") && !parameters.contains("prometheus.WriteRequest");
    if kind.trim() != "application/x-protobuf"
        || is_second_version
        || text(header::CONTENT_ENCODING) != Some("snappy")
    {
        let message = "remote write 1.0 is expected: Content-Type application/x-protobuf, Content-Encoding snappy";
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn paths_of_pushes_are_told_from_others() {
        let root = "/apis/pushed.autoscaling.alibabacloud.com/v1";
        assert_eq!(place_of(&format!("{root}/pushedmetrics")), Some(None));
        assert_eq!(
            place_of(&format!("{root}/namespaces/shop/pushedmetrics")),
            Some(Some("shop"))
        );
        for other in [
            "",
            "/pods",
            "/namespaces//pushedmetrics",
            "/pushedmetrics/x",
        ] {
            assert_eq!(place_of(&format!("{root}{other}")), None, "{other}");
        }
    }

    #[test]
    fn series_are_confined_to_the_namespace_they_are_pushed_to() {
        let mut one = Pushed {
            metric: "queue".to_owned(),
            labels: [].into(),
            replica: String::new(),
            at_ms: 0,
            value: None,
        };
        confine(&mut one, "shop").unwrap();
        assert_eq!(one.labels["namespace"], "shop");
        let why = confine(&mut one, "other").unwrap_err();
        assert!(why.contains("queue") && why.contains("\"shop\""), "{why}");
    }

    #[test]
    fn labels_that_say_who_sends_are_taken_out() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let names = ["prometheus_replica".to_owned(), "__replica__".to_owned()];
        let mut labels = BTreeMap::from([label("pod", "a"), label("prometheus_replica", "p-0")]);
        assert_eq!(taken_out(&mut labels, &names), "p-0");
        assert_eq!(labels, BTreeMap::from([label("pod", "a")]));
        assert_eq!(taken_out(&mut labels, &names), "");
        labels.extend([label("__replica__", "b"), label("prometheus_replica", "a")]);
        assert_eq!(taken_out(&mut labels, &names), "a/b");
        assert_eq!(taken_out(&mut labels, &[]), "");
    }

    #[test]
    fn only_the_first_version_of_the_protocol_is_taken() {
        let headers = |kind: &'static str, encoding: &'static str| {
            HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                (header::CONTENT_ENCODING, HeaderValue::from_static(encoding)),
            ])
        };
        let protobuf = "application/x-protobuf";
        assert!(is_remote_write(&headers(protobuf, "snappy")).is_ok());
        let named = "application/x-protobuf;proto=prometheus.WriteRequest";
        assert!(is_remote_write(&headers(named, "snappy")).is_ok());
        let second = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        for (kind, encoding) in [
            (second, "snappy"),
            (protobuf, "gzip"),
            ("application/json", "snappy"),
        ] {
            let (code, _) = is_remote_write(&headers(kind, encoding)).unwrap_err();
            assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        assert!(is_remote_write(&HeaderMap::new()).is_err());
    }
}

//! Which spans there are: a pod from made to ready, its stages, and calls to the cloud about it.

use elastic_core::names::{INSTANCE_ID, INSTANCE_ZONE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use super::{Kind, Span, SpanId, TraceId, Value, span_id, trace_of};

const POD_UID: &str = "k8s.pod.uid";
const ZONE: &str = "cloud.availability_zone";

/// From one moment to the next.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Stage {
    pub(in super::super) name: &'static str,
    pub(in super::super) from: Timestamp,
    pub(in super::super) to: Timestamp,
}

/// One call to the cloud and its answer.
#[derive(Debug)]
pub(in super::super) struct Call<'a> {
    pub(in super::super) action: &'a str,
    /// `any` when the call names none.
    pub(in super::super) zone: &'a str,
    /// `OK`, the cloud's error code, or `NoAnswer`.
    pub(in super::super) code: &'a str,
    pub(in super::super) status: Option<u16>,
    pub(in super::super) host: &'a str,
    pub(in super::super) from: Timestamp,
    pub(in super::super) to: Timestamp,
}

fn root(trace: TraceId) -> SpanId {
    span_id(trace, "pod")
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// The stages as spans, below the pod's own.
pub(in super::super) fn stages(
    pod: &PartialObjectMeta<Pod>,
    stages: impl IntoIterator<Item = Stage>,
) -> Vec<Span> {
    let Some(trace) = trace_of(&pod.uid().unwrap_or_default()) else {
        return Vec::new();
    };
    let attributes = attributes(pod);
    let span = |stage: Stage| Span {
        trace,
        id: span_id(trace, stage.name),
        parent: Some(root(trace)),
        name: stage.name.to_owned(),
        kind: Kind::Internal,
        from: stage.from,
        to: stage.to,
        error: None,
        attributes: attributes.clone(),
    };
    stages.into_iter().map(span).collect()
}

/// The pod's own span, which ends when it is ready or goes; `error` says why it is not ready.
pub(in super::super) fn whole(
    pod: &PartialObjectMeta<Pod>,
    from: Timestamp,
    to: Timestamp,
    error: Option<String>,
) -> Option<Span> {
    let trace = trace_of(&pod.uid()?)?;
    Some(Span {
        trace,
        id: root(trace),
        parent: None,
        name: "pod".to_owned(),
        kind: Kind::Internal,
        from,
        to,
        error,
        attributes: attributes(pod),
    })
}

/// A call about the pod with this UID.
pub(in super::super) fn call(uid: &str, call: &Call<'_>) -> Option<Span> {
    let trace = trace_of(uid)?;
    let mut attributes = vec![
        (POD_UID, text(uid)),
        ("springtide.cloud.action", text(call.action)),
        ("springtide.cloud.code", text(call.code)),
        ("server.address", text(call.host)),
    ];
    attributes.extend((call.zone != "any").then(|| (ZONE, text(call.zone))));
    let status = call.status.map(i64::from);
    attributes.extend(status.map(|status| ("http.response.status_code", Value::Number(status))));
    Some(Span {
        trace,
        id: span_id(trace, (call.action, call.from.as_nanosecond())),
        parent: Some(root(trace)),
        name: call.action.to_owned(),
        kind: Kind::Client,
        from: call.from,
        to: call.to,
        error: (call.code != "OK").then(|| call.code.to_owned()),
        attributes,
    })
}

fn attributes(pod: &PartialObjectMeta<Pod>) -> Vec<(&'static str, Value)> {
    let written = |key: &str| pod.annotations().get(key).cloned();
    let known = [
        ("k8s.pod.name", Some(pod.name_any())),
        ("k8s.namespace.name", pod.namespace()),
        (POD_UID, pod.uid()),
        ("springtide.container_group.id", written(INSTANCE_ID)),
        (ZONE, written(INSTANCE_ZONE)),
    ];
    let known = known.into_iter();
    known
        .filter_map(|(key, value)| Some((key, text(value?))))
        .collect()
}

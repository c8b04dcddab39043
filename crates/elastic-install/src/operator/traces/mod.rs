//! Traces by OpenTelemetry, when the environment names a collector: one trace a pod, with its stages and the cloud calls about it.
//!
//! A trace's id is the pod's UID, and ids of spans follow from what they are about, so a span that is told twice is one span.
//! Nothing waits for the collector: spans that find the queue full are dropped and counted. Log lines are never spans.

mod encode;
mod export;
pub(super) mod pods;
mod settings;

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::settings::Texts;

/// Most spans that wait to be sent; what comes beyond is dropped.
const QUEUE_SPANS_MAX: usize = 4096;

/// Sixteen bytes, as the protocol has them.
pub(super) type TraceId = u128;
pub(super) type SpanId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Internal,
    /// A call to another service.
    Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// What went wrong.
    pub(super) error: Option<String>,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

/// The trace of the pod with this UID; none when it is no UUID.
pub(super) fn trace_of(uid: &str) -> Option<TraceId> {
    let digits = uid.replace('-', "");
    if digits.len() != 32 {
        return None;
    }
    let id = u128::from_str_radix(&digits, 16).ok();
    id.filter(|id| *id != 0)
}

/// The same for the same thing in the same trace.
pub(super) fn span_id(trace: TraceId, what: impl Hash) -> SpanId {
    let mut hasher = DefaultHasher::new();
    (trace, what).hash(&mut hasher);
    // Zero means "no span".
    hasher.finish().max(1)
}

/// How many spans went where.
#[derive(Debug, Default)]
struct Sent {
    exported: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct On {
    queue: mpsc::Sender<Span>,
    sent: Arc<Sent>,
}

/// Takes spans, or nothing when no collector is named.
#[derive(Debug, Default)]
pub(super) struct Traces {
    on: Option<On>,
}

impl Traces {
    pub(super) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    pub(super) fn give(&self, span: Span) {
        let Some(on) = &self.on else { return };
        if on.queue.try_send(span).is_err() {
            on.sent.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines of `/metrics`; none when nothing is exported.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let Some(on) = &self.on else { return text };
        for (name, help, count) in [
            (
                "springtide_trace_spans_exported_total",
                "Spans that the collector took.",
                &on.sent.exported,
            ),
            (
                "springtide_trace_spans_dropped_total",
                "Spans that the collector refused or that found the queue full.",
                &on.sent.dropped,
            ),
        ] {
            let count = count.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}"
            );
        }
        text
    }
}

/// Where spans go by this environment, and what sends them until `stop` and then what still waits. Settings that cannot be
/// used are told once, and nothing is exported.
pub(super) fn open(
    environment: &Texts,
    instance: &str,
    stop: CancellationToken,
) -> (Traces, Option<impl Future<Output = ()> + use<>>) {
    let opened = settings::read(environment, instance)
        .and_then(|settings| settings.map(export::Exporter::new).transpose());
    let exporter = match opened {
        Ok(Some(exporter)) => exporter,
        Ok(None) => return (Traces::default(), None),
        Err(reason) => {
            tracing::error!(reason, "traces are not exported");
            return (Traces::default(), None);
        }
    };
    let (queue, spans) = mpsc::channel(QUEUE_SPANS_MAX);
    let sent = Arc::new(Sent::default());
    let on = On {
        queue,
        sent: sent.clone(),
    };
    (
        Traces { on: Some(on) },
        Some(exporter.run(spans, sent, stop)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8a2d2b6e-0001-4000-8000-000000000001";

    #[test]
    fn the_uid_of_a_pod_is_its_trace() {
        assert_eq!(
            trace_of(UID),
            Some(0x8a2d_2b6e_0001_4000_8000_0000_0000_0001)
        );
        for other in ["", "u", "8a2d2b6e", &UID.replace('8', "x")] {
            assert_eq!(trace_of(other), None, "{other}");
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted_and_without_a_collector_nothing_is_kept() {
        let span = Span {
            trace: 1,
            id: 1,
            parent: None,
            name: String::new(),
            kind: Kind::Internal,
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            error: None,
            attributes: Vec::new(),
        };
        let off = Traces::default();
        off.give(span.clone());
        assert_eq!((off.is_on(), off.text()), (false, String::new()));
        let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (on, exporting) = open(&environment.into(), "i", CancellationToken::new());
        assert!(exporting.is_some());
        for _ in 0..QUEUE_SPANS_MAX + 3 {
            on.give(span.clone());
        }
        let text = on.text();
        assert!(
            text.contains("springtide_trace_spans_dropped_total 3\n"),
            "{text}"
        );
    }
}

//! Sends what waits, in batches, by HTTP. A collector that is away is told about once and tried a few times a batch; it
//! costs nothing but the spans.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cloud_api::client::{HyperTransport, Transport};
use http::{Request, header};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use super::{Sent, Span, encode};

/// Most spans of one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans wait for company.
const GATHER: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
/// Wait before the second try; doubled for the next.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// After `stop`, for all that waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Failure {
    reason: String,
    may_pass: bool,
}

pub(super) struct Exporter {
    settings: Settings,
    transport: HyperTransport,
}

impl Exporter {
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        let with_tls = settings.endpoint.scheme_str() == Some("https");
        let transport = HyperTransport::new(with_tls, 1)
            .map_err(|error| format!("the collector's certificate cannot be checked: {error}"))?;
        Ok(Self {
            settings,
            transport,
        })
    }

    /// Until `stop`; then it sends what waits, as far as the collector is quick.
    pub(super) async fn run(
        self,
        mut spans: mpsc::Receiver<Span>,
        sent: Arc<Sent>,
        stop: CancellationToken,
    ) {
        // The rest of a URL may hold a token.
        let collector = self.settings.endpoint.host().unwrap_or_default();
        tracing::info!(collector, "traces are exported");
        let mut works = true;
        let mut interrupted = Vec::new();
        while let Some(batch) = next(&mut spans, &stop).await {
            let outcome = tokio::select! {
                outcome = self.send_patiently(&batch) => outcome,
                () = stop.cancelled() => {
                    interrupted = batch;
                    break;
                }
            };
            sent.count(batch.len(), outcome.is_ok());
            match &outcome {
                Err(Failure { reason, .. }) if works => tracing::warn!(
                    collector,
                    reason,
                    "traces cannot be exported and are dropped until they can"
                ),
                Ok(()) if !works => tracing::info!(collector, "traces are exported again"),
                _ => {}
            }
            works = outcome.is_ok();
        }
        self.flush(interrupted, spans, &sent).await;
    }

    /// One try for all that is left.
    async fn flush(&self, mut batch: Vec<Span>, mut spans: mpsc::Receiver<Span>, sent: &Sent) {
        let until = tokio::time::Instant::now() + FLUSH_TIMEOUT;
        spans.close();
        loop {
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let outcome = tokio::time::timeout_at(until, self.send(&batch)).await;
            sent.count(batch.len(), matches!(outcome, Ok(Ok(()))));
            batch.clear();
        }
    }

    async fn send_patiently(&self, batch: &[Span]) -> Result<(), Failure> {
        let mut wait = RETRY_FIRST;
        for _ in 1..TRIES {
            match self.send(batch).await {
                Err(failure) if failure.may_pass => tokio::time::sleep(wait).await,
                outcome => return outcome,
            }
            wait *= 2;
        }
        self.send(batch).await
    }

    async fn send(&self, batch: &[Span]) -> Result<(), Failure> {
        let body = encode::request(&self.settings.resource, batch).to_string();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        let headers = request.headers_mut();
        headers.extend(self.settings.headers.iter().cloned());
        let json = header::HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.transport.send(request)).await;
        let no_answer = |reason: String| Failure {
            reason,
            may_pass: true,
        };
        let answer = answer.map_err(|_| no_answer("no answer in time".to_owned()))?;
        let status = answer
            .map_err(|error| no_answer(error.to_string()))?
            .status();
        if status.is_success() {
            return Ok(());
        }
        Err(Failure {
            reason: format!("answered {status}"),
            may_pass: matches!(status.as_u16(), 429 | 502 | 503 | 504),
        })
    }
}

impl Sent {
    fn count(&self, spans: usize, taken: bool) {
        let count = if taken { &self.exported } else { &self.dropped };
        count.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

/// Spans that came within a second of the first, or none at the end.
async fn next(spans: &mut mpsc::Receiver<Span>, stop: &CancellationToken) -> Option<Vec<Span>> {
    let first = tokio::select! {
        first = spans.recv() => first?,
        () = stop.cancelled() => return None,
    };
    let mut batch = vec![first];
    let gather = async {
        while batch.len() < BATCH_SPANS_MAX
            && let Some(span) = spans.recv().await
        {
            batch.push(span);
        }
    };
    tokio::select! {
        () = gather => {}
        () = tokio::time::sleep(GATHER) => {}
        () = stop.cancelled() => {}
    }
    Some(batch)
}

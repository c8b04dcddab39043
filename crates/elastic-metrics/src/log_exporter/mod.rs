//! The log-service exporter: asks the log service for numbers at an interval and serves them as Prometheus metrics.
//!
//! What to ask and what an answer means are plain functions ([`config`], [`series`], [`board`]); this file acts. A number
//! that is not renewed goes away when it is stale: no number is better than an old one that passes for new. The
//! exporter keeps no history, which is Prometheus' part.

pub mod board;
pub mod config;
pub mod series;
mod serve;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloud_api::log::model::GetLogsRequest;
use cloud_api::log::{LogClient, LogError};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use board::{Board, Failure};
use config::{ExporterConfig, Query, QueryKind};
use series::Series;

/// A clock.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

struct Shared {
    board: Mutex<Board>,
    now: Now,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks and serves until `shutdown`. The configuration has been checked.
pub async fn run_log_exporter(
    client: LogClient,
    config: ExporterConfig,
    listener: TcpListener,
    now: Now,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared {
        board: Mutex::new(Board::new(&config.queries)),
        now,
    });
    let mut tasks = JoinSet::new();
    for (number, query) in config.queries.into_iter().enumerate() {
        let asking = ask_again_and_again(client.clone(), query, number, shared.clone());
        let ended = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = asking => {}
                () = ended.cancelled() => {}
            }
        });
    }
    serve::serve(shared, listener, shutdown).await;
    while tasks.join_next().await.is_some() {}
}

async fn ask_again_and_again(client: LogClient, query: Query, number: usize, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(query.interval_ms));
    // A slow answer moves the next question, it does not make a burst of them.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked_at = (shared.now)();
        let outcome = ask(&client, &query, asked_at).await;
        let answered_at = (shared.now)();
        match &outcome {
            Ok(series) => {
                tracing::debug!(query = %query.name, series = series.len(), "numbers pulled")
            }
            Err(failure) => {
                tracing::warn!(query = %query.name, reason = %failure.reason, error = %failure.message, "no numbers pulled")
            }
        }
        shared
            .board()
            .record(number, asked_at, answered_at, outcome);
    }
}

/// One question and what its answer means.
async fn ask(client: &LogClient, query: &Query, now: Timestamp) -> Result<Vec<Series>, Failure> {
    let (from, to) = query.range(now.as_second());
    let refused = |error: LogError| Failure::new(error.reason(), &chain(&error));
    match query.kind {
        QueryKind::Logs => {
            let request = GetLogsRequest::new(&query.query, from, to);
            let answer = client
                .get_logs(&query.project, &query.logstore, &request)
                .await;
            series::from_rows(query, &answer.map_err(refused)?)
        }
        QueryKind::Histograms => {
            let asked =
                client.get_histograms(&query.project, &query.logstore, &query.query, from, to);
            series::from_histograms(query, &asked.await.map_err(refused)?)
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

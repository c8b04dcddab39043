//! Where values come from: ElasticMetrics first, then Prometheus by the adapter's rules. Keeps the list of metrics fresh.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::kinds::discover;
use super::objects::Objects;
use crate::adapter::{AdapterConfig, Catalog, Kinds, Series};
use crate::elastic_metric::Board;
use crate::prometheus::Prometheus;

/// Kinds are listed this often; new definitions are rare.
const KINDS_EVERY: Duration = Duration::from_secs(30);
/// While none are known, sooner.
const KINDS_AGAIN: Duration = Duration::from_secs(1);
/// Between two lists of Prometheus' series, where nobody says otherwise.
pub(crate) const RELIST: Duration = Duration::from_secs(4);
/// Listing series may take this share of Prometheus' time: one part in so many.
const SHARE: u32 = 20;
/// Even a slow Prometheus is listed this often.
const SLOWEST: Duration = Duration::from_secs(300);

/// The rules with what they find now.
struct Adapter {
    config: AdapterConfig,
    relist: Duration,
    max_age: Duration,
    catalog: RwLock<Arc<Catalog>>,
}

/// See the module.
pub(crate) struct Source {
    client: Client,
    kinds: RwLock<Arc<Kinds>>,
    prometheus: Option<Arc<Prometheus>>,
    adapter: Option<Adapter>,
    pub(crate) board: Board,
    pub(crate) objects: Objects,
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Source {
    pub(crate) fn new(
        client: Client,
        prometheus: Option<Prometheus>,
        rules: Option<(AdapterConfig, Duration, Duration)>,
        shutdown: &CancellationToken,
    ) -> Self {
        let adapter = rules.map(|(config, relist, max_age)| Adapter {
            config,
            relist,
            max_age,
            catalog: RwLock::default(),
        });
        Self {
            objects: Objects::new(client.clone(), shutdown.clone()),
            client,
            kinds: RwLock::default(),
            prometheus: prometheus.map(Arc::new),
            adapter,
            board: Board::default(),
        }
    }

    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        read(&self.kinds)
    }

    pub(crate) fn prometheus(&self) -> Option<&Prometheus> {
        self.prometheus.as_deref()
    }

    /// The rules, what they find, and who is asked.
    pub(crate) fn rules(&self) -> Option<(&AdapterConfig, Arc<Catalog>, &Prometheus)> {
        let adapter = self.adapter.as_ref()?;
        Some((&adapter.config, read(&adapter.catalog), self.prometheus()?))
    }

    /// Learns kinds once, so that what starts next knows them.
    pub(crate) async fn learn_kinds(&self) {
        if let Some(found) = discover(&self.client).await {
            *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
    }

    /// Keeps kinds and series fresh until `shutdown`.
    pub(crate) async fn keep_fresh(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.keep_kinds(shutdown.clone()),
            self.keep_series(shutdown)
        );
    }

    async fn keep_kinds(&self, shutdown: CancellationToken) {
        loop {
            let pause = if self.kinds().is_empty() {
                KINDS_AGAIN
            } else {
                KINDS_EVERY
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => self.learn_kinds().await,
            }
        }
    }

    async fn keep_series(&self, shutdown: CancellationToken) {
        let (Some(adapter), Some(prometheus)) = (&self.adapter, self.prometheus()) else {
            return;
        };
        let mut series = Series::new();
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let listed = tokio::select! {
                () = shutdown.cancelled() => return,
                listed = list(adapter, prometheus, &mut series) => listed,
            };
            match listed {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("Prometheus' series are listed again");
                }
                Ok(()) => {}
                Err(error) if failing => {
                    tracing::debug!(error, "Prometheus' series cannot be listed")
                }
                Err(error) => {
                    failing = true;
                    tracing::warn!(
                        error,
                        "Prometheus' series cannot be listed; the metrics known stay listed"
                    );
                }
            }
            let catalog = Catalog::new(&adapter.config, &series, &self.kinds());
            *adapter
                .catalog
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
            let pause = pause_after(begun.elapsed(), adapter.relist);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// How long nothing is listed after a listing that took so long.
fn pause_after(listing: Duration, relist: Duration) -> Duration {
    (listing * SHARE).min(SLOWEST).max(relist)
}

/// Lists each different series query once. What cannot be listed stays as it was.
async fn list(
    adapter: &Adapter,
    prometheus: &Prometheus,
    series: &mut Series,
) -> Result<(), String> {
    let rules = adapter
        .config
        .rules
        .iter()
        .chain(&adapter.config.external_rules);
    let queries: BTreeMap<&str, ()> = rules.map(|rule| (rule.series_query.as_str(), ())).collect();
    let max_age = i64::try_from(adapter.max_age.as_secs()).unwrap_or(i64::MAX);
    let mut failure = None;
    for query in queries.into_keys() {
        let start = Timestamp::now().as_second().saturating_sub(max_age);
        match prometheus.series(query, start).await {
            Ok(found) => {
                series.insert(query.to_owned(), found);
            }
            Err(error) => failure = Some(format!("{query}: {error}")),
        }
    }
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A series that appears when a listing has just begun waits for its end, the pause, and the next listing.
    #[test]
    fn a_new_series_is_listed_within_five_seconds_where_prometheus_is_not_slow() {
        for listing_ms in [0, 5, 50, 200, 215] {
            let listing = Duration::from_millis(listing_ms);
            let longest = listing + pause_after(listing, RELIST) + listing;
            assert!(
                longest <= Duration::from_secs(5),
                "{listing_ms}: {longest:?}"
            );
        }
    }

    #[test]
    fn a_slow_prometheus_is_left_alone_most_of_the_time_but_not_forgotten() {
        let second = Duration::from_secs(1);
        assert_eq!(pause_after(second, RELIST), 20 * second);
        assert_eq!(pause_after(60 * second, RELIST), SLOWEST);
        assert_eq!(pause_after(second, 600 * second), 600 * second);
    }
}

//! What ElasticForecasts in mode `Serve` say of the time ahead, as external metrics; read from their status only, so that every
//! replica answers the same. Refuses to make forecasts: the controller does.

use std::collections::{BTreeMap, BTreeSet};

use elastic_core::ElasticForecast;
use elastic_core::forecast::{Series, series};
use elastic_core::quantity::millis;
use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::custom::shapes::SeriesValue;
use crate::selector::Selector;

/// All ElasticForecasts as the API server has them.
pub(crate) struct Forecasts {
    store: Store<ElasticForecast>,
}

impl Forecasts {
    /// Follows them; the future ends with `shutdown`.
    pub(crate) fn follow(
        client: Client,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let writer: Writer<ElasticForecast> = Writer::default();
        let store = writer.as_reader();
        let api: Api<ElasticForecast> = Api::all(client);
        let changes = watcher(api, watcher::Config::default())
            .default_backoff()
            .modify(|forecast| forecast.managed_fields_mut().clear());
        let following = reflector(writer, changes).for_each(|change| {
            if let Err(error) = change {
                tracing::warn!(%error, "watch of ElasticForecasts broke off, it is taken up again");
            }
            std::future::ready(())
        });
        let following = async move {
            shutdown.run_until_cancelled(following).await;
        };
        (Self { store }, following)
    }

    /// The names of the metrics that any of them serves.
    pub(crate) fn names(&self, now: Timestamp) -> BTreeSet<String> {
        let served = self.store.state();
        let names = served
            .iter()
            .flat_map(|forecast| series(forecast, now))
            .map(|one| one.metric.to_owned());
        names.collect()
    }

    /// The series of a metric in a namespace; `None` where no forecast serves it.
    pub(crate) fn values(
        &self,
        namespace: &str,
        metric: &str,
        selector: &Selector,
        now: Timestamp,
    ) -> Option<Vec<SeriesValue>> {
        let all = self.store.state();
        let of_namespace = all
            .iter()
            .filter(|forecast| forecast.namespace().as_deref() == Some(namespace));
        let served: Vec<Series> = of_namespace
            .flat_map(|forecast| series(forecast, now))
            .filter(|one| one.metric == metric)
            .collect();
        chosen(served, |labels| selector.matches(labels))
    }
}

/// `None` when nothing is served at all; empty when the selector fits nothing.
fn chosen(
    served: Vec<Series>,
    fits: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Option<Vec<SeriesValue>> {
    if served.is_empty() {
        return None;
    }
    let fitting = served.into_iter().filter(|one| fits(&one.labels));
    let values = fitting.filter_map(|one| {
        Some(SeriesValue {
            millis: millis(&one.value).ok()?,
            at: one.at,
            labels: one.labels,
        })
    });
    Some(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(of: &str, value: &str) -> Series {
        Series {
            metric: "forecast_replicas",
            labels: BTreeMap::from([("forecast".to_owned(), of.to_owned())]),
            value: value.to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn nothing_served_is_no_metric_and_nothing_chosen_is_an_empty_one() {
        assert_eq!(chosen(Vec::new(), |_| true), None);
        assert_eq!(
            chosen(vec![replicas("web", "4")], |_| false),
            Some(Vec::new())
        );
    }

    #[test]
    fn a_selector_chooses_one_forecast_and_quantities_are_read() {
        let served = vec![replicas("web", "4"), replicas("shop", "2500m")];
        let found = chosen(served, |labels| labels["forecast"] == "shop").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].millis, 2_500);
    }
}

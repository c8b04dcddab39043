//! The forecast as external metrics, read from an ElasticForecast's status: whoever serves metrics needs nothing else,
//! so that any replica can serve them and a restart changes nothing. Refuses forecasts that are too old: no metric is
//! better than a wrong one, since an autoscaler without a metric does not shrink.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::kind::{ElasticForecast, ForecastMode};
use crate::quantity::millis;

/// The load that is to come, in the unit of the metric; one series a quantile.
pub const FORECAST_METRIC: &str = "forecast";
/// The replicas that are to be there; meant for an `AverageValue` target of 1.
pub const REPLICAS_METRIC: &str = "forecast_replicas";
/// So many refreshes may be missed.
const REFRESHES_MISSED_MAX: i64 = 3;

/// One value of an external metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The metric.
    pub metric: &'static str,
    /// What a selector can choose by.
    pub labels: BTreeMap<String, String>,
    /// A quantity.
    pub value: String,
    /// When it was computed.
    pub at: Timestamp,
}

/// The metrics that an ElasticForecast serves now.
pub fn series(forecast: &ElasticForecast, now: Timestamp) -> Vec<Series> {
    let (Some(status), ForecastMode::Serve) = (&forecast.status, forecast.spec.mode) else {
        return Vec::new();
    };
    let Some(at) = status.forecast_time.as_ref().map(|time| time.0) else {
        return Vec::new();
    };
    let life = i64::from(forecast.spec.refresh_seconds) * REFRESHES_MISSED_MAX;
    if now.duration_since(at) > SignedDuration::from_secs(life) {
        return Vec::new();
    }
    let name = forecast.metadata.name.clone().unwrap_or_default();
    let own = BTreeMap::from([("forecast".to_owned(), name)]);
    let of_quantile = status.forecast.iter().map(|value| {
        let mut labels = own.clone();
        labels.insert("quantile".to_owned(), value.quantile.clone());
        Series {
            metric: FORECAST_METRIC,
            labels,
            value: value.value.clone(),
            at,
        }
    });
    // Where nothing can be forecast nothing is asked for: a missing metric would keep the autoscaler from shrinking.
    let of_replicas = Series {
        metric: REPLICAS_METRIC,
        labels: own.clone(),
        value: status.forecast_replicas.unwrap_or(0).to_string(),
        at,
    };
    of_quantile.chain([of_replicas]).collect()
}

/// A number as a quantity, to a thousandth.
pub fn quantity(value: f64) -> String {
    let milli = (value * 1000.0).round();
    let milli = if milli.is_finite() {
        milli.clamp(-9e15, 9e15) as i64
    } else {
        0
    };
    match milli % 1000 {
        0 => (milli / 1000).to_string(),
        _ => format!("{milli}m"),
    }
}

/// A quantity as a number.
pub fn parse_quantity(quantity: &IntOrString) -> Option<f64> {
    match quantity {
        IntOrString::Int(value) => Some(f64::from(*value)),
        IntOrString::String(text) => millis(text).ok().map(|milli| milli as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_keep_thousandths() {
        assert_eq!(quantity(12.0), "12");
        assert_eq!(quantity(0.1234), "123m");
        assert_eq!(quantity(f64::NAN), "0");
        assert_eq!(
            parse_quantity(&IntOrString::String("3k".into())),
            Some(3000.0)
        );
        assert_eq!(parse_quantity(&IntOrString::Int(7)), Some(7.0));
        assert_eq!(parse_quantity(&IntOrString::String("x".into())), None);
    }

    #[test]
    fn only_a_fresh_forecast_in_serve_mode_is_a_metric() {
        let forecast = |mode: &str| -> ElasticForecast {
            serde_json::from_value(json!({
                "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticForecast",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"mode": mode, "source": {}, "capacityPerReplica": 1, "refreshSeconds": 60},
                "status": {"forecastTime": "2026-11-21T11:00:00Z", "forecastReplicas": 4,
                    "forecast": [{"quantile": "0.5", "value": "900"}, {"quantile": "0.95", "value": "1200"}]},
            }))
            .unwrap()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let found = series(&forecast("Serve"), at("2026-11-21T11:03:00Z"));
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].labels["quantile"], "0.95");
        assert_eq!(
            (found[2].metric, found[2].value.as_str()),
            (REPLICAS_METRIC, "4")
        );
        assert!(series(&forecast("Serve"), at("2026-11-21T11:03:01Z")).is_empty());
        let mut unknown = forecast("Serve");
        let status = unknown.status.as_mut().unwrap();
        (status.forecast_replicas, status.forecast) = (None, Vec::new());
        let found = series(&unknown, at("2026-11-21T11:00:01Z"));
        assert_eq!((found.len(), found[0].value.as_str()), (1, "0"));
        assert!(series(&forecast("Observe"), at("2026-11-21T11:00:01Z")).is_empty());
    }
}

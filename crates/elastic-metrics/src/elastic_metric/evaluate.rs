//! From what a source said to the values that are served, or to the reason why there are none. Pure.
//!
//! Whatever could make a sum too small (a missing endpoint, a value that is no number) is a problem and not a smaller value.

use std::collections::BTreeMap;

use elastic_core::ElasticMetric;
use elastic_core::elastic_metric::{Aggregation, Scrape};
use jiff::{SignedDuration, Timestamp};

use crate::exposition;
use crate::prometheus::Sample;
use crate::value::millis;

/// Most values of one metric.
const MAX_VALUES: usize = 10_000;
/// Longest list of names in a message.
const MAX_SHOWN: usize = 3;

/// One value that is served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    /// The described object when every series names its own.
    pub(crate) object: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) millis: i64,
    pub(crate) at: Timestamp,
}

/// What is served, and what is worth telling about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) values: Vec<Value>,
    pub(crate) note: Option<String>,
}

/// Why nothing is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Of the condition.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Values of a query's samples.
pub(crate) fn from_query(
    metric: &ElasticMetric,
    samples: Vec<Sample>,
    now: Timestamp,
) -> Result<Reading, Problem> {
    if samples.is_empty() {
        let age = metric.max_age_seconds();
        return Err(Problem::new(
            "NoSeries",
            format!("the query gives no series with a sample of the last {age} s"),
        ));
    }
    if samples.len() > MAX_VALUES {
        let message = format!(
            "the query gives {} series, at most {MAX_VALUES} are taken",
            samples.len()
        );
        return Err(Problem::new("TooManySeries", message));
    }
    let samples = samples.into_iter().map(|sample| {
        let at = Timestamp::from_millisecond(sample.at_ms).unwrap_or(now);
        (sample.labels, sample.value, at)
    });
    let samples: Vec<_> = samples.collect();
    let stale = samples.iter().any(|(_, _, at)| is_stale(metric, *at, now));
    if stale {
        return Err(stale_problem(metric));
    }
    match &metric.spec.target {
        None => all_numbers(samples),
        Some(target) if target.name.is_some() || target.is_namespace() => {
            if samples.len() > 1 {
                let message = format!(
                    "the query gives {} series for one object; aggregate them, as with sum()",
                    samples.len()
                );
                return Err(Problem::new("TooManySeries", message));
            }
            all_numbers(samples)
        }
        Some(target) => by_object(&target.label(), samples),
    }
}

fn is_stale(metric: &ElasticMetric, at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) > SignedDuration::from_secs(i64::from(metric.max_age_seconds()))
}

fn stale_problem(metric: &ElasticMetric) -> Problem {
    let message = format!(
        "the newest sample is older than {} s (spec.maxAgeSeconds)",
        metric.max_age_seconds()
    );
    Problem::new("Stale", message)
}

type Raw = (BTreeMap<String, String>, f64, Timestamp);

fn all_numbers(samples: Vec<Raw>) -> Result<Reading, Problem> {
    let values = samples.into_iter().map(|(labels, value, at)| {
        let millis =
            millis(value).map_err(|error| Problem::new("NotANumber", error.to_string()))?;
        Ok(Value {
            object: None,
            labels,
            millis,
            at,
        })
    });
    let values = values.collect::<Result<_, _>>()?;
    Ok(Reading { values, note: None })
}

/// An object without a number has no value, which autoscalers know how to take; the others have theirs.
fn by_object(label: &str, samples: Vec<Raw>) -> Result<Reading, Problem> {
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    let mut without = Vec::new();
    for (labels, value, at) in samples {
        let Some(name) = labels.get(label).filter(|name| !name.is_empty()).cloned() else {
            let message = format!(
                "a series has no label {label} that names its object; set spec.target.nameLabel or name"
            );
            return Err(Problem::new("NoObjectLabel", message));
        };
        let Ok(millis) = millis(value) else {
            without.push(name);
            continue;
        };
        let one = Value {
            object: Some(name.clone()),
            labels,
            millis,
            at,
        };
        if values.insert(name.clone(), one).is_some() {
            let message = format!(
                "the query gives more than one series for {name}; aggregate them by ({label})"
            );
            return Err(Problem::new("TooManySeries", message));
        }
    }
    if values.is_empty() {
        return Err(Problem::new(
            "NotANumber",
            "no series has a number as its value",
        ));
    }
    let note = (!without.is_empty()).then(|| format!("no number for {}", shown(&without)));
    Ok(Reading {
        values: values.into_values().collect(),
        note,
    })
}

fn shown(names: &[String]) -> String {
    let first = names
        .iter()
        .take(MAX_SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(MAX_SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What an endpoint has, from the text it answered: the sum of the series that fit.
pub(crate) fn of_endpoint(
    scrape: &Scrape,
    text: &str,
    now: Timestamp,
) -> Result<(f64, Timestamp), String> {
    let mut found: Option<(f64, Timestamp)> = None;
    for line in exposition::all_lines(text).filter(|line| line.name == scrape.metric) {
        let fits =
            |(label, wanted): (&String, &String)| line.label(label).unwrap_or_default() == wanted;
        if !scrape.labels.iter().all(fits) {
            continue;
        }
        let at = line
            .time
            .and_then(|at| Timestamp::from_millisecond(at).ok())
            .unwrap_or(now);
        let (sum, oldest) = found.unwrap_or((0.0, at));
        found = Some((sum + line.value, oldest.min(at)));
    }
    found.ok_or_else(|| format!("has no series {}", scrape.metric))
}

/// An endpoint with its value, or with why it has none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) value: Result<(f64, Timestamp), String>,
    /// Whether the value is an earlier one, because the endpoint did not answer.
    pub(crate) is_old: bool,
}

/// The value of all endpoints together, or of each for itself.
pub(crate) fn from_scrape(
    metric: &ElasticMetric,
    scrape: &Scrape,
    endpoints: Vec<Endpoint>,
    now: Timestamp,
) -> Result<Reading, Problem> {
    if endpoints.is_empty() {
        let message = format!("service {} has no ready endpoints", scrape.service);
        return Err(Problem::new("NoEndpoints", message));
    }
    let old: Vec<String> = endpoints
        .iter()
        .filter(|one| one.is_old)
        .map(|one| one.name.clone())
        .collect();
    let note = (!old.is_empty())
        .then(|| format!("{} did not answer; earlier values are used", shown(&old)));
    let per_pod = metric
        .spec
        .target
        .as_ref()
        .is_some_and(|target| target.name.is_none() && !target.is_namespace());
    let mut values = Vec::with_capacity(endpoints.len());
    let mut failures = Vec::new();
    for endpoint in endpoints {
        match endpoint.value {
            Ok((_, at)) if is_stale(metric, at, now) => return Err(stale_problem(metric)),
            Ok((value, at)) => values.push((endpoint.name, value, at)),
            Err(reason) => failures.push(format!("{} {reason}", endpoint.name)),
        }
    }
    if per_pod {
        let samples = values
            .into_iter()
            .map(|(name, value, at)| (BTreeMap::from([("pod".to_owned(), name)]), value, at));
        let samples: Vec<_> = samples.collect();
        if samples.is_empty() {
            return Err(Problem::new("ScrapeFailed", shown(&failures)));
        }
        let mut reading = by_object("pod", samples)?;
        let failed = (!failures.is_empty()).then(|| shown(&failures));
        let notes: Vec<String> = [reading.note.take(), note, failed]
            .into_iter()
            .flatten()
            .collect();
        reading.note = (!notes.is_empty()).then(|| notes.join("; "));
        return Ok(reading);
    }
    if !failures.is_empty() {
        return Err(Problem::new("ScrapeFailed", shown(&failures)));
    }
    let at = values.iter().map(|(_, _, at)| *at).min().unwrap_or(now);
    let value = aggregated(
        scrape.aggregation,
        values.iter().map(|(_, value, _)| *value),
    );
    let mut reading = all_numbers(vec![(BTreeMap::new(), value, at)])?;
    reading.note = note;
    Ok(reading)
}

/// NaN wins over every number, so that it is not lost in a maximum.
fn aggregated(how: Aggregation, values: impl Iterator<Item = f64> + Clone) -> f64 {
    if values.clone().any(f64::is_nan) {
        return f64::NAN;
    }
    let count = values.clone().count() as f64;
    match how {
        Aggregation::Sum => values.sum(),
        Aggregation::Average => values.sum::<f64>() / count,
        Aggregation::Max => values.fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Min => values.fold(f64::INFINITY, f64::min),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn metric(spec: Json) -> ElasticMetric {
        let object = json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric",
            "metadata": {"name": "m", "namespace": "shop"}, "spec": spec
        });
        serde_json::from_value(object).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn sample(pod: &str, value: f64) -> Sample {
        Sample {
            labels: BTreeMap::from([("pod".to_owned(), pod.to_owned())]),
            value,
            at_ms: 1_700_000_000_000,
        }
    }

    fn query(
        target: Json,
        samples: Vec<Sample>,
    ) -> Result<Vec<(Option<String>, i64)>, &'static str> {
        let reading = from_query(
            &metric(json!({"query": "q", "target": target})),
            samples,
            now(),
        );
        let values = |reading: Reading| {
            reading
                .values
                .into_iter()
                .map(|value| (value.object, value.millis))
                .collect()
        };
        reading.map(values).map_err(|problem| problem.reason)
    }

    #[test]
    fn queries_give_values_or_reasons() {
        let web = json!({"apiVersion": "v1", "kind": "Service", "name": "web"});
        let pods = json!({"apiVersion": "v1", "kind": "Pod"});
        assert_eq!(
            query(web.clone(), vec![sample("a", 1.5)]),
            Ok(vec![(None, 1_500)])
        );
        assert_eq!(query(web.clone(), vec![]), Err("NoSeries"));
        assert_eq!(
            query(web.clone(), vec![sample("a", f64::NAN)]),
            Err("NotANumber")
        );
        assert_eq!(
            query(web.clone(), vec![sample("a", 1.0), sample("b", 1.0)]),
            Err("TooManySeries")
        );
        assert_eq!(
            query(Json::Null, vec![sample("a", 1.0), sample("b", 2.0)]),
            Ok(vec![(None, 1_000), (None, 2_000)])
        );
        assert_eq!(
            query(
                Json::Null,
                vec![sample("a", 1.0), sample("b", f64::INFINITY)]
            ),
            Err("NotANumber")
        );
        let some = vec![sample("a", 1.0), sample("b", f64::NAN)];
        assert_eq!(
            query(pods.clone(), some),
            Ok(vec![(Some("a".to_owned()), 1_000)])
        );
        assert_eq!(
            query(pods.clone(), vec![sample("a", 1.0), sample("a", 2.0)]),
            Err("TooManySeries")
        );
        assert_eq!(
            query(pods.clone(), vec![sample("", 1.0)]),
            Err("NoObjectLabel")
        );
        assert_eq!(query(pods, vec![sample("a", f64::NAN)]), Err("NotANumber"));
        let mut old = sample("a", 1.0);
        old.at_ms -= 121_000;
        assert_eq!(query(web, vec![old]), Err("Stale"));
    }

    fn endpoint(name: &str, value: Result<f64, &str>) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            value: value.map(|value| (value, now())).map_err(str::to_owned),
            is_old: false,
        }
    }

    fn scraped(
        aggregation: &str,
        target: Json,
        endpoints: Vec<Endpoint>,
    ) -> Result<Reading, Problem> {
        let metric = metric(
            json!({"scrape": {"service": "web", "metric": "x", "aggregation": aggregation}, "target": target}),
        );
        from_scrape(
            &metric,
            metric.spec.scrape.as_ref().unwrap(),
            endpoints,
            now(),
        )
    }

    #[test]
    fn endpoints_are_put_together() {
        for (how, wanted) in [
            ("Sum", 6_000),
            ("Average", 3_000),
            ("Max", 4_000),
            ("Min", 2_000),
        ] {
            let reading = scraped(
                how,
                Json::Null,
                vec![endpoint("a", Ok(2.0)), endpoint("b", Ok(4.0))],
            )
            .unwrap();
            assert_eq!(reading.values[0].millis, wanted, "{how}");
        }
    }

    #[test]
    fn a_missing_endpoint_makes_no_smaller_sum() {
        for how in ["Sum", "Average", "Max", "Min"] {
            let failing = vec![endpoint("a", Ok(2.0)), endpoint("b", Err("refused"))];
            let problem = scraped(how, Json::Null, failing).unwrap_err();
            assert_eq!(
                (problem.reason, problem.message.as_str()),
                ("ScrapeFailed", "b refused")
            );
            let nan = scraped(
                how,
                Json::Null,
                vec![endpoint("a", Ok(2.0)), endpoint("b", Ok(f64::NAN))],
            );
            assert_eq!(nan.unwrap_err().reason, "NotANumber");
        }
        assert_eq!(
            scraped("Sum", Json::Null, vec![]).unwrap_err().reason,
            "NoEndpoints"
        );
    }

    #[test]
    fn pods_have_values_of_their_own_and_a_silent_one_has_none() {
        let pods = json!({"apiVersion": "v1", "kind": "Pod"});
        let endpoints = vec![
            endpoint("web-1", Ok(2.0)),
            endpoint("web-2", Err("refused")),
        ];
        let reading = scraped("Sum", pods, endpoints).unwrap();
        assert_eq!(reading.values.len(), 1);
        assert_eq!(reading.values[0].object.as_deref(), Some("web-1"));
        assert_eq!(reading.note.as_deref(), Some("web-2 refused"));
    }

    #[test]
    fn an_endpoint_has_the_sum_of_the_series_that_fit() {
        let scrape = Scrape {
            service: "web".into(),
            port: None,
            path: None,
            metric: "x".into(),
            labels: BTreeMap::from([("code".to_owned(), "200".to_owned())]),
            aggregation: Aggregation::Sum,
        };
        let text = "# TYPE x gauge\nx{code=\"200\",a=\"1\"} 2\nx{code=\"200\",a=\"2\"} 3 1699999999000\nx{code=\"500\"} 9\nxy 1\n";
        assert_eq!(
            of_endpoint(&scrape, text, now()),
            Ok((5.0, Timestamp::from_second(1_699_999_999).unwrap()))
        );
        assert!(of_endpoint(&scrape, "y 1\n", now()).is_err());
        assert!(
            of_endpoint(&scrape, "x{code=\"200\"} NaN\n", now())
                .unwrap()
                .0
                .is_nan()
        );
    }

    proptest! {
        #[test]
        fn no_failure_is_hidden_in_an_aggregate(values in proptest::collection::vec(proptest::option::of(-1e9f64..1e9), 1..20), which in 0usize..4) {
            let how = ["Sum", "Average", "Max", "Min"][which];
            let endpoints = values.iter().enumerate().map(|(index, value)| endpoint(&index.to_string(), value.ok_or("down")));
            let outcome = scraped(how, Json::Null, endpoints.collect());
            prop_assert_eq!(outcome.is_ok(), values.iter().all(Option::is_some));
        }
    }
}

//! What was given in a recorded case: pods and the answers of the stubbed metrics APIs.

use std::collections::BTreeMap;

use elastic_core::horizontal_pod_autoscaler::{PodView, Reading, ReadyView, Sample, Samples};
use elastic_core::quantity::millis;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::MetricSpec;
use serde_json::Value;

use super::start;

/// A pod as the recording spells it out.
pub fn pod_view(pod: &Value) -> PodView {
    let ago = |seconds: i64| start() - SignedDuration::from_secs(seconds);
    let container = |container: &Value| {
        let requests = container["requests"].as_object().into_iter().flatten();
        let requests =
            requests.map(|(name, value)| (name.clone(), millis(value.as_str().unwrap()).unwrap()));
        (
            container["name"].as_str().unwrap().to_owned(),
            requests.collect(),
        )
    };
    PodView {
        name: pod["name"].as_str().unwrap().to_owned(),
        phase: pod["phase"].as_str().unwrap().to_owned(),
        deleting: pod["state"] == "terminating",
        start_time: pod["startedSecondsAgo"].as_i64().map(ago),
        ready: pod["ready"].as_object().map(|ready| ReadyView {
            is_ready: ready["status"] == "True",
            is_unready: ready["status"] == "False",
            since: ago(ready["changedSecondsAgo"].as_i64().unwrap()),
        }),
        containers: pod["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(container)
            .collect(),
        labels: Some(BTreeMap::from([("app".to_owned(), "t".to_owned())])),
        ..PodView::default()
    }
}

/// What the stubbed metrics APIs answer in a step, as the controller's clients word it.
pub fn reading(
    metric: &MetricSpec,
    step: &Value,
    pods: &[(PodView, Value)],
    now: Timestamp,
) -> Result<Reading, String> {
    let unfetched = |api: &str, error: &str| {
        Err(format!(
            "unable to fetch metrics from {api} metrics API: {error}"
        ))
    };
    let missing = |name: &str, of: &str| {
        let words = format!("the server could not find the metric {name} for {of}");
        unfetched("custom", &words)
    };
    if let Some(source) = &metric.pods {
        let name = &source.metric.name;
        let Some(value) = step[format!("podsMetric_{name}")].as_str() else {
            return missing(name, "pods");
        };
        let milli = millis(value).unwrap();
        return Ok(Reading::PerPod(samples(step, pods, now, |_, _| {
            Some(milli)
        })));
    }
    if let Some(source) = &metric.object {
        let name = &source.metric.name;
        return match step[format!("objectMetric_{name}")].as_str() {
            Some(value) => Ok(Reading::Whole(millis(value).unwrap())),
            None => missing(name, "services svc"),
        };
    }
    if let Some(source) = &metric.external {
        let name = &source.metric.name;
        return match step[format!("externalMetric_{name}")].as_array() {
            Some(series) if series.is_empty() => {
                Err("no metrics returned from external metrics API".to_owned())
            }
            Some(series) => {
                let values = series
                    .iter()
                    .map(|value| millis(value.as_str().unwrap()).unwrap());
                Ok(Reading::Whole(values.sum()))
            }
            None => unfetched("external", &format!("external metric {name} not found")),
        };
    }
    if let Some(message) = step["apiFailure"]["message"].as_str() {
        return unfetched("resource", message);
    }
    if samples(step, pods, now, |_, _| Some(0)).is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let (resource, container) = match (&metric.resource, &metric.container_resource) {
        (Some(source), _) => (source.name.as_str(), None),
        (_, Some(source)) => (source.name.as_str(), Some(source.container.as_str())),
        _ => panic!("a metric without a source"),
    };
    Ok(Reading::PerPod(samples(step, pods, now, |index, pod| {
        usage(step, resource, container, index, pod, pods.len())
    })))
}

fn usage(
    step: &Value,
    resource: &str,
    only: Option<&str>,
    index: usize,
    pod: &Value,
    pods: usize,
) -> Option<i64> {
    if let Some(total) = step["total"].as_i64() {
        return Some(total / pods as i64);
    }
    let main = if resource == "memory" {
        &step["perPodMemory"]
    } else {
        &step["perPodCpu"]
    };
    let main = millis(main.get(index).unwrap_or(main).as_str()?).ok()?;
    let by_container = pod["containers"]
        .as_array()?
        .iter()
        .map(|container| container["name"].as_str().unwrap());
    let values: Vec<i64> = by_container
        .filter(|name| only.is_none_or(|only| only == *name))
        .map(|name| {
            if name == "side" {
                millis(step["sidecarCpu"].as_str().unwrap_or("0")).unwrap()
            } else {
                main
            }
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn samples(
    step: &Value,
    pods: &[(PodView, Value)],
    now: Timestamp,
    value: impl Fn(usize, &Value) -> Option<i64>,
) -> Samples {
    let without: Vec<&str> = step["podsWithoutMetrics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut samples = Samples::new();
    for (index, (view, pod)) in pods.iter().enumerate() {
        if without.contains(&view.name.as_str()) {
            continue;
        }
        if let Some(milli) = value(index, pod) {
            let window = SignedDuration::from_secs(10);
            samples.insert(
                view.name.clone(),
                Sample {
                    milli,
                    timestamp: now,
                    window,
                },
            );
        }
    }
    samples
}

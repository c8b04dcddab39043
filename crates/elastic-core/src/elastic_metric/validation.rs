//! Checks beyond the schema; each failure names the field, what is wrong and what would be right.

use kube::ResourceExt;

use super::{ElasticMetric, MetricTarget, Scrape};
use crate::elastic_workload::FieldError;

const MAX_INTERVAL_SECONDS: u32 = 300;
const MAX_AGE_SECONDS: u32 = 3_600;

/// Every problem of `metric`, in the order of its fields.
pub fn validate(metric: &ElasticMetric) -> Vec<FieldError> {
    let spec = &metric.spec;
    let mut errors = Vec::new();
    let mut fail = |field: &str, reason: &str| {
        errors.push(FieldError {
            field: field.to_owned(),
            reason: reason.to_owned(),
        });
    };
    let name = metric.metric_name();
    let unusable = |character: char| "/%*?#".contains(character) || character.is_whitespace();
    if name.is_empty() || name.contains(unusable) {
        let reason = "must be one segment of a path, such as active_devices";
        fail("spec.metric", reason);
    }
    check_target(metric, &mut fail);
    match (&spec.query, &spec.scrape) {
        (Some(_), Some(_)) => fail("spec.scrape", "must be left out when spec.query is given"),
        (None, None) => fail(
            "spec.query",
            "is missing; give either spec.query or spec.scrape",
        ),
        (Some(query), None) if query.trim().is_empty() => fail("spec.query", "must not be empty"),
        (Some(_), None) => {}
        (None, Some(scrape)) => check_scrape(metric, scrape, &mut fail),
    }
    if !(1..=MAX_INTERVAL_SECONDS).contains(&spec.interval_seconds.unwrap_or(1)) {
        fail("spec.intervalSeconds", "must be between 1 and 300");
    }
    if !(1..=MAX_AGE_SECONDS).contains(&spec.max_age_seconds.unwrap_or(1)) {
        fail("spec.maxAgeSeconds", "must be between 1 and 3600");
    }
    errors
}

fn check_target(metric: &ElasticMetric, fail: &mut impl FnMut(&str, &str)) {
    let Some(target) = &metric.spec.target else {
        return;
    };
    if target.kind.is_empty() || target.api_version.is_empty() {
        let reason = "needs apiVersion and kind, such as v1 and Service";
        fail("spec.target", reason);
    }
    let other = |name: &String| Some(name) != metric.namespace().as_ref();
    if target.is_namespace() && target.name.as_ref().is_some_and(other) {
        let reason = "must be the ElasticMetric's own namespace; leave it out";
        fail("spec.target.name", reason);
    }
    if target.name.is_some() && target.name_label.is_some() {
        let reason = "is for series that name their objects; leave out either name or nameLabel";
        fail("spec.target.nameLabel", reason);
    }
}

fn check_scrape(metric: &ElasticMetric, scrape: &Scrape, fail: &mut impl FnMut(&str, &str)) {
    if scrape.service.is_empty() {
        fail(
            "spec.scrape.service",
            "must name a Service in the same namespace",
        );
    }
    if scrape.metric.is_empty() {
        fail("spec.scrape.metric", "must name the series to read");
    }
    let relative = |path: &String| !path.starts_with('/');
    if scrape.path.as_ref().is_some_and(relative) {
        fail("spec.scrape.path", "must begin with a slash");
    }
    let each = |target: &&MetricTarget| target.name.is_none() && !target.is_namespace();
    let each = metric.spec.target.as_ref().filter(each);
    if each.is_some_and(|target| target.kind != "Pod") {
        let reason = "is missing; without it only Pods can be described by a scrape";
        fail("spec.target.name", reason);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric",
            "metadata": {"name": "m", "namespace": "shop"}, "spec": spec
        });
        let metric: ElasticMetric = serde_json::from_value(object).unwrap();
        validate(&metric)
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn good_ones_pass() {
        let target = json!({"apiVersion": "v1", "kind": "Service", "name": "web"});
        assert!(fields(json!({"query": "up", "target": target})).is_empty());
        assert!(fields(json!({"query": "up"})).is_empty());
        assert!(
            fields(json!({"query": "up", "target": {"apiVersion": "v1", "kind": "Namespace"}}))
                .is_empty()
        );
        let scrape = json!({"service": "web", "metric": "sessions", "port": "http"});
        assert!(
            fields(json!({"scrape": scrape, "target": {"apiVersion": "v1", "kind": "Pod"}}))
                .is_empty()
        );
    }

    #[test]
    fn every_mistake_is_told_by_its_field() {
        let service = json!({"apiVersion": "v1", "kind": "Service"});
        let cases = [
            (json!({}), "spec.query"),
            (json!({"query": " "}), "spec.query"),
            (
                json!({"query": "up", "scrape": {"service": "a", "metric": "b"}}),
                "spec.scrape",
            ),
            (json!({"query": "up", "metric": "a/b"}), "spec.metric"),
            (
                json!({"query": "up", "target": {"apiVersion": "v1", "kind": "Namespace", "name": "other"}}),
                "spec.target.name",
            ),
            (
                json!({"query": "up", "target": {"apiVersion": "v1", "kind": "Pod", "name": "a", "nameLabel": "b"}}),
                "spec.target.nameLabel",
            ),
            (
                json!({"scrape": {"service": "", "metric": "b"}}),
                "spec.scrape.service",
            ),
            (
                json!({"scrape": {"service": "a", "metric": "b", "path": "x"}}),
                "spec.scrape.path",
            ),
            (
                json!({"scrape": {"service": "a", "metric": "b"}, "target": service}),
                "spec.target.name",
            ),
            (
                json!({"query": "up", "intervalSeconds": 0}),
                "spec.intervalSeconds",
            ),
            (
                json!({"query": "up", "maxAgeSeconds": 100_000}),
                "spec.maxAgeSeconds",
            ),
        ];
        for (spec, field) in cases {
            assert_eq!(fields(spec.clone()), [field], "{spec}");
        }
    }
}

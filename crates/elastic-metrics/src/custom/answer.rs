//! From a question to an answer: may the user ask, who has the metric, what is its value, how is it written.
//!
//! What cannot be told is an error with a reason, at which an autoscaler keeps its size; never a zero.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::Value;

use super::access::{Access, Attributes, Denied};
use super::path::{
    CUSTOM, CustomRequest, CustomVersion, EXTERNAL, ExternalRequest, PathError, Question, question,
};
use super::shapes::{self, Described, ObjectValue, SeriesValue};
use super::source::Source;
use crate::adapter::{CustomKey, GroupResource, Names};
use crate::elastic_metric::{Entry, Problem};
use crate::forecasts::Forecasts;
use crate::prometheus::Sample;
use crate::pushed::{PushedMetrics, Relay};
use crate::resource::api::attributes as attributes_of_resource;
use crate::resource::{RESOURCE, ResourceMetrics};
use crate::serve::{Answer, Asked, Content};
use crate::status::{failure, not_found};
use crate::value::millis;

pub(super) type Answered = (StatusCode, Value);
/// Values with the window they are averages of.
type OwnValues = (Vec<ObjectValue>, Option<u64>);

/// Serves both groups.
pub(crate) struct MetricsApi {
    pub(crate) access: Access,
    pub(crate) source: Arc<Source>,
    pub(crate) forecasts: Forecasts,
    /// `metrics.k8s.io`, when it is served here as well.
    pub(crate) resource: Option<ResourceMetrics>,
    /// Whether metrics may be pushed.
    pub(crate) takes_pushes: bool,
    pub(crate) pushed: PushedMetrics,
    /// Labels that tell senders of the same series apart.
    pub(crate) replica_labels: Vec<String>,
    /// The other replicas, if there may be some.
    pub(crate) relay: Option<Relay>,
}

#[async_trait]
impl Answer for MetricsApi {
    async fn take(&self, asked: Asked<'_>, body: Incoming) -> Answered {
        self.take_push(asked, body).await
    }

    async fn answer(&self, asked: Asked<'_>) -> (StatusCode, Content) {
        match self.content(asked).await {
            Ok(content) => (StatusCode::OK, content),
            Err((code, status)) => (code, status.into()),
        }
    }
}

impl MetricsApi {
    /// The answer to a GET, or the Status of its refusal.
    async fn content(&self, asked: Asked<'_>) -> Result<Content, Answered> {
        if let Some(resource) = self.resource.as_ref().filter(|_| is_resource(asked.path)) {
            let wanted = attributes_of_resource(asked.path);
            self.permitted(&asked, wanted).await.map_err(refused)?;
            return match resource.tree(&asked).await {
                (StatusCode::OK, tree) => Ok(tree.into()),
                failed => Err(failed),
            };
        }
        let question = question(asked.path, asked.query).map_err(|error| match error {
            PathError::NotFound => not_found("the server could not find the requested resource"),
            PathError::BadRequest(reason) => {
                failure(StatusCode::BAD_REQUEST, "BadRequest", &reason)
            }
        })?;
        let wanted = attributes(&question);
        self.permitted(&asked, wanted).await.map_err(refused)?;
        match question {
            Question::Groups => Ok(shapes::groups().into()),
            Question::Group(name) => Ok(shapes::group(name).into()),
            Question::CustomResources(version) => Ok(self.custom_resources(version).into()),
            Question::ExternalResources => Ok(self.external_resources().into()),
            Question::PushedResources => Ok(shapes::pushed_resources().into()),
            Question::Custom(request) => self.custom(&request).await,
            Question::External(request) => self.external(&request).await,
        }
    }
}

fn attributes(question: &Question) -> Option<Attributes> {
    match question {
        Question::Custom(request) => {
            let of_namespace = request.resource.is_namespace();
            let name = request.name.clone().unwrap_or_else(|| "*".to_owned());
            Some(Attributes {
                verb: "get",
                group: CUSTOM,
                version: request.version.name(),
                // As the API server takes the path apart: metrics/<metric> in the namespace.
                namespace: if of_namespace {
                    name.clone()
                } else {
                    request.namespace.clone().unwrap_or_default()
                },
                resource: if of_namespace {
                    "metrics".to_owned()
                } else {
                    request.resource.resource.clone()
                },
                subresource: if of_namespace {
                    String::new()
                } else {
                    request.metric.clone()
                },
                name: if of_namespace {
                    request.metric.clone()
                } else {
                    name
                },
            })
        }
        Question::External(request) => Some(Attributes {
            verb: "list",
            group: EXTERNAL,
            version: "v1beta1",
            namespace: request.namespace.clone(),
            resource: request.metric.clone(),
            subresource: String::new(),
            name: String::new(),
        }),
        _ => None,
    }
}

pub(super) fn refused(denied: Denied) -> Answered {
    match denied {
        Denied::Unauthorized => failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
        Denied::Forbidden(message) => failure(StatusCode::FORBIDDEN, "Forbidden", &message),
        Denied::Unknown(why) => internal(&format!("it could not be found out who may ask: {why}")),
    }
}

pub(super) fn internal(why: &str) -> Answered {
    let message = format!("Internal error occurred: unable to fetch metrics: {why}");
    failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
}

/// No such metric for this kind of objects.
fn no_metric(request: &CustomRequest) -> Answered {
    not_found(&format!(
        "the server could not find the metric {} for {}",
        request.metric, request.resource
    ))
}

/// The object has no such metric.
pub(super) fn no_metric_of(request: &CustomRequest, name: &str) -> Answered {
    let message = format!(
        "the server could not find the metric {} for {} {name}",
        request.metric, request.resource
    );
    not_found(&message)
}

fn troubled(entry: &Entry, problem: &Problem) -> Answered {
    let name = entry.metric.metadata.name.as_deref().unwrap_or_default();
    internal(&format!(
        "ElasticMetric {name}: {}: {}",
        problem.reason, problem.message
    ))
}

/// Whether a path is of `metrics.k8s.io`.
fn is_resource(path: &str) -> bool {
    path.trim_matches('/').split('/').nth(1) == Some(RESOURCE)
}

impl MetricsApi {
    /// Whether the caller may ask; without attributes anybody who is known may.
    async fn permitted(
        &self,
        asked: &Asked<'_>,
        attributes: Option<Attributes>,
    ) -> Result<(), Denied> {
        match attributes {
            Some(attributes) => {
                self.access
                    .check(asked.peer, asked.headers, attributes)
                    .await
            }
            None if self.access.is_known(asked.peer, asked.headers) => Ok(()),
            None => Err(Denied::Unauthorized),
        }
    }

    fn custom_resources(&self, version: CustomVersion) -> Value {
        let mut found: BTreeSet<(GroupResource, String, bool)> = BTreeSet::new();
        for entry in self.source.board.all() {
            if let Some(kind) = &entry.kind {
                let resource = kind.resource();
                let namespaced = !resource.is_namespace();
                found.insert((resource, entry.metric.metric_name(), namespaced));
            }
        }
        if let Some((_, catalog, _)) = self.source.rules() {
            let keys = catalog.custom.keys();
            found
                .extend(keys.map(|key| (key.resource.clone(), key.metric.clone(), key.namespaced)));
        }
        found.extend(self.pushed_resources());
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_cached_key(|(resource, metric, _)| format!("{resource}/{metric}"));
        let entries = found
            .iter()
            .map(|(resource, metric, namespaced)| (resource, metric.as_str(), *namespaced));
        shapes::custom_resources(version, entries)
    }

    fn external_resources(&self) -> Value {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let entries = self
            .source
            .board
            .all()
            .into_iter()
            .filter(|entry| entry.metric.spec.target.is_none());
        names.extend(entries.map(|entry| entry.metric.metric_name()));
        if let Some((_, catalog, _)) = self.source.rules() {
            names.extend(catalog.external.keys().cloned());
        }
        names.extend(self.forecasts.names(Timestamp::now()));
        names.extend(self.pushed_names());
        shapes::external_resources(names.iter().map(String::as_str))
    }

    async fn custom(&self, request: &CustomRequest) -> Result<Content, Answered> {
        let kinds = self.source.kinds();
        let kind = kinds
            .of(&request.resource)
            .ok_or_else(|| no_metric(request))?;
        // A selector is resolved once, for whoever has the metric.
        let names = match &request.name {
            Some(_) => None,
            None => Some(
                self.source
                    .objects
                    .names(kind, request.namespace.as_deref(), &request.objects)
                    .await
                    .map_err(|why| internal(&why))?,
            ),
        };
        let (values, window_seconds) = match self.own(request, names.as_deref())? {
            Some(found) => found,
            None => match self.pushed_values(request, kind, names.as_deref())? {
                Some(found) => (found, None),
                None => (self.by_rules(request, names.as_deref()).await?, None),
            },
        };
        let described = Described {
            kind,
            namespace: request.namespace.as_deref(),
            metric: &request.metric,
            selector: &request.series,
            window_seconds,
        };
        Ok(shapes::custom_values(request.version, &described, &values))
    }

    /// Values of ElasticMetrics; none when no ElasticMetric has the metric.
    fn own(
        &self,
        request: &CustomRequest,
        names: Option<&[String]>,
    ) -> Result<Option<OwnValues>, Answered> {
        let namespace = match (&request.namespace, &request.name) {
            (Some(namespace), _) => namespace,
            (None, Some(name)) if request.resource.is_namespace() => name,
            _ => return Ok(None),
        };
        let mut entries = self
            .source
            .board
            .custom(namespace, &request.resource, &request.metric);
        if let Some(wanted) = &request.name {
            entries.retain(|entry| {
                entry
                    .metric
                    .target_name()
                    .is_none_or(|name| name == *wanted)
            });
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let wanted = |name: &String| match (&request.name, names) {
            (Some(wanted), _) => name == wanted,
            (None, Some(names)) => names.binary_search(name).is_ok(),
            (None, None) => true,
        };
        let mut values = Vec::new();
        for entry in &entries {
            let fixed = entry.metric.target_name();
            if fixed.as_ref().is_some_and(|name| !wanted(name)) {
                continue;
            }
            let reading = entry
                .reading()
                .map_err(|problem| troubled(entry, &problem))?;
            for value in reading
                .values
                .iter()
                .filter(|value| request.series.matches(&value.labels))
            {
                let Some(name) = fixed.clone().or_else(|| value.object.clone()) else {
                    continue;
                };
                if wanted(&name) {
                    values.push(ObjectValue {
                        name,
                        millis: value.millis,
                        at: value.at,
                    });
                }
            }
        }
        if let (true, Some(name)) = (values.is_empty(), &request.name) {
            return Err(no_metric_of(request, name));
        }
        let window = entries
            .iter()
            .find_map(|entry| entry.metric.spec.window_seconds);
        Ok(Some((values, window.map(u64::from))))
    }

    async fn by_rules(
        &self,
        request: &CustomRequest,
        names: Option<&[String]>,
    ) -> Result<Vec<ObjectValue>, Answered> {
        let (config, catalog, prometheus) =
            self.source.rules().ok_or_else(|| no_metric(request))?;
        let key = CustomKey {
            metric: request.metric.clone(),
            resource: request.resource.clone(),
            namespaced: request.namespace.is_some(),
        };
        let found = catalog.custom.get(&key).ok_or_else(|| no_metric(request))?;
        let rule = &config.rules[found.rule];
        let kinds = self.source.kinds();
        let asked = match (&request.name, names) {
            (Some(name), _) => Names::One(name),
            (None, Some([])) => return Ok(Vec::new()),
            (None, Some(names)) => Names::Many(names),
            (None, None) => return Err(no_metric(request)),
        };
        let place = (&request.resource, request.namespace.as_deref(), asked);
        let query = rule.custom_query(&found.series, place, &request.series, &kinds);
        let query = query.map_err(|error| internal(&error.to_string()))?;
        let label = rule
            .objects
            .label_of(&request.resource, &kinds)
            .map_err(|error| internal(&error.to_string()))?;
        let samples = prometheus
            .query(&query, None)
            .await
            .map_err(|error| internal(&error.to_string()))?;
        match &request.name {
            Some(name) => one_value(request, name, &label, samples).map(|value| vec![value]),
            None => Ok(values_by_name(&label, names.unwrap_or_default(), samples)),
        }
    }

    async fn external(&self, request: &ExternalRequest) -> Result<Content, Answered> {
        if let Some(entry) = self
            .source
            .board
            .external(&request.namespace, &request.metric)
        {
            let reading = entry
                .reading()
                .map_err(|problem| troubled(&entry, &problem))?;
            let fitting = reading
                .values
                .iter()
                .filter(|value| request.series.matches(&value.labels));
            let values = fitting.map(|value| SeriesValue {
                labels: value.labels.clone(),
                millis: value.millis,
                at: value.at,
            });
            let values: Vec<SeriesValue> = values.collect();
            let window = entry.metric.spec.window_seconds.map(u64::from);
            return Ok(shapes::external_values(&request.metric, window, &values));
        }
        let forecast = self.forecasts.values(
            &request.namespace,
            &request.metric,
            &request.series,
            Timestamp::now(),
        );
        if let Some(values) = forecast {
            return Ok(shapes::external_values(&request.metric, None, &values));
        }
        if let Some(values) = self.pushed_series(request)? {
            return Ok(shapes::external_values(&request.metric, None, &values));
        }
        self.external_by_rule(request).await
    }

    async fn external_by_rule(&self, request: &ExternalRequest) -> Result<Content, Answered> {
        let missing = || {
            not_found(&format!(
                "the server could not find the metric {} for namespaces {}",
                request.metric, request.namespace
            ))
        };
        let (config, catalog, prometheus) = self.source.rules().ok_or_else(missing)?;
        let found = catalog.external.get(&request.metric).ok_or_else(missing)?;
        let rule = &config.external_rules[found.rule];
        let query = rule.external_query(
            &found.series,
            &request.namespace,
            &request.series,
            &self.source.kinds(),
        );
        let query = query.map_err(|error| internal(&error.to_string()))?;
        let samples = prometheus
            .query(&query, None)
            .await
            .map_err(|error| internal(&error.to_string()))?;
        let values = samples.into_iter().map(|sample| {
            // An autoscaler adds the series up, so one that is no number makes the sum unknown.
            let millis = millis(sample.value)
                .map_err(|error| internal(&format!("a series of {}: {error}", request.metric)))?;
            Ok(SeriesValue {
                millis,
                at: time(sample.at_ms),
                labels: sample.labels,
            })
        });
        let values = values.collect::<Result<Vec<_>, Answered>>()?;
        Ok(shapes::external_values(&request.metric, None, &values))
    }
}

fn time(at_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at_ms).unwrap_or_else(|_| Timestamp::now())
}

/// The value of the one object that was asked for.
fn one_value(
    request: &CustomRequest,
    name: &str,
    label: &str,
    samples: Vec<Sample>,
) -> Result<ObjectValue, Answered> {
    let of_object = samples
        .into_iter()
        .filter(|sample| sample.labels.get(label).is_some_and(|value| value == name));
    let mut best: Option<ObjectValue> = None;
    for sample in of_object {
        let millis = millis(sample.value).map_err(|error| {
            internal(&format!(
                "{} of {} {name}: {error}",
                request.metric, request.resource
            ))
        })?;
        if best.as_ref().is_none_or(|best| best.millis < millis) {
            best = Some(ObjectValue {
                name: name.to_owned(),
                millis,
                at: time(sample.at_ms),
            });
        }
    }
    best.ok_or_else(|| no_metric_of(request, name))
}

/// The values of the objects that were asked for. One without a number has none, and of several the largest counts.
fn values_by_name(label: &str, names: &[String], samples: Vec<Sample>) -> Vec<ObjectValue> {
    let mut best: Vec<Option<(i64, i64)>> = vec![None; names.len()];
    for sample in samples {
        let name = sample.labels.get(label);
        let place = name.and_then(|name| names.binary_search(name).ok());
        let (Some(place), Ok(millis)) = (place, millis(sample.value)) else {
            continue;
        };
        if best[place].is_none_or(|(known, _)| known < millis) {
            best[place] = Some((millis, sample.at_ms));
        }
    }
    let found = names.iter().zip(best).filter_map(|(name, best)| {
        let (millis, at_ms) = best?;
        Some(ObjectValue {
            name: name.clone(),
            millis,
            at: time(at_ms),
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::selector::Selector;

    use super::*;

    fn request(resource: &str, name: Option<&str>) -> CustomRequest {
        CustomRequest {
            version: CustomVersion::V1Beta1,
            namespace: Some("shop".to_owned()),
            resource: GroupResource::parse(resource),
            name: name.map(str::to_owned),
            metric: "hits".to_owned(),
            objects: Selector::default(),
            series: Selector::default(),
        }
    }

    fn sample(pod: &str, value: f64) -> Sample {
        Sample {
            labels: BTreeMap::from([("pod".to_owned(), pod.to_owned())]),
            value,
            at_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn errors_have_the_words_that_autoscalers_know() {
        let message = |answered: Answered| answered.1["message"].as_str().unwrap().to_owned();
        assert_eq!(
            message(no_metric(&request("pods", None))),
            "the server could not find the metric hits for pods"
        );
        let missing = one_value(
            &request("services", Some("web")),
            "web",
            "service",
            Vec::new(),
        )
        .unwrap_err();
        assert_eq!(missing.0, StatusCode::NOT_FOUND);
        assert_eq!(
            message(missing),
            "the server could not find the metric hits for services web"
        );
    }

    #[test]
    fn what_is_no_number_is_an_error_for_one_and_missing_among_many() {
        let one = one_value(
            &request("pods", Some("a")),
            "a",
            "pod",
            vec![sample("a", f64::NAN)],
        );
        assert_eq!(one.unwrap_err().0, StatusCode::INTERNAL_SERVER_ERROR);
        let names = ["a".to_owned(), "b".to_owned()];
        let samples = vec![
            sample("a", f64::NAN),
            sample("b", 1.0),
            sample("b", 3.0),
            sample("c", 9.0),
        ];
        let values = values_by_name("pod", &names, samples);
        assert_eq!(
            values
                .iter()
                .map(|value| (value.name.as_str(), value.millis))
                .collect::<Vec<_>>(),
            [("b", 3_000)]
        );
    }

    #[test]
    fn rights_are_asked_for_as_the_api_server_takes_paths_apart() {
        let ask = |path: &str| attributes(&question(path, "").unwrap()).unwrap();
        let pods = ask("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/rps");
        assert_eq!(
            (
                pods.verb,
                pods.resource.as_str(),
                pods.subresource.as_str(),
                pods.name.as_str()
            ),
            ("get", "pods", "rps", "*")
        );
        let namespace = ask("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/metrics/rps");
        assert_eq!(
            (
                namespace.resource.as_str(),
                namespace.name.as_str(),
                namespace.namespace.as_str()
            ),
            ("metrics", "rps", "shop")
        );
        let external = ask("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue");
        assert_eq!(
            (external.verb, external.resource.as_str()),
            ("list", "queue")
        );
    }
}

//! From a path and a query to an answer of `metrics.k8s.io/v1beta1`. Pure apart from reading the board.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elastic_core::names::POD_MOMENTS_ANNOTATION;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::prometheus::PrometheusUsage;
use super::samples::{Board, Labels, NodeUsage, PodUsage, Usage};
use crate::custom::access::Attributes;
use crate::selector::{Selector, decode};
use crate::serve::{Answer, Asked, Content};
use crate::status::{failure, not_found, ok};

const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

/// The group's name.
pub(crate) const RESOURCE: &str = "metrics.k8s.io";

/// Answers from the board.
pub(crate) struct ResourceMetrics {
    pub(crate) board: Arc<Board>,
    /// What is older is not shown.
    pub(crate) stale_after: Duration,
    /// Who fills the board when somebody asks; none when it is filled all the time.
    pub(crate) prometheus: Option<PrometheusUsage>,
}

impl ResourceMetrics {
    /// The answer to a GET.
    pub(crate) async fn tree(&self, asked: &Asked<'_>) -> (StatusCode, Value) {
        if let (Some(prometheus), Some(object)) = (&self.prometheus, object(asked.path))
            && let Err(why) = prometheus.refresh(&object.about).await
        {
            let message = format!("Internal error occurred: unable to fetch metrics: {why}");
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message);
        }
        let age = SignedDuration::try_from(self.stale_after).unwrap_or(SignedDuration::MAX);
        let oldest = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
        answer(&self.board, asked.path, asked.query, oldest)
    }
}

#[async_trait]
impl Answer for ResourceMetrics {
    async fn answer(&self, asked: Asked<'_>) -> (StatusCode, Content) {
        let (code, tree) = self.tree(&asked).await;
        (code, tree.into())
    }
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Nodes,
    /// Of a namespace, or of all.
    Pods(Option<&'a str>),
}

/// What a path asks for.
struct Object<'a> {
    about: About<'a>,
    name: Option<&'a str>,
}

fn object(path: &str) -> Option<Object<'_>> {
    let path = path
        .trim_matches('/')
        .strip_prefix("apis/metrics.k8s.io/v1beta1/")?;
    let parts: Vec<&str> = path.split('/').collect();
    let (about, name) = match parts.as_slice() {
        ["nodes"] => (About::Nodes, None),
        ["nodes", name] => (About::Nodes, Some(*name)),
        ["pods"] => (About::Pods(None), None),
        ["namespaces", namespace, "pods"] => (About::Pods(Some(namespace)), None),
        ["namespaces", namespace, "pods", name] => (About::Pods(Some(namespace)), Some(*name)),
        _ => return None,
    };
    Some(Object { about, name })
}

/// What the cluster's rules are asked about a path; none for discovery.
pub(crate) fn attributes(path: &str) -> Option<Attributes> {
    let Object { about, name } = object(path)?;
    let (resource, namespace) = match about {
        About::Nodes => ("nodes", ""),
        About::Pods(namespace) => ("pods", namespace.unwrap_or_default()),
    };
    Some(Attributes {
        verb: if name.is_some() { "get" } else { "list" },
        group: RESOURCE,
        version: "v1beta1",
        namespace: namespace.to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        name: name.unwrap_or_default().to_owned(),
    })
}

/// Answers a GET.
fn answer(board: &Board, path: &str, query: &str, oldest: Timestamp) -> (StatusCode, Value) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis"] => ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
        ["apis", "metrics.k8s.io"] => ok(group()),
        ["apis", "metrics.k8s.io", "v1beta1", rest @ ..] => resource(board, rest, query, oldest),
        _ => not_found(&format!("the path {path} is not served here")),
    }
}

fn resource(board: &Board, rest: &[&str], query: &str, oldest: Timestamp) -> (StatusCode, Value) {
    let filter = match Filter::parse(query) {
        Ok(filter) => filter,
        Err(message) => return failure(StatusCode::BAD_REQUEST, "BadRequest", &message),
    };
    match rest {
        [] => ok(resources()),
        ["nodes"] => {
            let nodes = board.nodes(|name, labels| filter.fits(None, name, labels), oldest);
            ok(list(
                "NodeMetricsList",
                nodes.iter().map(node_metrics).collect(),
            ))
        }
        ["nodes", name] => {
            let nodes = board.nodes(|node, _| node == *name, oldest);
            one("nodes", name, nodes.first().map(node_metrics))
        }
        ["pods"] => pods(board, None, &filter, oldest),
        ["namespaces", namespace, "pods"] => pods(board, Some(namespace), &filter, oldest),
        ["namespaces", namespace, "pods", name] => {
            let pods = board.pods(|key, _| key.0 == *namespace && key.1 == *name, oldest);
            one("pods", name, pods.first().map(pod_metrics))
        }
        _ => not_found("the server could not find the requested resource"),
    }
}

fn pods(
    board: &Board,
    namespace: Option<&str>,
    filter: &Filter,
    oldest: Timestamp,
) -> (StatusCode, Value) {
    let wanted = |key: &(String, String), labels: &Labels| {
        namespace.is_none_or(|namespace| key.0 == namespace)
            && filter.fits(Some(&key.0), &key.1, labels)
    };
    let pods = board.pods(wanted, oldest);
    ok(list(
        "PodMetricsList",
        pods.iter().map(pod_metrics).collect(),
    ))
}

/// `labelSelector` and `fieldSelector` of a list.
struct Filter {
    labels: Selector,
    fields: Vec<(String, String)>,
}

impl Filter {
    fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Self {
            labels: Selector::default(),
            fields: Vec::new(),
        };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decode(value, true);
            match name {
                "labelSelector" if !value.is_empty() => filter.labels = Selector::parse(&value)?,
                "fieldSelector" => {
                    for pair in value.split(',').filter(|pair| !pair.is_empty()) {
                        let (field, wanted) = pair
                            .split_once("==")
                            .or_else(|| pair.split_once('='))
                            .ok_or_else(|| format!("field selector {pair:?} is not understood"))?;
                        filter.fields.push((field.to_owned(), wanted.to_owned()));
                    }
                }
                _ => {}
            }
        }
        Ok(filter)
    }

    fn fits(&self, namespace: Option<&str>, name: &str, labels: &Labels) -> bool {
        self.labels.matches(labels)
            && self
                .fields
                .iter()
                .all(|(field, wanted)| match field.as_str() {
                    "metadata.name" => name == wanted,
                    "metadata.namespace" => namespace == Some(wanted),
                    _ => false,
                })
    }
}

fn group() -> Value {
    let version = json!({"groupVersion": GROUP_VERSION, "version": "v1beta1"});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "metrics.k8s.io",
        "versions": [version], "preferredVersion": version
    })
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION,
        "resources": [
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]}
        ]
    })
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": GROUP_VERSION, "metadata": {}, "items": items})
}

fn usage(usage: &Usage) -> Value {
    // Memory in whole KiB, as metrics-server writes it.
    json!({"cpu": format!("{}n", usage.cpu_nanos), "memory": format!("{}Ki", usage.memory_bytes / 1024)})
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn window(seconds: f64) -> String {
    format!("{seconds}s")
}

fn node_metrics(node: &NodeUsage) -> Value {
    json!({
        "kind": "NodeMetrics", "apiVersion": GROUP_VERSION,
        "metadata": {"name": node.name, "labels": node.labels, "creationTimestamp": time(node.usage.at)},
        "timestamp": time(node.usage.at), "window": window(node.usage.window_seconds), "usage": usage(&node.usage)
    })
}

fn pod_metrics(pod: &PodUsage) -> Value {
    let at = pod
        .containers
        .iter()
        .map(|(_, usage)| usage.at)
        .min()
        .unwrap_or_default();
    let seconds = pod
        .containers
        .iter()
        .map(|(_, usage)| usage.window_seconds)
        .fold(0.0, f64::max);
    // Times of the API have whole seconds; where the seconds of a burst went needs finer ones.
    let moments = serde_json::to_string(&pod.moments).unwrap_or_default();
    let container = |(name, used): &(String, Usage)| json!({"name": name, "usage": usage(used)});
    let containers: Vec<Value> = pod.containers.iter().map(container).collect();
    json!({
        "kind": "PodMetrics", "apiVersion": GROUP_VERSION,
        "metadata": {
            "name": pod.key.1, "namespace": pod.key.0, "labels": pod.labels, "creationTimestamp": time(at),
            "annotations": {POD_MOMENTS_ANNOTATION: moments}
        },
        "timestamp": time(at), "window": window(seconds), "containers": containers
    })
}

fn one(resource: &str, name: &str, found: Option<Value>) -> (StatusCode, Value) {
    match found {
        Some(value) => ok(value),
        None => not_found(&format!("{resource}.metrics.k8s.io \"{name}\" not found")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use elastic_core::timeline::SampleMoments;

    use super::*;

    fn board() -> Board {
        let board = Board::default();
        let labels = |app: &str| Labels::from([("app".into(), app.into())]);
        for (name, app) in [("web-1", "web"), ("web-2", "web"), ("db-1", "db")] {
            board.put_pod(("shop".into(), name.into()), labels(app));
        }
        board.keep_nodes(HashMap::from([("worker-1".into(), labels("node"))]));
        for second in [0u32, 1] {
            let text: String = ["web-1", "web-2", "db-1"]
                .iter()
                .map(|pod| {
                    let key = format!("{{container=\"c\",namespace=\"shop\",pod=\"{pod}\"}}");
                    let cpu = f64::from(second) / 4.0;
                    format!("container_cpu_usage_seconds_total{key} {cpu}\ncontainer_memory_working_set_bytes{key} 2048\n")
                })
                .collect();
            let text = format!(
                "{text}node_cpu_usage_seconds_total {second}\nnode_memory_working_set_bytes 4096\n"
            );
            board.take(
                "worker-1",
                &text,
                Timestamp::from_second(1_000 + i64::from(second)).unwrap(),
            );
        }
        board
    }

    fn get(path: &str, query: &str) -> (StatusCode, Value) {
        answer(&board(), path, query, Timestamp::UNIX_EPOCH)
    }

    fn names(value: &Value) -> Vec<&str> {
        value["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn pods_are_listed_by_namespace_and_selector() {
        let (_, all) = get("/apis/metrics.k8s.io/v1beta1/pods", "");
        assert_eq!(names(&all), ["db-1", "web-1", "web-2"]);
        let (_, web) = get(
            "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods",
            "labelSelector=app%3Dweb&limit=500",
        );
        assert_eq!(names(&web), ["web-1", "web-2"]);
        assert_eq!(web["kind"], "PodMetricsList");
        let usage = &web["items"][0]["containers"][0]["usage"];
        assert_eq!(
            elastic_core::quantity::millis(usage["cpu"].as_str().unwrap()),
            Ok(250)
        );
        assert_eq!(usage["memory"], "2Ki");
        assert_eq!(web["items"][0]["window"], "1s");
        let moments = &web["items"][0]["metadata"]["annotations"][POD_MOMENTS_ANNOTATION];
        let moments: Vec<SampleMoments> = serde_json::from_str(moments.as_str().unwrap()).unwrap();
        assert!(moments.iter().all(|one| one.sampled <= one.reported) && !moments.is_empty());
        assert_eq!(
            names(&get("/apis/metrics.k8s.io/v1beta1/namespaces/other/pods", "").1),
            [""; 0]
        );
    }

    #[test]
    fn every_form_of_a_selector_is_understood() {
        let cases = [
            ("app in (web,db),app!=db", vec!["web-1", "web-2"]),
            ("app notin (web)", vec!["db-1"]),
            ("!app", vec![]),
            ("app", vec!["db-1", "web-1", "web-2"]),
            ("app==db", vec!["db-1"]),
        ];
        for (selector, wanted) in cases {
            let query = format!(
                "labelSelector={}",
                selector.replace(' ', "+").replace('=', "%3D")
            );
            assert_eq!(
                names(&get("/apis/metrics.k8s.io/v1beta1/pods", &query).1),
                wanted,
                "{selector}"
            );
        }
        assert_eq!(
            get("/apis/metrics.k8s.io/v1beta1/pods", "labelSelector=a+b+c").0,
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn the_cluster_is_asked_about_what_the_path_names() {
        let asked = |path: &str| {
            let asked = attributes(&format!("/apis/metrics.k8s.io/v1beta1{path}"))?;
            Some([
                asked.verb.to_owned(),
                asked.resource,
                asked.namespace,
                asked.name,
            ])
        };
        assert_eq!(
            asked("/namespaces/shop/pods/web-1").unwrap(),
            ["get", "pods", "shop", "web-1"]
        );
        assert_eq!(
            asked("/namespaces/shop/pods").unwrap(),
            ["list", "pods", "shop", ""]
        );
        assert_eq!(asked("/pods").unwrap(), ["list", "pods", "", ""]);
        assert_eq!(asked("/nodes/one").unwrap(), ["get", "nodes", "", "one"]);
        assert_eq!(asked(""), None);
        assert_eq!(asked("/secrets"), None);
    }

    #[test]
    fn single_objects_and_discovery() {
        let (code, node) = get("/apis/metrics.k8s.io/v1beta1/nodes/worker-1", "");
        assert_eq!(
            (code, &node["usage"]),
            (
                StatusCode::OK,
                &json!({"cpu": "1000000000n", "memory": "4Ki"})
            )
        );
        let (code, missing) = get("/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/none", "");
        assert_eq!(
            (code, &missing["reason"]),
            (StatusCode::NOT_FOUND, &json!("NotFound"))
        );
        let (_, resources) = get("/apis/metrics.k8s.io/v1beta1", "");
        assert_eq!(resources["resources"].as_array().unwrap().len(), 2);
        assert_eq!(get("/nowhere", "").0, StatusCode::NOT_FOUND);
    }
}

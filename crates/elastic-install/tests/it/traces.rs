//! Traces: what a collector receives from a running replica, and that nobody misses one that is away.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::operator::ask;
use crate::support::{NODE, Replica, Scene, eventually};

/// What came: path, headers that matter, body.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    authorization: String,
    content_type: String,
    body: Value,
}

/// A collector on loopback that answers everything with one status.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let into = received.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let into = into.clone();
                let service = hyper::service::service_fn(move |request| {
                    let into = into.clone();
                    async move { Ok::<_, Infallible>(take(request, &into, status).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            url,
            received,
            serving,
        }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Spans of one trace, as they came.
    fn spans(&self, trace: &str) -> Vec<Value> {
        let received = self.received();
        let scopes = received
            .iter()
            .map(|request| &request.body["resourceSpans"][0]["scopeSpans"][0]["spans"]);
        scopes
            .flat_map(|spans| spans.as_array().unwrap().clone())
            .filter(|span| span["traceId"] == trace)
            .collect()
    }
}

async fn take(
    request: Request<Incoming>,
    into: &Mutex<Vec<Received>>,
    status: u16,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name: &str| {
        let value = parts.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    into.lock().unwrap().push(Received {
        path: parts.uri.path().to_owned(),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: serde_json::from_slice(&body).unwrap(),
    });
    let answer = Response::builder().status(status);
    answer.body(Full::new(Bytes::from_static(b"{}"))).unwrap()
}

async fn replica(scene: &Scene, variables: &[(&str, &str)]) -> Replica {
    let replica = scene
        .replica("only", |config| {
            let variables = variables.iter();
            let variables = variables.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            config.environment.extend(variables);
        })
        .await;
    scene.leads("only").await;
    replica
}

/// Name of the pod's trace.
async fn trace(scene: &Scene, pod: &str) -> (String, String) {
    let uid = scene.pods().get(pod).await.unwrap().uid().unwrap();
    (uid.replace('-', ""), uid)
}

fn find<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    spans.iter().find(|span| span["name"] == name).unwrap()
}

fn has(spans: &[Value], names: &[&str]) -> bool {
    let named = |name: &&str| spans.iter().any(|span| span["name"] == **name);
    names.iter().all(named)
}

fn attribute(of: &Value, key: &str) -> Value {
    let attributes = of["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.map_or(Value::Null, |attribute| attribute["value"].clone())
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

const WAY: [&str; 7] = [
    "pod",
    "CreateContainerGroup",
    "schedule",
    "create",
    "pull",
    "start",
    "ready",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_one_trace_with_its_stages_and_the_calls_about_it() {
    let scene = Scene::start().await;
    let collector = Collector::start(200).await;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x");
    let replica = replica(&scene, &[endpoint, headers]).await;
    scene.create_pod("web-1", NODE).await;
    scene.runs("web-1").await;
    let (id, uid) = trace(&scene, "web-1").await;
    let look = async || collector.spans(&id);
    let spans = eventually("spans of the pod's way", look, |spans| has(spans, &WAY)).await;
    let root = find(&spans, "pod");
    assert_eq!(root.get("parentSpanId"), None);
    let group = &scene.groups().await[0];
    for (key, wanted) in [
        ("k8s.pod.name", "web-1"),
        ("k8s.namespace.name", "default"),
        ("k8s.pod.uid", &uid),
        ("springtide.container_group.id", &group.container_group_id),
        ("cloud.availability_zone", &group.zone_id),
    ] {
        assert_eq!(attribute(root, key)["stringValue"], wanted, "{root}");
    }
    for name in &WAY[1..] {
        let span = find(&spans, name);
        assert_eq!(span["parentSpanId"], root["spanId"], "{span}");
        let (from, to) = (&span["startTimeUnixNano"], &span["endTimeUnixNano"]);
        assert!(number(from) <= number(to), "{span}");
    }
    let call = find(&spans, "CreateContainerGroup");
    assert_eq!(
        attribute(call, "springtide.cloud.code")["stringValue"],
        "OK"
    );
    assert_eq!(
        attribute(call, "http.response.status_code")["intValue"],
        "200"
    );
    assert_eq!(call["kind"], 3);
    let mut ids: Vec<_> = spans.iter().map(|span| span["spanId"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "each span once: {spans:#?}");
    let pods = scene.pods();
    pods.delete("web-1", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the deletion's span", look, |spans| {
        has(spans, &["DeleteContainerGroup"])
    })
    .await;
    for request in collector.received() {
        assert_eq!(request.path, "/v1/traces");
        assert_eq!(request.authorization, "Bearer x");
        assert_eq!(request.content_type, "application/json");
        let resource = &request.body["resourceSpans"][0]["resource"];
        let service = attribute(resource, "service.name");
        assert_eq!(service["stringValue"], "springtide");
    }
    scene.create_pod("web-2", NODE).await;
    scene.runs("web-2").await;
    let (id, _) = trace(&scene, "web-2").await;
    replica.stop().await;
    let spans = collector.spans(&id);
    assert!(has(&spans, &["CreateContainerGroup"]), "sent at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collectors_that_are_away_or_refuse_or_cannot_be_named_harm_nothing() {
    let scene = Scene::start().await;
    let refusing = Collector::start(400).await;
    for (number, endpoint) in [refusing.url.as_str(), "http://127.0.0.1:1"]
        .into_iter()
        .enumerate()
    {
        let variable = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let replica = replica(&scene, &[variable]).await;
        let name = format!("web-{number}");
        scene.create_pod(&name, NODE).await;
        scene.runs(&name).await;
        let look = async || ask(replica.health, "/metrics").await;
        eventually("dropped spans are counted", look, |text| {
            let mut lines = text.lines();
            let dropped =
                lines.find_map(|line| line.strip_prefix("springtide_trace_spans_dropped_total "));
            dropped.is_some_and(|count| count != "0")
                && text.contains("springtide_trace_spans_exported_total 0\n")
        })
        .await;
        replica.stop().await;
    }
    assert!(!refusing.received().is_empty());
    for (number, variables) in [&[][..], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense")]]
        .into_iter()
        .enumerate()
    {
        let replica = replica(&scene, variables).await;
        let name = format!("plain-{number}");
        scene.create_pod(&name, NODE).await;
        scene.runs(&name).await;
        let text = ask(replica.health, "/metrics").await;
        assert!(!text.contains("springtide_trace_spans"), "{text}");
        replica.stop().await;
    }
}

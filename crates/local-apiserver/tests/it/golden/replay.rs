//! Sends a scenario's requests in their order and compares the answers.

use super::exchange::{Exchange, Scenario};
use super::mask::{self, Translation, difference, mask};
use base64::Engine;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyDataStream, BodyExt};
use kube::client::Body;
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// The outcome of one exchange.
pub struct Outcome {
    pub number: u64,
    pub title: String,
    pub difference: Option<String>,
}

/// An answer in the recording's form.
struct Answer {
    status: u64,
    headers: Value,
    tag: Option<String>,
    body: Value,
}

struct Running {
    exchange: Exchange,
    task: JoinHandle<Answer>,
    stop: tokio::sync::watch::Sender<usize>,
    ends: Instant,
}

pub struct Replay {
    server: TestServer,
    translation: Translation,
    running: Vec<Running>,
    outcomes: Vec<Outcome>,
}

const HEADERS: &[&str] = &[
    "Content-Type",
    "Warning",
    "Retry-After",
    "Vary",
    "Cache-Control",
    "Location",
    "Allow",
];
/// No watch is waited for longer.
const LONGEST_WATCH: u64 = 5;

pub async fn replay(scenario: &Scenario) -> Vec<Outcome> {
    let mut replay = Replay::start().await;
    replay.prepare(scenario).await;
    let reset = scenario.area == "patch"
        && (scenario.name.starts_with("strategic-") || scenario.name == "json-patch");
    for exchange in &scenario.exchanges {
        if scenario.name == "expired" && exchange.number == 9 {
            replay.server.server.compact();
        }
        replay.before(exchange).await;
        if reset && exchange.method == "PATCH" {
            replay.recreate(&scenario.exchanges[0], exchange).await;
        }
        replay.step(exchange).await;
    }
    replay.finish().await;
    replay.outcomes.sort_by_key(|outcome| outcome.number);
    replay.outcomes
}

impl Replay {
    /// With a server of its own.
    pub async fn start() -> Self {
        Self {
            server: TestServer::start().await,
            translation: Translation::default(),
            running: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// The nodes of the recording, without anything that runs on them.
    pub async fn make_nodes(&self) {
        for (name, zone) in [
            ("node-a", "zone-1"),
            ("node-b", "zone-2"),
            ("node-c", "zone-1"),
        ] {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}});
            self.raw("POST", "/api/v1/nodes", &[], &node).await;
        }
    }

    async fn prepare(&self, scenario: &Scenario) {
        self.make_nodes().await;
        for namespace in [scenario.namespace.as_str(), "shop"] {
            if namespace.is_empty() {
                continue;
            }
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            self.raw("POST", "/api/v1/namespaces", &[], &object).await;
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            self.raw(
                "POST",
                &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
                &[],
                &account,
            )
            .await;
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "annotations": {
                "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
                "data": {"ca.crt": "x"}});
            self.raw(
                "POST",
                &format!("/api/v1/namespaces/{namespace}/configmaps"),
                &[],
                &map,
            )
            .await;
        }
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &Value,
    ) -> Answer {
        let mut all = headers.to_vec();
        if !all
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
        {
            all.push(("User-Agent".into(), "golden-client/1.0".into()));
        }
        let response = self.send(method, path, &all, body, None).await;
        read(response).await
    }

    /// As the recording's user of that name.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &Value,
        user: Option<&str>,
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let bytes = match body {
            Value::Null => Vec::new(),
            Value::Object(map) if map.len() == 1 && map.contains_key("text") => {
                map["text"].as_str().unwrap().as_bytes().to_vec()
            }
            Value::Object(map) if map.len() == 1 && map.contains_key("base64") => {
                base64::engine::general_purpose::STANDARD
                    .decode(map["base64"].as_str().unwrap())
                    .unwrap()
            }
            other => other.to_string().into_bytes(),
        };
        let groups: &[&str] = match user {
            None | Some("admin") => &["system:masters", "system:authenticated"],
            Some("alice") => &["dev", "qa", "system:authenticated"],
            _ => &["system:authenticated"],
        };
        let client = self
            .server
            .server
            .client_as(user.unwrap_or("admin"), groups);
        client
            .send(request.body(Body::from(bytes)).unwrap())
            .await
            .unwrap()
    }

    /// Lets watches end that the recording saw end before this write.
    async fn before(&mut self, exchange: &Exchange) {
        if !exchange.is_write() {
            return;
        }
        let mut index = 0;
        while index < self.running.len() {
            let one = &self.running[index];
            let short = one.exchange.stream == "server"
                && one
                    .exchange
                    .watch_seconds()
                    .is_some_and(|seconds| seconds <= 2);
            if short {
                let one = self.running.remove(index);
                self.end(one).await;
            } else {
                index += 1;
            }
        }
    }

    async fn recreate(&self, first: &Exchange, patch: &Exchange) {
        let mut path = patch.path.split('?').next().unwrap_or_default().to_string();
        let parts = path.matches('/').count();
        let name_at = if path.starts_with("/apis/") { 7 } else { 6 };
        if parts > name_at {
            path = path
                .rsplit_once('/')
                .map(|(head, _)| head.to_string())
                .unwrap_or(path);
        }
        self.raw("DELETE", &path, &[], &json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": 0})).await;
        self.raw(&first.method, &first.path, &first.headers, &first.body)
            .await;
    }

    async fn step(&mut self, exchange: &Exchange) {
        let mut path = self.translation.path(&exchange.path);
        if let Some((document, hash)) = path.split_once("?hash=")
            && hash != "WRONG"
        {
            path = self
                .document_url(document)
                .await
                .unwrap_or_else(|| path.clone());
        }
        if exchange.area == "tables" {
            self.make_shown(exchange).await;
        }
        let body = if exchange.body.get("text").is_some() {
            exchange.body.clone()
        } else {
            exchange.in_order(self.translation.body(&exchange.body))
        };
        let mut headers = exchange.headers.clone();
        headers.push(("User-Agent".into(), "golden-client/1.0".into()));
        for (_, value) in &mut headers {
            *value = self.translation.text(value).to_string();
        }
        if !exchange.stream.is_empty() {
            let response = self
                .send(
                    &exchange.method,
                    &path,
                    &headers,
                    &body,
                    exchange.user.as_deref(),
                )
                .await;
            self.start_stream(exchange, response);
            return;
        }
        let started = Instant::now();
        let deadline = started + Duration::from_millis(if exchange.poll { 300 } else { 0 });
        loop {
            let response = self
                .send(
                    &exchange.method,
                    &path,
                    &headers,
                    &body,
                    exchange.user.as_deref(),
                )
                .await;
            let answer = read(response).await;
            let found = compare(exchange, &answer);
            // The recorder waited here for a deletion to end.
            let leaving = exchange.status != 409
                && answer.body["message"]
                    .as_str()
                    .is_some_and(|text| text.starts_with("object is being deleted"));
            let deadline = if leaving {
                started + Duration::from_secs(1)
            } else {
                deadline
            };
            if found.is_none() || Instant::now() >= deadline {
                if let (Some(recorded), Some(actual)) =
                    (exchange.response_headers["ETag"].as_str(), &answer.tag)
                {
                    self.translation.learn_text(recorded, actual);
                }
                self.translation.learn(&exchange.response, &answer.body);
                self.record(exchange, found);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The document's own address in this server's index.
    async fn document_url(&self, document: &str) -> Option<String> {
        let index = self.raw("GET", "/openapi/v3", &[], &Value::Null).await;
        let name = document.strip_prefix("/openapi/v3/")?;
        index.body["paths"][name]["serverRelativeURL"]
            .as_str()
            .map(str::to_string)
    }

    /// The recorder made objects that later answers show: make the one in this answer, with its status.
    async fn make_shown(&self, exchange: &Exchange) {
        let shown = &exchange.response;
        let meta = &shown["metadata"];
        let path = exchange.path.split('?').next().unwrap_or_default();
        let known = self.raw("GET", path, &[], &Value::Null).await.status == 200;
        if exchange.method != "GET"
            || exchange.status != 200
            || known
            || !meta["uid"].is_string()
            || shown["kind"] == "PartialObjectMetadata"
        {
            return;
        }
        let mut object = shown.clone();
        object["metadata"] = json!({"name": meta["name"]});
        for field in ["namespace", "labels", "annotations", "finalizers"] {
            if !meta[field].is_null() {
                object["metadata"][field] = meta[field].clone();
            }
        }
        let status = object
            .as_object_mut()
            .and_then(|map| map.remove("status"))
            .unwrap_or(Value::Null);
        let (collection, _) = path.rsplit_once('/').unwrap_or_default();
        self.raw("POST", collection, &[], &object).await;
        let merge = vec![(
            "Content-Type".to_string(),
            "application/merge-patch+json".to_string(),
        )];
        self.raw(
            "PATCH",
            &format!("{path}/status"),
            &merge,
            &json!({"status": status}),
        )
        .await;
        if meta["deletionTimestamp"].is_string() {
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": meta["deletionGracePeriodSeconds"]});
            self.raw("DELETE", path, &[], &options).await;
        }
    }

    fn record(&mut self, exchange: &Exchange, difference: Option<String>) {
        if exchange.setup {
            return;
        }
        self.outcomes.push(Outcome {
            number: exchange.number,
            title: format!("{} | {} {}", exchange.note, exchange.method, exchange.path),
            difference,
        });
    }

    fn start_stream(&mut self, exchange: &Exchange, response: Response<Body>) {
        let seconds = exchange.watch_seconds().unwrap_or(1).min(LONGEST_WATCH);
        let (stop, stopped) = tokio::sync::watch::channel(usize::MAX);
        self.running.push(Running {
            exchange: exchange.clone(),
            task: tokio::spawn(collect(response, stopped)),
            stop,
            ends: Instant::now() + Duration::from_secs(seconds) + Duration::from_millis(500),
        });
    }

    async fn end(&mut self, running: Running) {
        let Running {
            exchange,
            mut task,
            stop,
            ends,
        } = running;
        let wanted = exchange
            .response
            .as_array()
            .map_or(0, |list| list.iter().filter(|one| counts(one)).count());
        let answer = if exchange.stream == "server" {
            match tokio::time::timeout_at(ends, &mut task).await {
                Ok(answer) => answer.unwrap(),
                Err(_) => {
                    let _ = stop.send(0);
                    task.await.unwrap()
                }
            }
        } else {
            // The client leaves when it has seen what the recording saw, and a little later to catch what is too much.
            let _ = stop.send(wanted);
            match timeout(Duration::from_millis(700), &mut task).await {
                Ok(answer) => answer.unwrap(),
                Err(_) => {
                    let _ = stop.send(0);
                    task.await.unwrap()
                }
            }
        };
        let found = compare(&exchange, &answer);
        self.record(&exchange, found);
    }

    async fn finish(&mut self) {
        for one in std::mem::take(&mut self.running) {
            self.end(one).await;
        }
    }
}

/// Bookmarks depend on time, but for the one that ends the initial events.
fn counts(event: &Value) -> bool {
    event["type"] != "BOOKMARK" || event["object"]["metadata"]["annotations"].is_object()
}

async fn collect(
    response: Response<Body>,
    mut stop: tokio::sync::watch::Receiver<usize>,
) -> Answer {
    let (parts, body) = response.into_parts();
    let mut chunks = BodyDataStream::new(body);
    let mut text = Vec::new();
    loop {
        tokio::select! {
            chunk = chunks.next() => match chunk {
                Some(Ok(chunk)) => text.extend_from_slice(&chunk),
                _ => break,
            },
            changed = stop.changed() => if changed.is_err() { break },
        }
        let wanted = *stop.borrow();
        if wanted == 0
            || (wanted != usize::MAX
                && lines(&text).iter().filter(|one| counts(one)).count() >= wanted)
        {
            break;
        }
    }
    Answer {
        status: parts.status.as_u16().into(),
        headers: header_map(&parts.headers),
        tag: parts
            .headers
            .get("etag")
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_string),
        body: lines(&text).into(),
    }
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .filter(|line| !line.is_empty())
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn header_map(headers: &http::HeaderMap) -> Value {
    let mut map = serde_json::Map::new();
    for name in HEADERS {
        let values: Vec<&str> = headers
            .get_all(*name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        match values.as_slice() {
            [] => {}
            list if *name == "Warning" => {
                map.insert((*name).into(), sorted(&json!(list)));
            }
            list => {
                map.insert((*name).into(), list.join(", ").into());
            }
        }
    }
    map.into()
}

async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = timeout(Duration::from_secs(10), body.collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
    };
    Answer {
        status: parts.status.as_u16().into(),
        headers: header_map(&parts.headers),
        tag: parts
            .headers
            .get("etag")
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_string),
        body,
    }
}

fn compare(exchange: &Exchange, answer: &Answer) -> Option<String> {
    if exchange.unstable == "status" {
        return None;
    }
    if exchange.status != answer.status {
        return Some(format!(
            "status: wanted {}, found {}: {}",
            exchange.status,
            answer.status,
            answer
                .body
                .to_string()
                .chars()
                .take(500)
                .collect::<String>()
        ));
    }
    if exchange.unstable == "body" {
        return None;
    }
    let events = |list: &Value| -> Value {
        match list {
            Value::Array(list) => list.iter().filter(|one| counts(one)).cloned().collect(),
            other => other.clone(),
        }
    };
    let (wanted, found) = if exchange.stream.is_empty() {
        let mut wanted = mask(&exchange.response);
        let mut found = mask(&answer.body);
        if exchange.area == "discovery" {
            mask::served_only(&mut wanted, &found);
        }
        if exchange.area == "tables" {
            // The recorder's own preparations are not in the file; who owns what differs.
            forget_owners(&mut wanted);
            forget_owners(&mut found);
        }
        (wanted, found)
    } else {
        (
            mask(&events(&exchange.response)),
            mask(&events(&answer.body)),
        )
    };
    if let Some(found) = difference("", &wanted, &found) {
        return Some(found);
    }
    let mut wanted = serde_json::Map::new();
    for name in HEADERS {
        if let Some(value) = exchange.response_headers.get(*name) {
            wanted.insert((*name).into(), sorted(value));
        }
    }
    difference("headers", &wanted.into(), &answer.headers)
}

/// Warnings come in the order of the fields in the text, which the recording does not keep.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(list) = value.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
    value
}

fn forget_owners(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.remove("generation");
            map.values_mut().for_each(forget_owners);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_owners),
        _ => {}
    }
}

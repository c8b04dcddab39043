//! As much of a Kubernetes API as the virtual node asks for, in memory and without chance: objects by path, merge patches,
//! watches from a version on. Pods are deleted in two steps, as on a real server.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Resource, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
pub struct MemoryApi {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    uids: u64,
    objects: BTreeMap<Key, Value>,
    /// Everything that ever happened, for watches that begin in the past.
    happened: Vec<Happened>,
    /// Watches from before this version are refused.
    compacted: u64,
    watches: Vec<Watch>,
}

#[derive(Clone)]
struct Happened {
    version: u64,
    kind: &'static str,
    key: Key,
    object: Value,
}

struct Watch {
    question: Question,
    sender: mpsc::UnboundedSender<Bytes>,
}

/// What a path and a query ask for.
#[derive(Clone, Debug)]
struct Question {
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    query: Vec<(String, String)>,
}

impl Question {
    fn read(request: &http::request::Parts) -> Option<Self> {
        let path = request.uri.path();
        let rest = match path.strip_prefix("/api/v1/") {
            Some(rest) => rest,
            None => path.strip_prefix("/apis/")?.splitn(3, '/').nth(2)?,
        };
        let mut parts = rest.split('/');
        let mut resource = parts.next()?;
        let mut namespace = None;
        if resource == "namespaces" {
            namespace = Some(parts.next()?.to_owned());
            resource = parts.next()?;
        }
        let query = request.uri.query().unwrap_or_default();
        Some(Self {
            resource: resource.to_owned(),
            namespace,
            name: parts.next().map(str::to_owned),
            query: cloud_api::encoding::parse_form(query).ok()?,
        })
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn key(&self) -> Option<Key> {
        let namespace = self.namespace.clone().unwrap_or_default();
        Some((self.resource.clone(), namespace, self.name.clone()?))
    }

    fn asks_for(&self, key: &Key, object: &Value) -> bool {
        let field = match self
            .value("fieldSelector")
            .and_then(|text| text.split_once('='))
        {
            Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == node,
            Some(("metadata.name", name)) => key.2 == name,
            Some(_) => false,
            None => true,
        };
        let label = match self
            .value("labelSelector")
            .and_then(|text| text.split_once('='))
        {
            Some((name, value)) => object["metadata"]["labels"][name] == value,
            None => true,
        };
        let namespace = self.namespace.as_ref();
        key.0 == self.resource && namespace.is_none_or(|wanted| *wanted == key.1) && field && label
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn refused(status: StatusCode, reason: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": status.as_u16()
    });
    answer(status, &body)
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n")
}

impl Inner {
    fn put(&mut self, kind: &'static str, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        let tell = |watch: &Watch| {
            !watch.question.asks_for(&key, &object)
                || watch.sender.send(line(kind, &object)).is_ok()
        };
        self.watches.retain(tell);
        self.happened.push(Happened {
            version: self.version,
            kind,
            key,
            object: object.clone(),
        });
        object
    }

    fn create(&mut self, question: &Question, mut object: Value) -> Response<Body> {
        self.uids += 1;
        let name = match object["metadata"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("made-{}", self.uids),
        };
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(format!("uid-{:04}", self.uids));
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let namespace = question.namespace.clone().unwrap_or_default();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let key = (question.resource.clone(), namespace, name);
        if self.objects.contains_key(&key) {
            return refused(StatusCode::CONFLICT, "AlreadyExists");
        }
        answer(StatusCode::CREATED, &self.put("ADDED", key, object))
    }

    fn patch(&mut self, key: Key, patch: &Value) -> Response<Body> {
        let Some(before) = self.objects.get(&key) else {
            return refused(StatusCode::NOT_FOUND, "NotFound");
        };
        let uid = &patch["metadata"]["uid"];
        if !uid.is_null() && *uid != before["metadata"]["uid"] {
            return refused(StatusCode::CONFLICT, "Conflict");
        }
        let mut after = before.clone();
        merge(&mut after, patch);
        if after == *before {
            return answer(StatusCode::OK, &after);
        }
        answer(StatusCode::OK, &self.put("MODIFIED", key, after))
    }

    fn delete(&mut self, key: Key, options: &Value) -> Response<Body> {
        let Some(object) = self.objects.get(&key).cloned() else {
            return refused(StatusCode::NOT_FOUND, "NotFound");
        };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return refused(StatusCode::CONFLICT, "Conflict");
        }
        let at_once = key.0 != "pods" || options["gracePeriodSeconds"] == 0;
        if at_once {
            return answer(StatusCode::OK, &self.put("DELETED", key, object));
        }
        let mut object = object;
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
        object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        answer(StatusCode::OK, &self.put("MODIFIED", key, object))
    }

    fn list(&self, question: &Question) -> Response<Body> {
        let found = self
            .objects
            .iter()
            .filter(|(key, object)| question.asks_for(key, object));
        let items: Vec<&Value> = found.map(|(_, object)| object).collect();
        let list = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items
        });
        answer(StatusCode::OK, &list)
    }

    fn watch(&mut self, question: Question) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let since: u64 = question
            .value("resourceVersion")
            .unwrap_or("0")
            .parse()
            .unwrap_or(0);
        if since < self.compacted {
            let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410});
            let _ = sender.send(line("ERROR", &gone));
        } else {
            let missed = self.happened.iter().filter(|one| one.version > since);
            for one in missed.filter(|one| question.asks_for(&one.key, &one.object)) {
                let _ = sender.send(line(one.kind, &one.object));
            }
            self.watches.push(Watch { question, sender });
        }
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            let line = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(line)), receiver))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

impl MemoryApi {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request; at once, because nothing here waits.
    pub fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let (head, body) = request.clone().into_parts();
        if head.uri.path() == "/version" {
            let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            return answer(StatusCode::OK, &version);
        }
        let Some(question) = Question::read(&head) else {
            return refused(StatusCode::NOT_FOUND, "NotFound");
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut inner = self.inner();
        match (head.method, question.key()) {
            (Method::GET, Some(key)) => match inner.objects.get(&key) {
                Some(object) => answer(StatusCode::OK, object),
                None => refused(StatusCode::NOT_FOUND, "NotFound"),
            },
            (Method::GET, None) if question.value("watch").is_some() => inner.watch(question),
            (Method::GET, None) => inner.list(&question),
            (Method::POST, None) => inner.create(&question, body),
            (Method::PATCH, Some(key)) => inner.patch(key, &body),
            (Method::DELETE, Some(key)) => inner.delete(key, &body),
            _ => refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// All watches break off, as when the server goes down.
    pub fn hang_up(&self) {
        self.inner().watches.clear();
    }

    /// Watches from before now have to list anew.
    pub fn compact(&self) {
        let mut inner = self.inner();
        inner.compacted = inner.version;
        inner.happened.clear();
    }

    pub fn create(&self, resource: &str, namespace: &str, object: Value) {
        let question = Question {
            resource: resource.to_owned(),
            namespace: Some(namespace.to_owned()).filter(|name| !name.is_empty()),
            name: None,
            query: Vec::new(),
        };
        self.inner().create(&question, object);
    }

    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.inner().patch(key, patch);
    }

    pub fn delete(&self, resource: &str, namespace: &str, name: &str, at_once: bool) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let options = if at_once {
            json!({"gracePeriodSeconds": 0})
        } else {
            json!({})
        };
        self.inner().delete(key, &options);
    }

    /// All objects of a resource.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        let inner = self.inner();
        let found = inner
            .objects
            .iter()
            .filter(|((kind, _, _), _)| kind == resource);
        found.map(|(_, object)| object.clone()).collect()
    }
}

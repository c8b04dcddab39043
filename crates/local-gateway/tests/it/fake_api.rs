//! As much of the Kubernetes API as a gateway uses, in memory: lists and watches, merge patches, events.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

struct State {
    version: u64,
    /// Objects by plural, then by namespace and name.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    changes: broadcast::Sender<(&'static str, Value)>,
    events: Vec<Value>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let state = State {
            version: 1,
            objects: BTreeMap::new(),
            changes: broadcast::channel(1024).0,
            events: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn put_service(&self, name: &str, spec: Value) {
        let status = self
            .service(name)
            .map_or(Value::Null, |service| service["status"].clone());
        let metadata = json!({"namespace": "default", "name": name, "uid": format!("uid-{name}")});
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status});
        self.put("services", object);
    }

    pub(crate) fn put_endpoints(&self, service: &str, port: u16, endpoints: &[(String, bool)]) {
        let endpoint = |(ip, ready): &(String, bool)| {
            let pod = json!({"kind": "Pod", "namespace": "default", "name": format!("pod-{ip}"), "uid": ip});
            json!({"addresses": [ip], "conditions": {"ready": ready}, "targetRef": pod})
        };
        let metadata = json!({
            "namespace": "default", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        });
        self.put(
            "endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                "addressType": "IPv4", "ports": [{"port": port, "protocol": "TCP"}],
                "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            }),
        );
    }

    pub(crate) fn service(&self, name: &str) -> Option<Value> {
        self.0
            .lock()
            .unwrap()
            .objects
            .get("services")?
            .get(&format!("default/{name}"))
            .cloned()
    }

    pub(crate) fn delete_service(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        let removed = state
            .objects
            .get_mut("services")
            .and_then(|all| all.remove(&format!("default/{name}")));
        state.announce("services", "DELETED", removed.unwrap());
    }

    pub(crate) fn events(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let text = |event: &Value| {
            format!(
                "{} {}",
                event["reason"].as_str().unwrap(),
                event["note"].as_str().unwrap()
            )
        };
        state.events.iter().map(text).collect()
    }

    /// The reasons of the events on one object.
    pub(crate) fn events_of(&self, name: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let of_it = state
            .events
            .iter()
            .filter(|event| event["regarding"]["name"] == name);
        of_it
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    fn put(&self, plural: &'static str, object: Value) {
        let mut state = self.0.lock().unwrap();
        let key = format!(
            "{}/{}",
            object["metadata"]["namespace"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap()
        );
        state
            .objects
            .entry(plural)
            .or_default()
            .insert(key.clone(), object);
        state.touch(plural, &key);
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let plural = if path.contains("endpointslices") {
            "endpointslices"
        } else {
            "services"
        };
        match parts.method {
            Method::GET if query.contains("watch=true") => self.watch(plural),
            Method::GET => self.list(plural),
            Method::POST if path.contains("/events") => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                self.0.lock().unwrap().events.push(event.clone());
                reply(StatusCode::CREATED, &event)
            }
            Method::PATCH => self.patch(&path, &serde_json::from_slice(&body).unwrap()),
            method => panic!("unexpected request {method} {path}"),
        }
    }

    fn list(&self, plural: &'static str) -> Answer {
        let state = self.0.lock().unwrap();
        let items: Vec<_> = state
            .objects
            .get(plural)
            .into_iter()
            .flat_map(|all| all.values())
            .collect();
        let version = state.version.to_string();
        reply(
            StatusCode::OK,
            &json!({"metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn watch(&self, plural: &'static str) -> Answer {
        let changes = self.0.lock().unwrap().changes.subscribe();
        let lines = stream::unfold(changes, move |mut changes| async move {
            loop {
                let (changed, event) = changes.recv().await.ok()?;
                if changed == plural {
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((Ok::<_, Infallible>(Frame::data(line)), changes));
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    fn patch(&self, path: &str, patch: &Value) -> Answer {
        let mut state = self.0.lock().unwrap();
        let path = path.trim_end_matches("/status");
        let name = path.rsplit('/').next().unwrap();
        let key = format!("default/{name}");
        let Some(object) = state.objects.entry("services").or_default().get_mut(&key) else {
            return reply(
                StatusCode::NOT_FOUND,
                &json!({"kind": "Status", "status": "Failure", "code": 404, "message": "", "reason": "NotFound"}),
            );
        };
        merge(object, patch);
        let object = state.touch("services", &key);
        reply(StatusCode::OK, &object)
    }
}

impl State {
    fn touch(&mut self, plural: &'static str, key: &str) -> Value {
        let object = self
            .objects
            .get(plural)
            .and_then(|all| all.get(key))
            .cloned()
            .unwrap();
        let object = self.announce(plural, "MODIFIED", object);
        self.objects
            .get_mut(plural)
            .unwrap()
            .insert(key.to_owned(), object.clone());
        object
    }

    fn announce(&mut self, plural: &'static str, kind: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        // Nobody may be watching yet.
        drop(
            self.changes
                .send((plural, json!({"type": kind, "object": object}))),
        );
        object
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        return *target = patch.clone();
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(&mut target[name.as_str()], value),
        }
    }
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

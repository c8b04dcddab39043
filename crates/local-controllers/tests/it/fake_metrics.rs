//! A client whose metrics APIs are played by the test, while everything else goes to the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What the metrics APIs answer, and what they were asked.
#[derive(Default)]
pub struct FakeMetrics {
    answers: Mutex<BTreeMap<String, (u16, Value)>>,
    asked: Mutex<BTreeSet<String>>,
}

impl FakeMetrics {
    /// A client with these metrics APIs.
    pub fn client(self: &Arc<Self>, inner: Client) -> Client {
        let fake = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = fake.answer(&request);
            let inner = inner.clone();
            async move {
                match answer {
                    Some(answer) => Ok(answer),
                    None => inner.send(request).await,
                }
            }
        });
        Client::new(service, "default")
    }

    /// Sets the answer to a path, query included.
    pub fn set(&self, path: &str, answer: Value) {
        self.set_code(path, 200, answer);
    }

    /// Sets a refusal.
    pub fn refuse(&self, path: &str, code: u16, message: &str) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
        self.set_code(path, code, status);
    }

    fn set_code(&self, path: &str, code: u16, answer: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(path.to_owned(), (code, answer));
    }

    /// The paths that were asked for below a prefix.
    pub fn asked(&self, prefix: &str) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap();
        let below = asked.iter().filter(|path| path.contains(prefix));
        below.cloned().collect()
    }

    fn answer(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let path = request.uri().to_string();
        if !path.contains("metrics.k8s.io") {
            return None;
        }
        self.asked.lock().unwrap().insert(path.clone());
        let answers = self.answers.lock().unwrap();
        let (code, body) = match answers.get(&path) {
            Some((code, answer)) => (*code, answer.to_string()),
            None => (404, "404 page not found".to_owned()),
        };
        let response = Response::builder().status(code);
        Some(response.body(Body::from(body.into_bytes())).unwrap())
    }
}

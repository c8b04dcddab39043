//! A client whose metrics APIs are played by a test, while everything else goes to the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What the metrics APIs answer, and what they were asked.
#[derive(Default)]
pub struct PlayedMetrics {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, (u16, String)>,
    asked: BTreeMap<String, u64>,
}

impl PlayedMetrics {
    /// A client with these metrics APIs.
    pub fn client(self: &Arc<Self>, inner: Client) -> Client {
        let played = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = played.answer(&request.uri().to_string());
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
    pub fn set(&self, path: &str, answer: &Value) {
        self.set_code(path, 200, answer);
    }

    /// Sets a refusal.
    pub fn refuse(&self, path: &str, code: u16, message: &str) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
        self.set_code(path, code, &status);
    }

    fn set_code(&self, path: &str, code: u16, answer: &Value) {
        let answer = (code, answer.to_string());
        self.state().answers.insert(path.to_owned(), answer);
    }

    /// The paths that were asked for with this text in them.
    pub fn asked(&self, part: &str) -> BTreeSet<String> {
        let state = self.state();
        let ours = state.asked.keys().filter(|path| path.contains(part));
        ours.cloned().collect()
    }

    /// How often paths with this text in them were asked for.
    pub fn times_asked(&self, part: &str) -> u64 {
        let state = self.state();
        let ours = state.asked.iter().filter(|(path, _)| path.contains(part));
        ours.map(|(_, times)| times).sum()
    }

    fn answer(&self, path: &str) -> Option<Response<Body>> {
        if !path.contains("metrics.k8s.io") {
            return None;
        }
        let mut state = self.state();
        *state.asked.entry(path.to_owned()).or_default() += 1;
        let (code, body) = match state.answers.get(path) {
            Some((code, answer)) => (*code, answer.clone()),
            None => (404, "404 page not found".to_owned()),
        };
        let mut response = Response::new(Body::from(body.into_bytes()));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        Some(response)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Requests to the API server in the forms that controllers need, with a named field manager, sent as plain JSON so
//! that nothing is decoded that nobody reads.

use http::{Method, Request};
use kube::{Client, Resource};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// The manager name upstream's controllers leave in managedFields.
pub const FIELD_MANAGER: &str = "kube-controller-manager";

/// A request of a controller that did not go through.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API server refused it or could not be reached.
    #[error("{method} {path} failed")]
    Request {
        /// The HTTP method.
        method: Method,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object cannot be written as JSON, or a path is no URL.
    #[error("cannot form the request {method} {path}: {reason}")]
    Form {
        /// The HTTP method.
        method: Method,
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// Part of a batch failed; the first failure.
    #[error("{failed} of {total} requests failed")]
    Batch {
        /// How many failed.
        failed: usize,
        /// Of how many.
        total: usize,
        /// The first.
        #[source]
        first: Box<ControllerError>,
    },
    /// The object does not hold together; its own sentence.
    #[error("{0}")]
    Object(String),
}

impl ControllerError {
    /// The HTTP status, when the API server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            ControllerError::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            ControllerError::Batch { first, .. } => first.code(),
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether another writer was faster, which a retry settles.
    pub fn is_race(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// Whether the namespace is going, so that nothing can be made in it.
    pub fn is_namespace_going(&self) -> bool {
        self.code() == Some(403)
            && self
                .api_message()
                .contains("because it is being terminated")
    }

    /// The API server's own sentence, as events show it.
    pub fn api_message(&self) -> String {
        match self {
            ControllerError::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            ControllerError::Batch { first, .. } => first.api_message(),
            other => other.to_string(),
        }
    }
}

/// The path of one object or, with an empty name, of its collection.
pub fn path_of<K: Resource<DynamicType = ()>>(
    namespace: &str,
    name: &str,
    subresource: &str,
) -> String {
    let mut path = K::url_path(&(), (!namespace.is_empty()).then_some(namespace));
    for part in [name, subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

/// Sends a body and decodes what the caller reads of the answer.
pub async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> Result<T, ControllerError> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let uri = match method {
        Method::GET | Method::DELETE => path.to_owned(),
        _ => format!("{path}{separator}fieldManager={FIELD_MANAGER}"),
    };
    let request = Request::builder()
        .method(method.clone())
        .uri(uri)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::ACCEPT, "application/json")
        .body(body)
        .map_err(|error| form_error(&method, path, &error))?;
    client
        .request::<T>(request)
        .await
        .map_err(|source| ControllerError::Request {
            method,
            path: path.to_owned(),
            source: Box::new(source),
        })
}

/// Reads one object.
pub async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, ControllerError> {
    send(client, Method::GET, path, "application/json", Vec::new()).await
}

/// Creates an object.
pub async fn create<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &Value,
) -> Result<T, ControllerError> {
    send(
        client,
        Method::POST,
        path,
        "application/json",
        body.to_string().into_bytes(),
    )
    .await
}

/// Replaces an object.
pub async fn replace<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &Value,
) -> Result<T, ControllerError> {
    send(
        client,
        Method::PUT,
        path,
        "application/json",
        body.to_string().into_bytes(),
    )
    .await
}

/// Merges a patch into an object.
pub async fn merge<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    patch: &Value,
) -> Result<T, ControllerError> {
    send(
        client,
        Method::PATCH,
        path,
        "application/merge-patch+json",
        patch.to_string().into_bytes(),
    )
    .await
}

/// Merges a patch whose answer nobody reads.
pub async fn merge_blind(
    client: &Client,
    path: &str,
    patch: &Value,
) -> Result<(), ControllerError> {
    merge::<IgnoredAny>(client, path, patch).await.map(|_| ())
}

/// Merges a strategic patch, which knows lists by their keys, into a built-in object.
pub async fn merge_strategic(
    client: &Client,
    path: &str,
    patch: &Value,
) -> Result<(), ControllerError> {
    let (kind, body) = (
        "application/strategic-merge-patch+json",
        patch.to_string().into_bytes(),
    );
    send::<IgnoredAny>(client, Method::PATCH, path, kind, body)
        .await
        .map(|_| ())
}

/// Deletes an object; that it is gone already counts as done.
pub async fn delete(client: &Client, path: &str, options: &Value) -> Result<(), ControllerError> {
    let body = options.to_string().into_bytes();
    match send::<IgnoredAny>(client, Method::DELETE, path, "application/json", body).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// An object as JSON.
pub fn to_value<T: serde::Serialize>(object: &T) -> Result<Value, ControllerError> {
    serde_json::to_value(object)
        .map_err(|error| ControllerError::Object(format!("cannot be written as JSON: {error}")))
}

fn form_error(method: &Method, path: &str, error: &dyn std::error::Error) -> ControllerError {
    ControllerError::Form {
        method: method.clone(),
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

//! One repository of a registry: authentication, redirects, retries, and errors that tell apart what went wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::error::ImageError;
use super::http::{Body, Http, HttpError, read_all};
use super::reference::Reference;
use super::{Credentials, RegistryConfig};

const REDIRECTS_MAX: usize = 5;
/// Tries of one request whose failure may pass.
const TRIES_MAX: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// A token or an error text.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const ERROR_TEXT_LENGTH_MAX: usize = 300;
const CLIENT_ID: &str = "springtide";

pub(super) struct Repository<'a> {
    reference: &'a Reference,
    credentials: Option<&'a Credentials>,
    http: Http,
    /// Whether a host that may be spoken to without encryption turned out to want it.
    encrypted: AtomicBool,
    /// The value of `Authorization`, once the registry has asked for one.
    authorization: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Repository<'a> {
    pub(super) fn new(
        reference: &'a Reference,
        credentials: Option<&'a Credentials>,
        config: &RegistryConfig,
    ) -> Self {
        let http = Http::new(config.plain_http.clone(), config.extra_ca_files.clone());
        Self {
            reference,
            credentials,
            http,
            encrypted: AtomicBool::new(false),
            authorization: Mutex::default(),
        }
    }

    /// GETs `/v2/<repository>/<path>`, from byte `from` on when given.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        from: Option<u64>,
    ) -> Result<Body, ImageError> {
        let mut headers = HeaderMap::new();
        let value = |text: &str| {
            text.parse()
                .map_err(|_| self.registry_error("a header that cannot be sent"))
        };
        headers.insert(ACCEPT, value(accept)?);
        if let Some(from) = from {
            headers.insert(RANGE, value(&format!("bytes={from}-"))?);
        }
        let mut failure = self.registry_error("it was not asked");
        for attempt in 0..TRIES_MAX {
            if attempt > 0 {
                tokio::time::sleep(RETRY_DELAY * attempt).await;
            }
            match self.get_authorized(&self.url(path), &headers).await {
                Ok(answer) if self.wants_encryption(answer.status()) => {
                    failure = self.registry_error("it wants encryption");
                }
                Ok(answer) if may_pass(answer.status()) => failure = self.describe(answer).await,
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => return Err(self.describe(answer).await),
                Err(Failed::Http(HttpError::Exchange(reason))) => {
                    failure = self.registry_error(reason);
                }
                Err(Failed::Http(HttpError::Connect(reason))) => {
                    return Err(self.unreachable(reason));
                }
                Err(Failed::Image(error)) => return Err(error),
            }
        }
        Err(failure)
    }

    fn url(&self, path: &str) -> String {
        let host = self.reference.host();
        let plain = self.http.allows_plain(host) && !self.encrypted.load(Ordering::Relaxed);
        let scheme = if plain { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}/{path}", self.reference.repository)
    }

    /// Servers answer so to a plain request that reaches their TLS port. Only the first answer is taken for that.
    fn wants_encryption(&self, status: StatusCode) -> bool {
        let plain = self.http.allows_plain(self.reference.host());
        status == StatusCode::BAD_REQUEST && plain && !self.encrypted.swap(true, Ordering::Relaxed)
    }

    async fn get_authorized(&self, url: &str, headers: &HeaderMap) -> Result<Body, Failed> {
        let answer = self.get_redirected(url, headers).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges
            .filter_map(|value| value.to_str().ok())
            .find_map(challenge::parse);
        let Some(challenge) = challenge else {
            return Ok(answer);
        };
        drop(answer);
        let authorization = self.answer_challenge(challenge).await?;
        let Some(authorization) = authorization else {
            return Err(Failed::Image(self.unauthorized(
                "it asks for a user name and password, and none is given",
            )));
        };
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        self.get_redirected(url, headers).await
    }

    /// Follows redirects; another host does not get to see our authorization.
    async fn get_redirected(&self, url: &str, headers: &HeaderMap) -> Result<Body, Failed> {
        let mut uri: Uri = url
            .parse()
            .map_err(|_| Failed::Image(self.registry_error("its address is malformed")))?;
        let first_host = uri.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::<Bytes>::default());
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let authorization = self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(value) = authorization.filter(|_| uri.authority() == first_host.as_ref()) {
                let value = value.parse().map_err(|_| {
                    Failed::Image(self.registry_error("a token that cannot be sent"))
                })?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            let answer = self.http.send(request).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            uri = redirected(&uri, &answer)
                .ok_or_else(|| Failed::Image(self.registry_error("it redirects nowhere")))?;
        }
        Err(Failed::Image(self.registry_error("it redirects too often")))
    }

    /// What to send as `Authorization`; nothing when we have nothing to show.
    async fn answer_challenge(&self, challenge: Challenge) -> Result<Option<String>, Failed> {
        match challenge {
            Challenge::Basic => Ok(self.basic()),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let scope = scope
                    .unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
                let token = self
                    .fetch_token(&realm, service.as_deref().unwrap_or_default(), &scope)
                    .await?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    fn basic(&self) -> Option<String> {
        match self.credentials {
            Some(Credentials::Basic { username, password }) => Some(format!(
                "Basic {}",
                BASE64.encode(format!("{username}:{password}"))
            )),
            _ => None,
        }
    }

    async fn fetch_token(&self, realm: &str, service: &str, scope: &str) -> Result<String, Failed> {
        let malformed =
            |_| Failed::Image(self.registry_error("its token service's address is malformed"));
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query = format!("service={}&scope={}", encode(service), encode(scope));
        let request = match self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id={CLIENT_ID}&{query}&refresh_token={}",
                    encode(token)
                );
                let builder = Request::builder().method(Method::POST).uri(realm);
                builder
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form))
            }
            _ => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let mut builder = Request::builder().uri(format!("{realm}{separator}{query}"));
                if let Some(basic) = self.basic() {
                    builder = builder.header(AUTHORIZATION, basic);
                }
                builder.body(Full::default())
            }
        };
        let answer = self.http.send(request.map_err(malformed)?).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(Failed::Image(
                self.unauthorized(&format!("its token service answered {status}")),
            ));
        }
        let bytes = read_all(answer.into_body(), ANSWER_BYTES_MAX).await;
        let token = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<TokenAnswer>(&bytes).ok());
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        token.ok_or_else(|| Failed::Image(self.registry_error("its token service gave no token")))
    }

    /// Turns an answer that is no success into an error.
    async fn describe(&self, answer: Body) -> ImageError {
        let status = answer.status();
        let body = read_all(answer.into_body(), ANSWER_BYTES_MAX)
            .await
            .unwrap_or_default();
        let detail = serde_json::from_slice::<ErrorAnswer>(&body)
            .ok()
            .and_then(|answer| answer.errors.into_iter().next());
        let detail = detail.map_or_else(String::new, |entry| {
            format!(" {} {}", entry.code, entry.message)
        });
        let text: String = format!("{status}{detail}")
            .chars()
            .take(ERROR_TEXT_LENGTH_MAX)
            .collect();
        match status {
            StatusCode::NOT_FOUND => ImageError::NotFound(self.reference.canonical()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(&text),
            _ => self.registry_error(text),
        }
    }

    fn unauthorized(&self, reason: &str) -> ImageError {
        let reason =
            format!("{reason} (many registries answer so for a repository that does not exist)");
        ImageError::Unauthorized {
            reference: self.reference.canonical(),
            reason,
        }
    }

    fn unreachable(&self, reason: String) -> ImageError {
        let registry = self.reference.host().to_owned();
        ImageError::Unreachable {
            reference: self.reference.canonical(),
            registry,
            reason,
        }
    }

    pub(super) fn registry_error(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Registry {
            reference: self.reference.canonical(),
            reason: reason.into(),
        }
    }
}

enum Failed {
    Http(HttpError),
    Image(ImageError),
}

impl From<HttpError> for Failed {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// An answer that another try may change.
fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The address an answer sends us to, complete.
fn redirected(from: &Uri, answer: &Body) -> Option<Uri> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let target: Uri = location.parse().ok()?;
    if target.scheme().is_some() && target.authority().is_some() {
        return Some(target);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = target.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}

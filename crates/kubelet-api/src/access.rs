//! Who may ask a kubelet for what: a client certificate or a bearer token says who it is, the cluster's own rules say
//! whether. Nobody is served without both.
//!
//! Answers of the cluster are remembered for as long as upstream's kubelet does, in bounded caches.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode, header};
use ring::digest;

/// Answers remembered at the same time, for each cache.
const REMEMBERED_MAX: usize = 1024;
const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
const UNKNOWN_TOKEN_TTL: Duration = Duration::from_secs(10);
pub(crate) const ALLOWED_TTL: Duration = Duration::from_secs(5 * 60);
pub(crate) const REFUSED_TTL: Duration = Duration::from_secs(30);
/// Its members may do everything in any cluster; asking would only cost a call.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// Somebody whose identity is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// `system:serviceaccount:monitoring:prometheus`
    pub name: String,
    /// Stable identifier, may be empty.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: Vec<(String, Vec<String>)>,
}

/// What is asked for, as the rules of the cluster name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// `get` or `create`.
    pub verb: &'static str,
    /// The name of the node.
    pub node: String,
    /// Of `nodes`: `proxy`, `metrics`, `stats`, `log`, …
    pub subresource: &'static str,
}

/// The cluster could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}")]
pub struct ReviewError {
    /// What was attempted.
    pub attempted: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Asks the cluster about people.
#[async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token this is; `None` = nobody's.
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError>;

    /// Whether a user may.
    async fn authorize(&self, user: &User, wanted: &Attributes) -> Result<bool, ReviewError>;
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub status: StatusCode,
    pub message: String,
}

/// Answers with the time until which they hold.
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, value) = known.get(key)?;
        (*until > now).then(|| value.clone())
    }

    fn put(&self, key: K, value: V, until: Instant, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= REMEMBERED_MAX {
            // Everybody is asked about once more; better than growing.
            known.clear();
        }
        known.insert(key, (until, value));
    }
}

/// The gate of one node.
pub(crate) struct Gate {
    node: String,
    reviewer: Arc<dyn Reviewer>,
    /// By digest, so that no token is kept.
    tokens: Remembered<Vec<u8>, Option<User>>,
    rights: Remembered<(User, Attributes), bool>,
}

impl Gate {
    pub(crate) fn new(node: String, reviewer: Arc<dyn Reviewer>) -> Self {
        Self {
            node,
            reviewer,
            tokens: Remembered::new(),
            rights: Remembered::new(),
        }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Lets a request pass or says why not. A certificate counts before a token.
    pub(crate) async fn check(
        &self,
        certificate: Option<&User>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        let user = match certificate {
            Some(user) => user.clone(),
            None => self.bearer(headers).await?,
        };
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let verb = if *method == Method::POST {
            "create"
        } else {
            "get"
        };
        let subresources = subresources(path);
        for subresource in subresources {
            let wanted = Attributes {
                verb,
                node: self.node.clone(),
                subresource,
            };
            if self.may(&user, wanted).await? {
                return Ok(());
            }
        }
        Err(Refused {
            status: StatusCode::FORBIDDEN,
            message: format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}], node={})",
                user.name,
                subresources.join(" "),
                self.node
            ),
        })
    }

    async fn bearer(&self, headers: &HeaderMap) -> Result<User, Refused> {
        let unauthorized = || Refused {
            status: StatusCode::UNAUTHORIZED,
            message: "Unauthorized".to_string(),
        };
        let token = bearer_token(headers).ok_or_else(unauthorized)?;
        let key = digest::digest(&digest::SHA256, token.as_bytes());
        let key = key.as_ref().to_vec();
        let now = Instant::now();
        let known = match self.tokens.get(&key, now) {
            Some(known) => known,
            None => {
                let found = self.reviewer.authenticate(token).await;
                let found = found.map_err(|error| unavailable(&error))?;
                let ttl = if found.is_some() {
                    TOKEN_TTL
                } else {
                    UNKNOWN_TOKEN_TTL
                };
                self.tokens.put(key, found.clone(), now + ttl, now);
                found
            }
        };
        known.ok_or_else(unauthorized)
    }

    async fn may(&self, user: &User, wanted: Attributes) -> Result<bool, Refused> {
        let now = Instant::now();
        let key = (user.clone(), wanted);
        if let Some(known) = self.rights.get(&key, now) {
            return Ok(known);
        }
        let allowed = self.reviewer.authorize(&key.0, &key.1).await;
        let allowed = allowed.map_err(|error| unavailable(&error))?;
        let ttl = if allowed { ALLOWED_TTL } else { REFUSED_TTL };
        self.rights.put(key, allowed, now + ttl, now);
        Ok(allowed)
    }
}

fn unavailable(error: &ReviewError) -> Refused {
    let cause = error.source.as_ref();
    tracing::warn!(%error, %cause, "the cluster could not be asked about a client of the kubelet API");
    Refused {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message: format!("{error}: {cause}"),
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Which subresources of `nodes` open a path; one is enough. The finer ones are newer than `proxy`.
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.split('/').find(|segment| !segment.is_empty());
    match first.unwrap_or_default() {
        "metrics" => &["metrics"],
        "stats" => &["stats"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

/// The user that a certificate names: common name and organisations.
pub(crate) fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_string();
    let organizations = subject.iter_organization();
    let mut groups: Vec<String> = organizations
        .filter_map(|one| one.as_str().ok().map(str::to_string))
        .collect();
    groups.push(AUTHENTICATED.to_string());
    Some(User {
        name,
        groups,
        ..User::default()
    })
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;

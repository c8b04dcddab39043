//! Who asks, and whether they may: the API server vouches for the user by its certificate, the cluster's rules decide.
//!
//! Without an authority to check the certificate against, nobody is believed and nothing is served. Who comes without the
//! API server in between, to push metrics, shows a token that the cluster reviews.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

/// How long a yes holds for whom the API server vouches: it has just asked the same question itself before it passed the
/// request on, so whoever lost a right is refused there at once. As long as its own yes holds for webhooks.
const VOUCHED_FOR: Duration = Duration::from_secs(300);
/// How long for who comes with a token, whom nobody has asked about.
const ALLOWED_FOR: Duration = Duration::from_secs(10);
/// How long a no holds; a right that was missing works soon.
const REFUSED_FOR: Duration = Duration::from_secs(3);
/// Most answers kept.
const MAX_ANSWERS: usize = 4_096;
const MAX_TOKENS: usize = 256;
/// The cluster is asked no longer than this.
const TIMEOUT: Duration = Duration::from_secs(5);
const MASTERS: &str = "system:masters";
/// Every cluster publishes here how its API server names users to other servers.
const CONFIG_MAP: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// How the API server proves itself and names users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxy {
    /// Authority of its client certificate, as PEM.
    pub authority_pem: String,
    /// Common names that are believed; empty means all of the authority's.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// Beginnings of headers with further properties.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// With the headers that every cluster uses.
    pub fn new(authority_pem: String, allowed_names: Vec<String>) -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self {
            authority_pem,
            allowed_names,
            username_headers: one("x-remote-user"),
            group_headers: one("x-remote-group"),
            extra_prefixes: one("x-remote-extra-"),
        }
    }

    /// As the cluster publishes it; none when it publishes nothing.
    pub async fn find(client: &Client) -> Result<Option<Self>, kube::Error> {
        let (namespace, name) = CONFIG_MAP;
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        Ok(api.get_opt(name).await?.and_then(|map| Self::read(&map)))
    }

    fn read(map: &ConfigMap) -> Option<Self> {
        let data = map.data.as_ref()?;
        let list = |key: &str| -> Option<Vec<String>> { serde_json::from_str(data.get(key)?).ok() };
        let lower = |key: &str| -> Option<Vec<String>> {
            let names = list(key)?
                .iter()
                .map(|name| name.to_lowercase())
                .collect::<Vec<_>>();
            (!names.is_empty()).then_some(names)
        };
        let authority = data
            .get("requestheader-client-ca-file")
            .filter(|pem| !pem.trim().is_empty())?;
        let usual = Self::new(
            authority.clone(),
            list("requestheader-allowed-names").unwrap_or_default(),
        );
        Some(Self {
            username_headers: lower("requestheader-username-headers")
                .unwrap_or(usual.username_headers),
            group_headers: lower("requestheader-group-headers").unwrap_or(usual.group_headers),
            extra_prefixes: lower("requestheader-extra-headers-prefix")
                .unwrap_or(usual.extra_prefixes),
            ..usual
        })
    }

    /// The user of a request; none when the caller is not believed.
    fn user(&self, peer: Option<&str>, headers: &HeaderMap) -> Option<User> {
        let peer = peer?;
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|name| name == peer) {
            return None;
        }
        let texts = |name: &str| {
            let values = headers.get_all(name).into_iter();
            values
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let name = self
            .username_headers
            .iter()
            .find_map(|header| texts(header).into_iter().next())?;
        let groups = self
            .group_headers
            .iter()
            .flat_map(|header| texts(header))
            .collect();
        let mut extra: Vec<(String, Vec<String>)> = Vec::new();
        for key in headers.keys() {
            let prefix = self
                .extra_prefixes
                .iter()
                .find_map(|prefix| key.as_str().strip_prefix(prefix.as_str()));
            if let Some(rest) = prefix {
                extra.push((crate::selector::decode(rest, false), texts(key.as_str())));
            }
        }
        extra.sort();
        Some(User {
            name,
            groups,
            extra,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

/// What is asked for, in terms of the cluster's rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attributes {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
}

/// Why nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The caller is nobody we know.
    Unauthorized,
    /// The user may not.
    Forbidden(String),
    /// The cluster could not be asked.
    Unknown(String),
}

/// How a user is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    ByApiServer,
    ByToken,
}

/// What the cluster said, and when.
#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    allowed: bool,
}

impl Said {
    fn holds(self, known: Known, now: Instant) -> bool {
        let lasts = match (self.allowed, known) {
            (false, _) => REFUSED_FOR,
            (true, Known::ByApiServer) => VOUCHED_FOR,
            (true, Known::ByToken) => ALLOWED_FOR,
        };
        now.saturating_duration_since(self.at) < lasts
    }
}

type Answers = HashMap<(User, Attributes), Said>;

/// Decides who may ask.
pub(crate) struct Access {
    client: Client,
    proxy: FrontProxy,
    answers: Mutex<Answers>,
    tokens: Mutex<HashMap<String, (Instant, User)>>,
}

impl Access {
    pub(crate) fn new(client: Client, proxy: FrontProxy) -> Self {
        Self {
            client,
            proxy,
            answers: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// Whether anybody who is known may ask; for discovery.
    pub(crate) fn is_known(&self, peer: Option<&str>, headers: &HeaderMap) -> bool {
        self.proxy.user(peer, headers).is_some()
    }

    pub(crate) async fn check(
        &self,
        peer: Option<&str>,
        headers: &HeaderMap,
        attributes: Attributes,
    ) -> Result<(), Denied> {
        let user = self.proxy.user(peer, headers).ok_or(Denied::Unauthorized)?;
        self.check_user(user, Known::ByApiServer, attributes).await
    }

    /// The same for who may also have a token of the cluster.
    pub(crate) async fn check_with_token(
        &self,
        peer: Option<&str>,
        headers: &HeaderMap,
        attributes: Attributes,
    ) -> Result<(), Denied> {
        let (user, known) = match (self.proxy.user(peer, headers), bearer(headers)) {
            (Some(user), _) => (user, Known::ByApiServer),
            (None, Some(token)) => (self.user_of(token).await?, Known::ByToken),
            (None, None) => return Err(Denied::Unauthorized),
        };
        self.check_user(user, known, attributes).await
    }

    async fn user_of(&self, token: &str) -> Result<User, Denied> {
        let known = self.tokens().get(token).cloned();
        if let Some((until, user)) = known
            && Instant::now() < until
        {
            return Ok(user);
        }
        let reviewed = tokio::time::timeout(TIMEOUT, review_token(&self.client, token)).await;
        let late =
            |_| Denied::Unknown("the API server did not say in time whose token it is".to_owned());
        let reviewed = reviewed.map_err(late)?;
        let user = reviewed.map_err(|error| Denied::Unknown(error.to_string()))?;
        let user = user.ok_or(Denied::Unauthorized)?;
        let mut tokens = self.tokens();
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(
            token.to_owned(),
            (Instant::now() + ALLOWED_FOR, user.clone()),
        );
        Ok(user)
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, User)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_user(
        &self,
        user: User,
        known: Known,
        attributes: Attributes,
    ) -> Result<(), Denied> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let key = (user, attributes);
        let said = self.lock().get(&key).copied();
        let allowed = match said.filter(|said| said.holds(known, Instant::now())) {
            Some(said) => said.allowed,
            None => self.ask(&key).await?,
        };
        if allowed {
            Ok(())
        } else {
            Err(Denied::Forbidden(refusal(&key)))
        }
    }

    async fn ask(&self, key: &(User, Attributes)) -> Result<bool, Denied> {
        let at = Instant::now();
        let asked = tokio::time::timeout(TIMEOUT, review(&self.client, key)).await;
        let late = |_| Denied::Unknown("the API server did not say in time who may ask".to_owned());
        let allowed = asked
            .map_err(late)?
            .map_err(|error| Denied::Unknown(error.to_string()))?;
        let mut answers = self.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, said| said.holds(Known::ByApiServer, at));
        }
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(key.clone(), Said { at, allowed });
        Ok(allowed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal((user, asked): &(User, Attributes)) -> String {
    let resource = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let place = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let (resource_of, verb, group) = (asked.resource.as_str(), asked.verb, asked.group);
    let name = match asked.name.as_str() {
        "" => String::new(),
        name => format!(" \"{name}\""),
    };
    format!(
        "{resource_of}.{group}{name} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}",
        user.name
    )
}

async fn review(client: &Client, (user, asked): &(User, Attributes)) -> Result<bool, kube::Error> {
    let extra: std::collections::BTreeMap<_, _> = user.extra.iter().cloned().collect();
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "user": user.name, "groups": user.groups, "extra": extra,
            "resourceAttributes": {
                "verb": asked.verb, "group": asked.group, "version": asked.version, "namespace": asked.namespace,
                "resource": asked.resource, "subresource": asked.subresource, "name": asked.name
            }
        }
    }))
    .map_err(kube::Error::SerdeError)?;
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

async fn review_token(client: &Client, token: &str) -> Result<Option<User>, kube::Error> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    let status = answer
        .status
        .filter(|status| status.authenticated == Some(true));
    Ok(status.and_then(|status| status.user).map(|user| User {
        name: user.username.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default().into_iter().collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "alice".parse().unwrap());
        headers.append("x-remote-group", "dev".parse().unwrap());
        headers.append("x-remote-group", "qa".parse().unwrap());
        headers.insert("x-remote-extra-example.com%2fa", "b".parse().unwrap());
        headers
    }

    #[test]
    fn users_are_taken_from_a_caller_who_is_believed_only() {
        let proxy = FrontProxy::new(String::new(), vec!["front-proxy-client".to_owned()]);
        let user = proxy.user(Some("front-proxy-client"), &headers()).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("alice", 2));
        assert_eq!(
            user.extra,
            [("example.com/a".to_owned(), vec!["b".to_owned()])]
        );
        assert!(proxy.user(Some("alice"), &headers()).is_none());
        assert!(proxy.user(None, &headers()).is_none());
        assert!(
            proxy
                .user(Some("front-proxy-client"), &HeaderMap::new())
                .is_none()
        );
        assert!(
            FrontProxy::new(String::new(), Vec::new())
                .user(Some("anybody"), &headers())
                .is_some()
        );
    }

    #[test]
    fn tokens_are_taken_from_the_header_that_everybody_uses() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(
                http::header::AUTHORIZATION,
                http::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(bearer(&with("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&with("bearer  abc")), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer "] {
            assert_eq!(bearer(&with(other)), None, "{other}");
        }
    }

    #[test]
    fn a_yes_holds_longest_where_the_api_server_has_asked_itself() {
        let at = Instant::now();
        let yes = Said { at, allowed: true };
        let no = Said { at, allowed: false };
        let after = |seconds| at + Duration::from_secs(seconds);
        for (said, known, holds, ended) in [
            (yes, Known::ByApiServer, 299, 300),
            (yes, Known::ByToken, 9, 10),
            (no, Known::ByApiServer, 2, 3),
            (no, Known::ByToken, 2, 3),
        ] {
            assert!(said.holds(known, after(holds)), "{said:?} {known:?}");
            assert!(!said.holds(known, after(ended)), "{said:?} {known:?}");
        }
    }

    #[test]
    fn what_the_cluster_publishes_is_read() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {
            "requestheader-client-ca-file": "PEM", "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]", "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]"
        }})).unwrap();
        let expected = FrontProxy::new("PEM".to_owned(), vec!["front-proxy-client".to_owned()]);
        assert_eq!(FrontProxy::read(&map), Some(expected));
        assert_eq!(FrontProxy::read(&ConfigMap::default()), None);
    }
}

//! The client: signs, sends, waits within the documented call limits, and repeats what may be repeated.
//!
//! Clock, nonces, jitter and the transport come in from outside. A call is repeated only when that is safe: the
//! action changes nothing, the request carries a client token, or the service refused it for being one too many.

mod attempt;
mod limits;
mod paging;
mod transport;

use crate::error::EciError;
use crate::flatten::flatten;
use crate::model::Action;
use crate::signature::{Credentials, SignatureVersion};
use jiff::Timestamp;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use limits::CallLimits;
pub(crate) use transport::tls_config;
pub use transport::{BoxError, BoxFuture, HyperTransport, Transport};

/// How to reach the service and as whom.
#[derive(Clone, Debug)]
pub struct EciConfig {
    /// `http://127.0.0.1:8080`, `https://eci.cn-hangzhou.aliyuncs.com`; without a scheme HTTPS is meant.
    pub endpoint: String,
    /// The region, put into requests that name none.
    pub region: String,
    /// The access key.
    pub credentials: Credentials,
    /// Which signature to use.
    pub signature: SignatureVersion,
    /// The longest wait for one attempt's answer.
    pub attempt_timeout: Duration,
    /// Most attempts of one call.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from there.
    pub backoff_start: Duration,
    /// The longest pause.
    pub backoff_limit: Duration,
    /// Most requests under way at the same time, which also bounds the connections.
    pub max_in_flight: usize,
    /// Calls per minute.
    pub limits: CallLimits,
}

impl EciConfig {
    /// The usual settings.
    pub fn new(
        endpoint: impl Into<String>,
        region: impl Into<String>,
        credentials: Credentials,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            region: region.into(),
            credentials,
            signature: SignatureVersion::V3,
            attempt_timeout: Duration::from_secs(10),
            attempts: 4,
            backoff_start: Duration::from_millis(200),
            backoff_limit: Duration::from_secs(5),
            max_in_flight: 256,
            limits: CallLimits::documented(),
        }
    }

    /// Without call limits of our own, for a cloud that has none.
    pub fn without_limits(mut self) -> Self {
        self.limits = CallLimits::none();
        self
    }
}

/// What a client takes from outside besides the network.
#[derive(Clone)]
pub struct ClientSources {
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// A text that never comes twice.
    pub nonce: Arc<dyn Fn() -> String + Send + Sync>,
    /// A number from 0 to 1 that spreads out repeated calls.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl ClientSources {
    /// The machine's clock and randomness.
    pub fn system() -> Self {
        Self {
            now: Arc::new(Timestamp::now),
            nonce: Arc::new(|| uuid::Uuid::new_v4().simple().to_string()),
            jitter: Arc::new(rand::random::<f64>),
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The endpoint is no address.
    #[error("endpoint {endpoint:?} is not of the form [http[s]://]host[:port]")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// HTTPS cannot be set up.
    #[error("trusted certificates for {endpoint} cannot be loaded")]
    Tls {
        /// The endpoint.
        endpoint: String,
        /// The cause.
        source: BoxError,
    },
}

/// A client; clones share connections and limits.
#[derive(Clone)]
pub struct EciClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: EciConfig,
    /// The configured ones until others take their place.
    credentials: RwLock<Arc<Credentials>>,
    /// `http` or `https`.
    scheme: http::uri::Scheme,
    /// Host with port as it stands in the `Host` header.
    authority: http::uri::Authority,
    sources: ClientSources,
    transport: Arc<dyn Transport>,
    limiter: limits::Limiter,
    in_flight: tokio::sync::Semaphore,
}

impl fmt::Debug for EciClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = &self.inner.config.endpoint;
        formatter
            .debug_struct("EciClient")
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

impl EciClient {
    /// A client over the network.
    pub fn new(config: EciConfig, sources: ClientSources) -> Result<Self, ConfigError> {
        let (scheme, _) = parse_endpoint(&config.endpoint)?;
        let transport =
            HyperTransport::new(scheme == http::uri::Scheme::HTTPS, config.max_in_flight).map_err(
                |source| ConfigError::Tls {
                    endpoint: config.endpoint.clone(),
                    source,
                },
            )?;
        Self::with_transport(config, sources, Arc::new(transport))
    }

    /// A client over any transport.
    pub fn with_transport(
        config: EciConfig,
        sources: ClientSources,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ConfigError> {
        let (scheme, authority) = parse_endpoint(&config.endpoint)?;
        let limiter = limits::Limiter::new(config.limits.clone());
        let in_flight = tokio::sync::Semaphore::new(config.max_in_flight.max(1));
        let credentials = RwLock::new(Arc::new(config.credentials.clone()));
        let inner = Inner {
            config,
            credentials,
            scheme,
            authority,
            sources,
            transport,
            limiter,
            in_flight,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The region that is put into requests that name none.
    pub fn region(&self) -> &str {
        &self.inner.config.region
    }

    /// Signs all calls from now on with other credentials: a rotated key, or temporary ones before they run out.
    pub fn set_credentials(&self, credentials: Credentials) {
        let current = self.inner.credentials.write();
        *current.unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }

    fn credentials(&self) -> Arc<Credentials> {
        let current = self.inner.credentials.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does one action.
    pub async fn call<A: Action>(&self, request: &A) -> Result<A::Response, EciError> {
        let mut parameters = flatten(request).map_err(|source| EciError::Request {
            action: A::NAME,
            source: source.into(),
        })?;
        parameters.retain(|(name, value)| name != "RegionId" || !value.is_empty());
        if !parameters.iter().any(|(name, _)| name == "RegionId") {
            parameters.push(("RegionId".to_owned(), self.inner.config.region.clone()));
        }
        let repeatable = A::REPEATABLE || !request.client_token().is_empty();
        let mut attempt = 1;
        loop {
            self.inner.limiter.wait(A::NAME).await?;
            let error = match self.attempt::<A>(&parameters).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = error.is_throttling() || repeatable && error.is_retryable();
            if !again || attempt >= self.inner.config.attempts {
                return Err(error);
            }
            let pause = self.pause(attempt, &error);
            tracing::debug!(action = A::NAME, attempt, %error, pause_ms = pause.as_millis(), "call is repeated");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Exponential back-off, of which at least half is waited.
    fn pause(&self, attempt: u32, error: &EciError) -> Duration {
        let config = &self.inner.config;
        let doubled = config
            .backoff_start
            .saturating_mul(1 << (attempt - 1).min(16))
            .min(config.backoff_limit);
        let jitter = (self.inner.sources.jitter)().clamp(0.0, 1.0);
        let pause = doubled.mul_f64(0.5 + jitter / 2.0);
        let asked = error
            .service()
            .and_then(|error| error.retry_after)
            .unwrap_or_default();
        pause.max(asked.min(config.backoff_limit))
    }
}

/// Scheme and authority of `[http[s]://]host[:port]`.
pub(crate) fn parse_endpoint(
    endpoint: &str,
) -> Result<(http::uri::Scheme, http::uri::Authority), ConfigError> {
    let wrong = || ConfigError::Endpoint {
        endpoint: endpoint.to_owned(),
    };
    let with_scheme = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("https://{endpoint}")
    };
    let uri: http::Uri = with_scheme.parse().map_err(|_| wrong())?;
    let parts = uri.into_parts();
    let bare = parts.path_and_query.is_none_or(|path| path == "/");
    match (parts.scheme, parts.authority) {
        (Some(scheme), Some(authority)) if bare && ["http", "https"].contains(&scheme.as_str()) => {
            Ok((scheme, authority))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_with_and_without_scheme() {
        let (scheme, authority) = parse_endpoint("http://127.0.0.1:8080").unwrap();
        assert_eq!(
            (scheme.as_str(), authority.as_str()),
            ("http", "127.0.0.1:8080")
        );
        let (scheme, authority) = parse_endpoint("eci.aliyuncs.com").unwrap();
        assert_eq!(
            (scheme.as_str(), authority.as_str()),
            ("https", "eci.aliyuncs.com")
        );
        for wrong in ["", "ftp://x", "http://x/path", "http://"] {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}

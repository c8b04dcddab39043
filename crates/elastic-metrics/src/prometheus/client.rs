//! The client: where Prometheus is, as whom it is asked, and how much at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::Semaphore;

use super::answer::{self, AnswerError, Sample};
use crate::outgoing::{Dialer, FetchError, Fetcher, TrustError};

/// Queries under way at the same time; more wait.
const MAX_QUERIES: usize = 32;
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// An autoscaler asks again after 15 s, so a slower answer is of no use.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How queries are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// In the address.
    Get,
    /// In the body, so that long lists of names do no harm.
    #[default]
    Post,
}

/// Where Prometheus is and how it is asked.
#[derive(Clone, Debug, Default)]
pub struct PrometheusOptions {
    /// Base address, such as `http://prometheus.monitoring.svc:9090`.
    pub url: String,
    /// How queries are sent.
    pub verb: Verb,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// A bearer token, read anew for every request, so that it may be renewed.
    pub token_file: Option<PathBuf>,
    /// Who vouches for an `https://` address; the machine's authorities otherwise.
    pub authority_file: Option<PathBuf>,
}

/// Prometheus cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// The address.
    #[error(
        "the Prometheus address {url:?} cannot be used; http://host:port or https://host:port is expected"
    )]
    Url {
        /// As given.
        url: String,
    },
    /// A header.
    #[error(
        "the Prometheus header {name:?} cannot be sent; name=value without control characters is expected"
    )]
    Header {
        /// Its name.
        name: String,
    },
    /// TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A question without a usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("Prometheus cannot be asked: {0}")]
    Unreachable(#[from] FetchError),
    #[error("Prometheus refused: {0}")]
    Answer(#[from] AnswerError),
    #[error("Prometheus answered {0}")]
    Status(StatusCode),
    #[error("the token file {path} cannot be read")]
    Token {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the question cannot be written as a request")]
    Request(#[from] http::Error),
}

/// See the module.
pub(crate) struct Prometheus {
    base: String,
    verb: Verb,
    headers: Vec<(HeaderName, HeaderValue)>,
    token_file: Option<PathBuf>,
    fetcher: Fetcher,
    places: Semaphore,
}

impl Prometheus {
    pub(crate) fn new(
        options: &PrometheusOptions,
        dialer: Arc<dyn Dialer>,
    ) -> Result<Self, PrometheusError> {
        let url = options.url.trim_end_matches('/');
        let parsed = url.parse::<http::Uri>().ok();
        let usable = parsed.filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        if usable.is_none() {
            return Err(PrometheusError::Url {
                url: options.url.clone(),
            });
        }
        let mut headers = Vec::new();
        for (name, value) in &options.headers {
            let parsed = HeaderName::try_from(name.as_str())
                .ok()
                .zip(HeaderValue::try_from(value.as_str()).ok());
            headers.push(parsed.ok_or_else(|| PrometheusError::Header { name: name.clone() })?);
        }
        Ok(Self {
            base: url.to_owned(),
            verb: options.verb,
            headers,
            token_file: options.token_file.clone(),
            fetcher: Fetcher::new(dialer, options.authority_file.as_deref())?,
            places: Semaphore::new(MAX_QUERIES),
        })
    }

    /// The instant value of a query; series whose last sample is older than `lookback` count as gone.
    pub(crate) async fn query(
        &self,
        query: &str,
        lookback: Option<Duration>,
    ) -> Result<Vec<Sample>, SourceError> {
        let mut form = vec![
            ("query", query.to_owned()),
            ("timeout", format!("{}s", QUERY_TIMEOUT.as_secs())),
        ];
        if let Some(lookback) = lookback {
            form.push(("lookback_delta", format!("{}s", lookback.as_secs().max(1))));
        }
        let body = self.ask("/api/v1/query", &form).await?;
        Ok(answer::samples(&body)?)
    }

    /// The series that a selector finds since `start_seconds`.
    pub(crate) async fn series(
        &self,
        selector: &str,
        start_seconds: i64,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, SourceError> {
        let form = [
            ("match[]", selector.to_owned()),
            ("start", start_seconds.to_string()),
        ];
        let body = self.ask("/api/v1/series", &form).await?;
        Ok(answer::series(&body)?)
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Bytes, SourceError> {
        let pairs = form
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let text = pairs.collect::<Vec<_>>().join("&");
        let address = format!("{}{path}", self.base);
        let (mut request, body) = match self.verb {
            Verb::Get => (Request::get(format!("{address}?{text}")), String::new()),
            Verb::Post => {
                let request = Request::builder().method(Method::POST).uri(address);
                (
                    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
                    text,
                )
            }
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(path) = &self.token_file {
            let token =
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|source| SourceError::Token {
                        path: path.display().to_string(),
                        source,
                    })?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        // The semaphore is never closed.
        let _place = self.places.acquire().await.ok();
        let (status, body) = self
            .fetcher
            .send(request, MAX_ANSWER_BYTES, QUERY_TIMEOUT)
            .await?;
        // Refusals of Prometheus itself have a status of their own and say in the body why.
        if status.is_success() || body.starts_with(b"{") {
            return Ok(body);
        }
        Err(SourceError::Status(status))
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::OwnNetwork;

    fn options(url: &str) -> PrometheusOptions {
        PrometheusOptions {
            url: url.to_owned(),
            ..PrometheusOptions::default()
        }
    }

    #[test]
    fn unusable_addresses_and_headers_are_refused() {
        for url in ["", "prometheus:9090", "ftp://x", "http://x?y=z"] {
            assert!(
                Prometheus::new(&options(url), Arc::new(OwnNetwork)).is_err(),
                "{url}"
            );
        }
        assert!(
            Prometheus::new(
                &options("http://127.0.0.1:9090/prefix/"),
                Arc::new(OwnNetwork)
            )
            .is_ok()
        );
        let mut with_header = options("http://127.0.0.1:9090");
        with_header.headers.push(("X\n".to_owned(), "y".to_owned()));
        assert!(Prometheus::new(&with_header, Arc::new(OwnNetwork)).is_err());
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encode("a{b=\"c d\"}+é"), "a%7Bb%3D%22c%20d%22%7D%2B%C3%A9");
    }
}

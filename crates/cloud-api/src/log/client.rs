//! The client of the log service: signs, sends, repeats what may be repeated.
//!
//! Writing logs twice is possible when an answer is lost, as with the vendor's own clients: the service has no token
//! against it.

use super::compression::CompressType;
use super::group::LogGroup;
use super::model::{ErrorBody, GetLogsRequest, Histogram, LogsAnswer, Logstore};
use super::signature::{LogRequest, content_md5, content_sha256};
use super::{API_VERSION, MAX_PUT_BYTES, MAX_PUT_LOGS};
use crate::client::{BoxError, ConfigError, HyperTransport, Transport, parse_endpoint};
use crate::encoding::encode_pairs;
use crate::{ClientSources, Credentials};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Most idle connections that are kept.
const CONNECTIONS: usize = 16;
const JSON: &str = "application/json";

/// Which signature a client puts on its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogSignature {
    /// `LOG`, HMAC-SHA1.
    V1,
    /// `SLS4-HMAC-SHA256`.
    #[default]
    V4,
}

/// How to reach the service and as whom.
#[derive(Clone, Debug)]
pub struct LogClientConfig {
    /// `http://127.0.0.1:8080`, `https://cn-hangzhou.log.aliyuncs.com`; without a scheme HTTPS is meant.
    pub endpoint: String,
    /// The region, part of the signature.
    pub region: String,
    /// The access key.
    pub credentials: Credentials,
    /// Which signature.
    pub signature: LogSignature,
    /// The longest wait for one attempt's answer.
    pub attempt_timeout: Duration,
    /// Most attempts of one call.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from there.
    pub backoff_start: Duration,
}

impl LogClientConfig {
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
            signature: LogSignature::V4,
            attempt_timeout: Duration::from_secs(20),
            attempts: 3,
            backoff_start: Duration::from_millis(200),
        }
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The service refused.
    #[error(
        "{operation} was refused with {code} (http {http_status}, request {request_id}): {message}"
    )]
    Service {
        /// What was attempted.
        operation: &'static str,
        /// The documented code.
        code: String,
        /// What is wrong, for people.
        message: String,
        /// Names the call in the service's logs.
        request_id: String,
        /// The HTTP status.
        http_status: u16,
    },
    /// The request or its answer was lost on the way.
    #[error("{operation} did not reach the log service or its answer was lost")]
    Transport {
        /// What was attempted.
        operation: &'static str,
        /// The cause.
        source: BoxError,
    },
    /// No answer in time.
    #[error("{operation} got no answer within {seconds} s")]
    Timeout {
        /// What was attempted.
        operation: &'static str,
        /// The limit.
        seconds: f64,
    },
    /// An answer that is not the documented one.
    #[error("the answer to {operation} (http {http_status}) cannot be read")]
    Answer {
        /// What was attempted.
        operation: &'static str,
        /// The HTTP status.
        http_status: u16,
        /// The cause.
        source: serde_json::Error,
    },
    /// The request cannot be written down.
    #[error("the request for {operation} cannot be built: {reason}")]
    Request {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
}

impl LogError {
    /// The service's error code, or nothing.
    pub fn code(&self) -> &str {
        match self {
            Self::Service { code, .. } => code,
            _ => "",
        }
    }

    /// A word for the kind of failure, for a metric's label.
    pub fn reason(&self) -> &str {
        match self {
            Self::Service { code, .. } => code,
            Self::Transport { .. } => "Transport",
            Self::Timeout { .. } => "Timeout",
            Self::Answer { .. } => "Answer",
            Self::Request { .. } => "Request",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Service { http_status, .. } | Self::Answer { http_status, .. } => {
                *http_status >= 500
            }
            Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Request { .. } => false,
        }
    }
}

/// A client; clones share connections.
#[derive(Clone)]
pub struct LogClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: LogClientConfig,
    credentials: RwLock<Arc<Credentials>>,
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    sources: ClientSources,
    transport: Arc<dyn Transport>,
}

impl std::fmt::Debug for LogClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LogClient")
            .field("endpoint", &self.inner.config.endpoint)
            .finish_non_exhaustive()
    }
}

/// A call before it is signed.
struct Call<'a> {
    operation: &'static str,
    method: Method,
    /// No project for calls that concern all.
    project: Option<&'a str>,
    path: String,
    query: Vec<(String, String)>,
    content_type: Option<&'static str>,
    compressed: Option<CompressType>,
    raw_size: usize,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn new(operation: &'static str, method: Method, project: &'a str, path: String) -> Self {
        Self {
            operation,
            method,
            project: Some(project),
            path,
            query: Vec::new(),
            content_type: None,
            compressed: None,
            raw_size: 0,
            body: Bytes::new(),
        }
    }

    fn json(mut self, body: &Value) -> Self {
        self.body = Bytes::from(body.to_string());
        self.raw_size = self.body.len();
        self.content_type = Some(JSON);
        self
    }
}

impl LogClient {
    /// A client over the network.
    pub fn new(config: LogClientConfig, sources: ClientSources) -> Result<Self, ConfigError> {
        let (scheme, _) = parse_endpoint(&config.endpoint)?;
        let transport = HyperTransport::new(scheme == http::uri::Scheme::HTTPS, CONNECTIONS)
            .map_err(|source| ConfigError::Tls {
                endpoint: config.endpoint.clone(),
                source,
            })?;
        Self::with_transport(config, sources, Arc::new(transport))
    }

    /// A client over any transport.
    pub fn with_transport(
        config: LogClientConfig,
        sources: ClientSources,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ConfigError> {
        let (scheme, authority) = parse_endpoint(&config.endpoint)?;
        let credentials = RwLock::new(Arc::new(config.credentials.clone()));
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                credentials,
                scheme,
                authority,
                sources,
                transport,
            }),
        })
    }

    /// Signs all calls from now on with other credentials.
    pub fn set_credentials(&self, credentials: Credentials) {
        let current = self.inner.credentials.write();
        *current.unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }

    /// Makes a project.
    pub async fn create_project(&self, project: &str, description: &str) -> Result<(), LogError> {
        let body = json!({"projectName": project, "description": description});
        let call = Call::new("CreateProject", Method::POST, project, "/".to_owned()).json(&body);
        self.call(call).await.map(drop)
    }

    /// Removes a project with all its logs.
    pub async fn delete_project(&self, project: &str) -> Result<(), LogError> {
        let call = Call::new("DeleteProject", Method::DELETE, project, "/".to_owned());
        self.call(call).await.map(drop)
    }

    /// Makes a logstore.
    pub async fn create_logstore(
        &self,
        project: &str,
        logstore: &Logstore,
    ) -> Result<(), LogError> {
        let body = json!(logstore);
        let path = "/logstores".to_owned();
        let call = Call::new("CreateLogStore", Method::POST, project, path).json(&body);
        self.call(call).await.map(drop)
    }

    /// A logstore's settings.
    pub async fn get_logstore(&self, project: &str, logstore: &str) -> Result<Logstore, LogError> {
        let path = format!("/logstores/{logstore}");
        let call = Call::new("GetLogStore", Method::GET, project, path);
        read("GetLogStore", &self.call(call).await?)
    }

    /// Removes a logstore with its logs.
    pub async fn delete_logstore(&self, project: &str, logstore: &str) -> Result<(), LogError> {
        let path = format!("/logstores/{logstore}");
        let call = Call::new("DeleteLogStore", Method::DELETE, project, path);
        self.call(call).await.map(drop)
    }

    /// Gives a logstore an index: `{"line": …, "keys": {"field": {"type": "text" …}}}`.
    pub async fn create_index(
        &self,
        project: &str,
        logstore: &str,
        index: &Value,
    ) -> Result<(), LogError> {
        let path = format!("/logstores/{logstore}/index");
        let call = Call::new("CreateIndex", Method::POST, project, path).json(index);
        self.call(call).await.map(drop)
    }

    /// Writes logs.
    pub async fn put_logs(
        &self,
        project: &str,
        logstore: &str,
        group: &LogGroup,
    ) -> Result<(), LogError> {
        let operation = "PutLogs";
        let raw = group.encode();
        if raw.len() > MAX_PUT_BYTES || group.logs.len() > MAX_PUT_LOGS {
            return Err(LogError::Request {
                operation,
                reason: format!(
                    "one call takes at most {MAX_PUT_LOGS} logs and {MAX_PUT_BYTES} bytes"
                ),
            });
        }
        let path = format!("/logstores/{logstore}/shards/lb");
        let mut call = Call::new(operation, Method::POST, project, path);
        call.raw_size = raw.len();
        call.content_type = Some("application/x-protobuf");
        call.compressed = Some(CompressType::Lz4);
        call.body = Bytes::from(CompressType::Lz4.compress(&raw));
        self.call(call).await.map(drop)
    }

    /// Asks for logs, or for rows when the query has an SQL part.
    pub async fn get_logs(
        &self,
        project: &str,
        logstore: &str,
        request: &GetLogsRequest,
    ) -> Result<LogsAnswer, LogError> {
        let operation = "GetLogs";
        let path = format!("/logstores/{logstore}/logs");
        let call = Call::new(operation, Method::POST, project, path).json(&json!(request));
        read(operation, &self.call(call).await?)
    }

    /// Asks how many logs there are over time.
    pub async fn get_histograms(
        &self,
        project: &str,
        logstore: &str,
        search: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<Histogram>, LogError> {
        let operation = "GetHistograms";
        let path = format!("/logstores/{logstore}");
        let mut call = Call::new(operation, Method::GET, project, path);
        let (from, to) = (from.to_string(), to.to_string());
        let query = [
            ("type", "histogram"),
            ("from", &from),
            ("to", &to),
            ("query", search),
        ];
        call.query = query
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        read(operation, &self.call(call).await?)
    }

    async fn call(&self, call: Call<'_>) -> Result<Response<Bytes>, LogError> {
        let config = &self.inner.config;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if attempt >= config.attempts || !error.is_retryable() {
                return Err(error);
            }
            let jitter = (self.inner.sources.jitter)().clamp(0.0, 1.0);
            let doubled = config
                .backoff_start
                .saturating_mul(1 << (attempt - 1).min(8));
            tracing::debug!(operation = call.operation, attempt, %error, "call is repeated");
            tokio::time::sleep(doubled.mul_f64(0.5 + jitter / 2.0)).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Response<Bytes>, LogError> {
        let operation = call.operation;
        let request = self.signed(call).map_err(|error| LogError::Request {
            operation,
            reason: error.to_string(),
        })?;
        let limit = self.inner.config.attempt_timeout;
        let sent = tokio::time::timeout(limit, self.inner.transport.send(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(LogError::Transport { operation, source }),
            Err(_) => {
                let seconds = limit.as_secs_f64();
                return Err(LogError::Timeout { operation, seconds });
            }
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let refused: ErrorBody = read(operation, &answer)?;
        let request_id = answer.headers().get("x-log-requestid");
        Err(LogError::Service {
            operation,
            code: refused.error_code,
            message: refused.error_message,
            request_id: request_id
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            http_status: answer.status().as_u16(),
        })
    }

    /// Where a call goes, and the `Host` it names: the project is the first label of the host, but an address or
    /// `localhost` has no names below it, so there only the header says it.
    fn target(&self, call: &Call<'_>) -> Result<(Uri, String), http::Error> {
        let authority = &self.inner.authority;
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let has_no_names = bare.parse::<IpAddr>().is_ok() || host == "localhost";
        let host = match call.project {
            Some(project) => format!("{project}.{host}"),
            None => host.to_owned(),
        };
        let reached = match (has_no_names, authority.port_u16()) {
            (true, _) => authority.to_string(),
            (false, Some(port)) => format!("{host}:{port}"),
            (false, None) => host.clone(),
        };
        let query = encode_pairs(call.query.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let path = match query.as_str() {
            "" => call.path.clone(),
            query => format!("{}?{query}", call.path),
        };
        let uri = Uri::builder()
            .scheme(self.inner.scheme.clone())
            .authority(reached)
            .path_and_query(path)
            .build()?;
        Ok((uri, host))
    }

    fn signed(&self, call: &Call<'_>) -> Result<Request<Bytes>, http::Error> {
        let (uri, host) = self.target(call)?;
        let current = self.inner.credentials.read();
        let credentials = current.unwrap_or_else(PoisonError::into_inner).clone();
        let now = (self.inner.sources.now)();
        let config = &self.inner.config;
        let mut headers = vec![
            ("host", host),
            ("x-log-apiversion", API_VERSION.to_owned()),
            ("x-log-bodyrawsize", call.raw_size.to_string()),
        ];
        if let Some(content_type) = call.content_type {
            headers.push(("content-type", content_type.to_owned()));
        }
        if let Some(compressed) = call.compressed {
            headers.push(("x-log-compresstype", compressed.name().to_owned()));
        }
        if let Some(token) = &credentials.security_token {
            headers.push(("x-acs-security-token", token.clone()));
        }
        match config.signature {
            LogSignature::V1 => {
                headers.push(("x-log-signaturemethod", "hmac-sha1".to_owned()));
                headers.push(("date", date_v1(now)));
                if !call.body.is_empty() {
                    headers.push(("content-md5", content_md5(&call.body)));
                }
            }
            LogSignature::V4 => {
                headers.push(("x-log-date", date_v4(now)));
                headers.push(("x-log-content-sha256", content_sha256(&call.body)));
            }
        }
        let headers: Vec<(String, String)> = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let signed = LogRequest {
            method: call.method.as_str(),
            path: &call.path,
            query: &call.query,
            headers: &headers,
        };
        let (id, secret) = (&credentials.access_key_id, &credentials.access_key_secret);
        let authorization = match config.signature {
            LogSignature::V1 => signed.authorize_v1(id, secret),
            LogSignature::V4 => signed.authorize_v4(id, secret, &config.region),
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::AUTHORIZATION, authorization)
            .body(call.body.clone())?;
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(request)
    }
}

/// The `Date` of the older signature.
pub fn date_v1(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

/// The `x-log-date` of the newer signature.
pub fn date_v4(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

fn read<T: DeserializeOwned>(
    operation: &'static str,
    answer: &Response<Bytes>,
) -> Result<T, LogError> {
    serde_json::from_slice(answer.body()).map_err(|source| LogError::Answer {
        operation,
        http_status: answer.status().as_u16(),
        source,
    })
}

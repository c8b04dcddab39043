//! A small client of Prometheus' range queries, over the HTTP client that the API server is asked with. Refuses answers beyond a
//! bound.

use std::time::Duration;

use elastic_core::forecast::Sample;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kube::client::Body;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

/// Points that Prometheus gives in one answer.
pub(super) const POINTS_MAX: i64 = 10_000;
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// So much of an answer that is none is told.
const EXCERPT_CHARS: usize = 200;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrometheusError {
    #[error("{0} is no address of the form http://host:port or https://host:port")]
    Address(String),
    #[error("spec.source.prometheus.authorizationSecret holds what no header can say")]
    Authorization,
    #[error("spec.source.prometheus.authorityConfigMap holds no certificate as PEM")]
    Authority,
    #[error("cannot ask {address}: {reason}")]
    Exchange { address: String, reason: String },
    #[error("{address} did not answer within {timeout:?}")]
    Timeout { address: String, timeout: Duration },
    #[error("{address} refused the query: {reason}")]
    Refused { address: String, reason: String },
    #[error("the query gives {0} series; let it give one, with sum(…) or by more labels")]
    Series(usize),
}

/// One range query.
pub(super) struct Range<'a> {
    pub(super) query: &'a str,
    pub(super) start_second: i64,
    pub(super) end_second: i64,
    pub(super) step_seconds: i64,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    values: Vec<(f64, String)>,
}

/// Whom to ask, and as whom.
pub(super) struct Server {
    address: String,
    authorization: Option<HeaderValue>,
    client: Client,
    timeout: Duration,
}

impl Server {
    /// `authority` is PEM; without it the machine's authorities vouch for the server.
    pub(super) fn new(
        address: String,
        authorization: Option<&str>,
        authority: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, PrometheusError> {
        let wrong = || PrometheusError::Address(address.clone());
        let uri: http::Uri = address.parse().map_err(|_| wrong())?;
        let (Some("http" | "https"), Some(_)) = (uri.scheme_str(), uri.host()) else {
            return Err(wrong());
        };
        let mut config = Config::new(uri);
        config.root_cert = authority.map(certificates).transpose()?;
        config.connect_timeout = Some(timeout);
        let client = Client::try_from(config).map_err(|error| PrometheusError::Exchange {
            address: address.clone(),
            reason: innermost(&error),
        })?;
        Ok(Self {
            address,
            authorization: authorization.map(header_value).transpose()?,
            client,
            timeout,
        })
    }

    /// Asks; no series is an empty answer.
    pub(super) async fn ask(&self, range: &Range<'_>) -> Result<Vec<Sample>, PrometheusError> {
        let answer = tokio::time::timeout(self.timeout, self.exchange(range)).await;
        let body = answer.unwrap_or_else(|_| {
            Err(PrometheusError::Timeout {
                address: self.address.clone(),
                timeout: self.timeout,
            })
        })?;
        read(&self.address, &body)
    }

    async fn exchange(&self, range: &Range<'_>) -> Result<bytes::Bytes, PrometheusError> {
        let broken = |reason: String| PrometheusError::Exchange {
            address: self.address.clone(),
            reason,
        };
        let form = "application/x-www-form-urlencoded";
        let mut request = Request::post("/api/v1/query_range").header(header::CONTENT_TYPE, form);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Body::from(self::form(range).into_bytes()));
        let request = request.map_err(|error| broken(error.to_string()))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| broken(innermost(&error)))?;
        // Prometheus explains 400 and 422 in the answer; who is not let in gets no such answer.
        let code = answer.status();
        if matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(PrometheusError::Refused {
                address: self.address.clone(),
                reason: format!("{code}; see authorizationSecret"),
            });
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await;
        Ok(body.map_err(|error| broken(error.to_string()))?.to_bytes())
    }
}

/// A bare word is a bearer token.
fn header_value(text: &str) -> Result<HeaderValue, PrometheusError> {
    let text = text.trim();
    let text = match text.contains(' ') {
        true => text.to_owned(),
        false => format!("Bearer {text}"),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| PrometheusError::Authorization)?;
    value.set_sensitive(true);
    Ok(value)
}

fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, PrometheusError> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes());
    let read: Result<Vec<_>, _> = read.map(|one| one.map(|one| one.to_vec())).collect();
    let read = read.map_err(|_| PrometheusError::Authority)?;
    (!read.is_empty())
        .then_some(read)
        .ok_or(PrometheusError::Authority)
}

/// What lies beneath says more than the client's own words.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

fn read(address: &str, body: &[u8]) -> Result<Vec<Sample>, PrometheusError> {
    let refused = |reason: String| PrometheusError::Refused {
        address: address.to_owned(),
        reason,
    };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| {
        let text: String = String::from_utf8_lossy(body)
            .chars()
            .take(EXCERPT_CHARS)
            .collect();
        refused(format!("its answer is not Prometheus': {text}"))
    })?;
    if answer.status != "success" {
        return Err(refused(answer.error));
    }
    let mut series = answer.data.map(|data| data.result).unwrap_or_default();
    if series.len() > 1 {
        return Err(PrometheusError::Series(series.len()));
    }
    let values = series.pop().map(|series| series.values).unwrap_or_default();
    let sample = |(second, value): (f64, String)| {
        let at = Timestamp::from_millisecond((second * 1000.0) as i64).ok()?;
        let value = value.parse().ok()?;
        Some(Sample { at, value })
    };
    Ok(values.into_iter().filter_map(sample).collect())
}

fn form(range: &Range<'_>) -> String {
    format!(
        "query={}&start={}&end={}&step={}",
        encoded(range.query),
        range.start_second,
        range.end_second,
        range.step_seconds
    )
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_refusals_told() {
        let good = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1700000000,"5"],[1700000060.5,"NaN"]]}]}}"#;
        let samples = read("a", good).unwrap();
        assert_eq!(
            (samples[0].at.as_second(), samples[0].value),
            (1_700_000_000, 5.0)
        );
        assert!(samples[1].value.is_nan());
        let none = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(read("a", none).unwrap().is_empty());
        for (body, expected) in [
            (
                &br#"{"status":"error","error":"parse error"}"#[..],
                "a refused the query: parse error",
            ),
            (
                b"<html>",
                "a refused the query: its answer is not Prometheus': <html>",
            ),
            (
                br#"{"status":"success","data":{"result":[{"values":[]},{"values":[]}]}}"#,
                "the query gives 2 series; let it give one, with sum(\u{2026}) or by more labels",
            ),
        ] {
            assert_eq!(read("a", body).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_query_is_written_as_a_form() {
        let range = Range {
            query: "sum(x{a=\"b c\"})",
            start_second: 1,
            end_second: 2,
            step_seconds: 3,
        };
        assert_eq!(
            form(&range),
            "query=sum%28x%7Ba%3D%22b%20c%22%7D%29&start=1&end=2&step=3"
        );
    }

    #[test]
    fn a_bare_word_is_a_bearer_token() {
        assert_eq!(header_value("abc\n").unwrap(), "Bearer abc");
        assert_eq!(header_value("Basic eHg6eA==").unwrap(), "Basic eHg6eA==");
        assert!(header_value("a\nb c").is_err());
        assert!(header_value("abc").unwrap().is_sensitive());
    }

    #[test]
    fn what_cannot_be_asked_is_told_by_its_field() {
        let server = |address: &str, authority: Option<&str>| {
            let made = Server::new(address.to_owned(), None, authority, Duration::from_secs(1));
            made.err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(server("ftp://h", None).contains("http://host:port"));
        assert!(server("https://h", Some("none")).contains("authorityConfigMap"));
    }
}

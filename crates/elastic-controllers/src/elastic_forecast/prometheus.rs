//! A small client of Prometheus' range queries. Refuses https and answers beyond a bound by name.

use std::time::Duration;

use elastic_core::forecast::Sample;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Points that Prometheus gives in one answer.
pub(super) const POINTS_MAX: i64 = 10_000;
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// So much of an answer that is none is told.
const EXCERPT_CHARS: usize = 200;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrometheusError {
    #[error("{0} is no address of the form http://host:port")]
    Address(String),
    #[error("cannot connect to {address}: {source}")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("{address} did not answer: {reason}")]
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
    pub(super) address: &'a str,
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

/// Asks; no series is an empty answer.
pub(super) async fn ask(
    range: &Range<'_>,
    timeout: Duration,
) -> Result<Vec<Sample>, PrometheusError> {
    let address = range.address.to_owned();
    let answer = tokio::time::timeout(timeout, exchange(range)).await;
    let body = answer.map_err(|_| PrometheusError::Timeout { address, timeout })??;
    read(range.address, &body)
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

async fn exchange(range: &Range<'_>) -> Result<Bytes, PrometheusError> {
    let address = range.address;
    let wrong = || PrometheusError::Address(address.to_owned());
    let uri: http::Uri = address.parse().map_err(|_| wrong())?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(wrong());
    };
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|source| PrometheusError::Connect {
        address: address.to_owned(),
        source,
    })?;
    let broken = |error: &dyn std::fmt::Display| PrometheusError::Exchange {
        address: address.to_owned(),
        reason: error.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let request = Request::post(format!(
        "{}/api/v1/query_range",
        uri.path().trim_end_matches('/')
    ))
    .header(http::header::HOST, format!("{host}:{port}"))
    .header(
        http::header::CONTENT_TYPE,
        "application/x-www-form-urlencoded",
    )
    .body(Full::new(Bytes::from(form(range))))
    .map_err(|error| broken(&error))?;
    let asked = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        Ok(body.await.map_err(|error| broken(&error))?.to_bytes())
    };
    // The connection lives as long as the question, so it needs no task of its own.
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(broken(&error)),
        },
    }
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
            address: "http://h",
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
}

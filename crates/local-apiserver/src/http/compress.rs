//! gzip for large whole answers, as upstream: above 128 KiB, never for streams.

use super::body::{self, ResponseBody};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use std::io::Write;

/// Smaller answers are sent as they are.
const THRESHOLD: u64 = 128 << 10;

/// Whether the client takes gzip.
pub fn wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.any(|text| {
        text.split(',').any(|one| {
            let one = one.trim();
            one == "gzip" || one.starts_with("gzip;") && !one.ends_with("q=0")
        })
    })
}

/// Compresses a large whole body.
pub async fn response(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let exact = response.body().size_hint().exact();
    if exact.is_none_or(|bytes| bytes < THRESHOLD)
        || response.headers().contains_key(header::CONTENT_ENCODING)
    {
        return response;
    }
    let (mut parts, whole) = response.into_parts();
    let Ok(collected) = whole.collect().await else {
        return Response::from_parts(parts, body::full(bytes::Bytes::new()));
    };
    let plain = collected.to_bytes();
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let Ok(packed) = packed else {
        return Response::from_parts(parts, body::full(plain));
    };
    parts.headers.insert(
        header::CONTENT_ENCODING,
        header::HeaderValue::from_static("gzip"),
    );
    parts.headers.append(
        header::VARY,
        header::HeaderValue::from_static("Accept-Encoding"),
    );
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body::full(packed))
}

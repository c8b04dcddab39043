//! Bodies: bounded requests, whole or streamed responses.

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{Response, StatusCode, header};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use crate::status::{ApiError, ApiResult};

/// Errors of bodies.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Request bodies of every origin.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;
/// Response bodies.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The largest request body.
pub const BODY_BYTES: usize = 3 << 20;

/// Reads a whole body, refusing one that is too large.
pub async fn read(mut body: RequestBody) -> ApiResult<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                return Err(ApiError::bad_request(format!(
                    "unable to read the request body: {error}"
                )));
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > BODY_BYTES {
            return Err(ApiError::too_large(format!("limit is {BODY_BYTES}")));
        }
        // Most bodies are one chunk and need no copy.
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A streamed body.
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> ResponseBody {
    use futures::StreamExt;
    let frames = chunks.map(|chunk| Ok(http_body::Frame::data(chunk)));
    StreamBody::new(frames).boxed_unsync()
}

/// A response of the given type.
pub fn response(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// A JSON response.
pub fn json(status: u16, value: &Value) -> Response<ResponseBody> {
    response(status, "application/json", value.to_string())
}

/// A text response as Go's `http.Error` writes it.
pub fn text(status: u16, text: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = response(status, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

/// A refused request.
pub fn error(error: &ApiError) -> Response<ResponseBody> {
    let mut response = json(error.code.as_u16(), &error.body);
    if let Some(seconds) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    response
}

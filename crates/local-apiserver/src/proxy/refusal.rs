//! A kubelet's refusal of a pod's subresource, told as the `Status` that clients of the API expect.

use crate::http::ResponseBody;
use crate::status::{ApiError, ApiResult};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;

/// So much of a refusal is read; a kubelet's sentence is far shorter.
const TEXT_BYTES: usize = 16 << 10;

/// Passes answers on; a refusal in plain text becomes an error with its sentence.
pub async fn as_status(
    response: Response<ResponseBody>,
    pod: &str,
) -> ApiResult<Response<ResponseBody>> {
    let code = response.status();
    let content = response.headers().get(header::CONTENT_TYPE);
    let is_json = content.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    // Says which protocols it would have taken, which a client goes by.
    let negotiates = response
        .headers()
        .contains_key("x-accepted-stream-protocol-versions");
    if !(code.is_client_error() || code.is_server_error()) || is_json || negotiates {
        return Ok(response);
    }
    let text = text(response.into_body()).await;
    Err(error(code, text.trim(), pod))
}

async fn text(mut body: ResponseBody) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = TEXT_BYTES - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == TEXT_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn error(code: StatusCode, text: &str, pod: &str) -> ApiError {
    let reason = match code {
        StatusCode::BAD_REQUEST => return ApiError::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => return ApiError::internal(text),
        // These would tell the client that it is not let in here; it is the kubelet that does not let us in.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return ApiError::internal(format!("the kubelet refused the API server: {text}"));
        }
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "",
    };
    ApiError::new(
        code,
        reason,
        text,
        Some(json!({"name": pod, "kind": "pods"})),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_its_sentence() {
        let missing = error(StatusCode::NOT_FOUND, "pod \"web\" not found", "web");
        assert_eq!(
            (missing.reason(), missing.message()),
            ("NotFound", "pod \"web\" not found")
        );
        assert_eq!(missing.code, StatusCode::NOT_FOUND);
        let waiting = error(
            StatusCode::BAD_REQUEST,
            "container is waiting to start",
            "web",
        );
        assert_eq!(waiting.reason(), "BadRequest");
    }

    #[test]
    fn a_kubelet_that_does_not_know_the_server_is_not_the_clients_fault() {
        for code in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let error = error(code, "Forbidden", "web");
            assert_eq!(error.code, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[tokio::test]
    async fn only_the_beginning_of_an_endless_refusal_is_read() {
        let body = crate::http::body::full("x".repeat(TEXT_BYTES * 2));
        assert_eq!(text(body).await.len(), TEXT_BYTES);
    }
}

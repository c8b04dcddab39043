//! `/openapi/v2`: the document older clients validate with, as JSON or protobuf.
//!
//! It is built for each request and dropped again: the tree is large, clients ask once per command, and the tag lets
//! those that kept it skip the build. It refuses other media types with an empty 406, as upstream does.

use super::{hex, pages, set_cache};
use crate::core::Core;
use crate::http::ResponseBody;
use crate::http::accept::clauses;
use crate::http::body;
use crate::http::dispatch::header_text;
use crate::openapi::Document;
use crate::status::{ApiError, ApiResult};
use http::{Response, header, request};
use local_schema::openapi_v2::{Builder, protobuf};
use ring::digest::{Context, SHA512};
use std::sync::Arc;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What clients ask with; no valid media type, so the answer names the other.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers `/openapi/v2`.
pub fn document(core: &Core, parts: &request::Parts) -> ApiResult<Response<ResponseBody>> {
    let Some(content_type) = content_type(header_text(&parts.headers, &header::ACCEPT)) else {
        return Ok(finished(bare(406), None));
    };
    let custom = core.documents.custom(&core.catalog());
    let tag = tag(&custom);
    if header_text(&parts.headers, &header::IF_NONE_MATCH) == tag {
        return Ok(finished(bare(304), Some(&tag)));
    }
    let mut builder = Builder::shipped();
    for document in &custom {
        builder.add(&document.text).map_err(ApiError::internal)?;
    }
    let document = builder.document(pages::GIT_VERSION);
    let bytes = if content_type == JSON {
        document.to_string().into_bytes()
    } else {
        protobuf(&document)
    };
    Ok(finished(
        body::response(200, content_type, bytes),
        Some(&tag),
    ))
}

/// The type of the answer, `None` when the client takes nothing we have.
fn content_type(accept: &str) -> Option<&'static str> {
    let clauses = clauses(accept);
    if clauses.is_empty() {
        return Some(JSON);
    }
    clauses
        .iter()
        .find_map(|clause| match clause.media.as_str() {
            "*/*" | "application/*" | JSON => Some(JSON),
            PROTOBUF | PROTOBUF_ASKED => Some(PROTOBUF),
            _ => None,
        })
}

/// One tag for both forms; it changes with the custom resources only, as the rest is shipped.
fn tag(custom: &[Arc<Document>]) -> String {
    let mut context = Context::new(&SHA512);
    for path in local_schema::group_versions() {
        context.update(local_schema::catalog::compressed_document(path).unwrap_or_default());
    }
    for document in custom {
        context.update(document.path.as_bytes());
        context.update(document.hash.as_bytes());
    }
    format!("\"{}\"", hex(context.finish().as_ref()))
}

fn bare(status: u16) -> Response<ResponseBody> {
    let mut response = body::response(status, JSON, bytes::Bytes::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

fn finished(mut response: Response<ResponseBody>, tag: Option<&str>) -> Response<ResponseBody> {
    set_cache(&mut response, "no-cache, private");
    let headers = response.headers_mut();
    headers.insert(
        header::VARY,
        header::HeaderValue::from_static("Accept-Encoding, Accept"),
    );
    if let Some(Ok(tag)) = tag.map(header::HeaderValue::from_str) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_we_have_is_answered_and_others_are_refused() {
        assert_eq!(content_type(""), Some(JSON));
        assert_eq!(content_type("*/*"), Some(JSON));
        assert_eq!(content_type(PROTOBUF_ASKED), Some(PROTOBUF));
        assert_eq!(content_type(PROTOBUF), Some(PROTOBUF));
        assert_eq!(content_type("text/plain"), None);
        assert_eq!(content_type("application/yaml"), None);
    }
}

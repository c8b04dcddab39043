//! Discovery and the other fixed pages: versions, health, OpenAPI.

mod documents;
mod openapi_v2;
mod pages;

use crate::core::Core;
use crate::http::ResponseBody;
use crate::http::accept::{self, clauses};
use crate::http::body;
use crate::http::dispatch::header_text;
use crate::http::path::Route;
use crate::registry::options::Query;
use crate::status::{ApiError, ApiResult};
use http::{Method, Response, header, request};
use serde_json::Value;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is no resource.
pub fn page(
    core: &Core,
    parts: &request::Parts,
    query: &Query,
    route: &Route,
) -> ApiResult<Response<ResponseBody>> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let header = header_text(&parts.headers, &header::ACCEPT);
    let catalog = core.catalog();
    match route {
        Route::CoreVersions | Route::Groups => {
            let whole = *route == Route::Groups;
            if wants_aggregated(header)? {
                let document = documents::aggregated(&catalog, whole, &core.remote_groups());
                return Ok(tagged(parts, AGGREGATED, &document));
            }
            let document = if whole {
                documents::group_list(&catalog, &core.remote_groups())
            } else {
                documents::core_versions(&core.address())
            };
            negotiated(header, &document)
        }
        Route::Group(group) => match documents::group(&catalog, group, &core.remote_groups()) {
            Some(document) => negotiated(header, &document),
            None => Ok(body::text(404, "404 page not found\n")),
        },
        Route::GroupVersion(group, version) => match documents::resources(&catalog, group, version)
        {
            Some(document) => negotiated(header, &document),
            None if catalog.has_group(group) => Err(ApiError::no_resource()),
            None => Ok(body::text(404, "404 page not found\n")),
        },
        Route::Resource(_) => Err(ApiError::no_resource()),
        Route::Other(path) => pages::other(core, parts, query, path),
    }
}

/// Whether the client takes aggregated discovery first; an error when it takes nothing we have.
fn wants_aggregated(header: &str) -> ApiResult<bool> {
    let clauses = clauses(header);
    for clause in &clauses {
        match clause.media.as_str() {
            "*/*" => return Ok(false),
            "application/json" if clause.parameter("as").is_empty() => return Ok(false),
            "application/yaml" => return Ok(false),
            "application/json"
                if clause.parameter("as") == "APIGroupDiscoveryList"
                    && clause.parameter("g") == "apidiscovery.k8s.io"
                    && clause.parameter("v") == "v2" =>
            {
                return Ok(true);
            }
            _ => {}
        }
    }
    if clauses.is_empty() {
        return Ok(false);
    }
    Err(ApiError::not_acceptable(accept::OBJECT_TYPES))
}

fn negotiated(header: &str, document: &Value) -> ApiResult<Response<ResponseBody>> {
    let accepted = accept::negotiate(header, false)?;
    if accepted.yaml {
        let yaml = serde_yaml::to_string(document).map_err(ApiError::internal)?;
        return Ok(body::response(200, "application/yaml", yaml));
    }
    Ok(body::json(200, document))
}

/// A response with an ETag, or 304 when the client has it.
pub fn tagged(
    parts: &request::Parts,
    content_type: &str,
    document: &Value,
) -> Response<ResponseBody> {
    tagged_text(parts, content_type, &document.to_string())
}

fn tagged_text(parts: &request::Parts, content_type: &str, text: &str) -> Response<ResponseBody> {
    let tag = format!(
        "\"{}\"",
        hex(ring::digest::digest(&ring::digest::SHA512, text.as_bytes()).as_ref())
    );
    let known = header_text(&parts.headers, &header::IF_NONE_MATCH) == tag;
    let mut response = if known {
        let mut response = body::response(304, content_type, bytes::Bytes::new());
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    } else {
        body::response(200, content_type, text.to_string())
    };
    let headers = response.headers_mut();
    if let Ok(value) = header::HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept"));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("public"),
    );
    response
}

/// Upper-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3` and what is below.
pub fn openapi(
    core: &Core,
    parts: &request::Parts,
    query: &Query,
    rest: &str,
) -> ApiResult<Response<ResponseBody>> {
    let rest = rest.trim_matches('/');
    let catalog = core.catalog();
    if rest.is_empty() {
        let paths: serde_json::Map<String, Value> = core
            .documents
            .all(&catalog)
            .iter()
            .map(|document| {
                let url = format!("/openapi/v3/{}?hash={}", document.path, document.hash);
                (
                    document.path.clone(),
                    serde_json::json!({"serverRelativeURL": url}),
                )
            })
            .collect();
        let text = serde_json::json!({"paths": paths}).to_string();
        let mut response = tagged_text(parts, "application/json", &text);
        set_cache(&mut response, "no-cache, private");
        return Ok(response);
    }
    let Some(document) = core.documents.get(&catalog, rest) else {
        let mut response = body::response(404, "text/plain", bytes::Bytes::new());
        response.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(response);
    };
    let mut response = body::response(200, "application/json", document.text.as_ref().clone());
    let tag = format!("\"{}\"", document.hash);
    if header_text(&parts.headers, &header::IF_NONE_MATCH) == tag {
        response = body::response(304, "application/json", bytes::Bytes::new());
    }
    if let Ok(value) = header::HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
        .headers_mut()
        .insert(header::VARY, header::HeaderValue::from_static("Accept"));
    match query.get("hash") {
        // The right hash names this very text for ever; another one is told where the text is now.
        Some(hash) if hash == document.hash => set_cache(&mut response, "public, immutable"),
        Some(_) => {
            let place = format!("/openapi/v3/{rest}?hash={}", document.hash);
            response = body::response(301, "text/html; charset=utf-8", bytes::Bytes::new());
            if let Ok(value) = header::HeaderValue::from_str(&place) {
                response.headers_mut().insert(header::LOCATION, value);
            }
        }
        None => set_cache(&mut response, "no-cache, private"),
    }
    Ok(response)
}

fn set_cache(response: &mut Response<ResponseBody>, value: &'static str) {
    let value = header::HeaderValue::from_static(value);
    response.headers_mut().insert(header::CACHE_CONTROL, value);
}

pub use documents::RemoteGroup;

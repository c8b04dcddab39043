//! `/version`, health, metrics, the root and OpenAPI.

use crate::core::Core;
use crate::http::ResponseBody;
use crate::http::accept::{clauses, go_restful};
use crate::http::body;
use crate::http::dispatch::header_text;
use crate::registry::options::Query;
use crate::status::ApiResult;
use http::{Response, header, request};
use serde_json::{Value, json};

/// The version we are compatible with.
pub const GIT_VERSION: &str = "v1.34.9";

/// Answers a fixed path.
pub fn other(
    core: &Core,
    parts: &request::Parts,
    query: &Query,
    path: &str,
) -> ApiResult<Response<ResponseBody>> {
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "" => Ok(body::json(200, &root(core))),
        "/version" => {
            if !takes(parts, "application/json") {
                return Err(go_restful("application/json"));
            }
            Ok(body::json(200, &version()))
        }
        "/healthz" | "/livez" | "/readyz" => Ok(health(trimmed, query)),
        "/metrics" => Ok(metrics(core)),
        "/openid/v1/jwks" => {
            if !takes(parts, "application/jwk-set+json") {
                return Err(go_restful("application/jwk-set+json"));
            }
            Ok(body::response(
                200,
                "application/jwk-set+json",
                core.key_set().to_string(),
            ))
        }
        "/.well-known/openid-configuration" => Ok(body::json(200, &openid(core))),
        "/openapi/v2" => super::openapi_v2::document(core, parts),
        _ => {
            if let Some(rest) = path.strip_prefix("/openapi/v3") {
                return super::openapi(core, parts, query, rest);
            }
            if let Some(check) = ["/healthz/", "/livez/", "/readyz/"]
                .iter()
                .find_map(|prefix| path.strip_prefix(prefix))
                && CHECKS.contains(&check)
            {
                let mut response = body::text(200, "ok");
                response
                    .headers_mut()
                    .remove(header::X_CONTENT_TYPE_OPTIONS);
                return Ok(response);
            }
            Ok(body::text(404, "404 page not found\n"))
        }
    }
}

fn takes(parts: &request::Parts, media: &str) -> bool {
    let clauses = clauses(header_text(&parts.headers, &header::ACCEPT));
    clauses.is_empty()
        || clauses
            .iter()
            .any(|one| one.media == media || one.media == "*/*")
}

const CHECKS: &[&str] = &["ping", "log", "etcd"];

fn health(path: &str, query: &Query) -> Response<ResponseBody> {
    if query.get("verbose").is_none() {
        return body::text(200, "ok");
    }
    let mut text: String = CHECKS
        .iter()
        .map(|check| format!("[+]{check} ok\n"))
        .collect();
    text.push_str(&format!("{} check passed\n", &path[1..]));
    body::text(200, text)
}

/// As Go calls this machine.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "34",
        "emulationMajor": "1", "emulationMinor": "34",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": platform(),
    })
}

fn root(core: &Core) -> Value {
    let catalog = core.catalog();
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .iter()
    .map(|path| path.to_string())
    .collect();
    for resource in catalog.resources.iter().filter(|one| !one.group.is_empty()) {
        paths.push(format!("/apis/{}", resource.group));
        for version in &resource.versions {
            paths.push(format!("/apis/{}", version.api_version));
        }
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

fn openid(core: &Core) -> Value {
    json!({
        "issuer": "https://kubernetes.default.svc",
        "jwks_uri": format!("https://{}/openid/v1/jwks", core.address()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn metrics(core: &Core) -> Response<ResponseBody> {
    let mut text = String::from("# TYPE apiserver_storage_objects gauge\n");
    for resource in core.store.resources() {
        text.push_str(&format!(
            "apiserver_storage_objects{{resource=\"{resource}\"}} {}\n",
            core.store.count(&resource)
        ));
    }
    text.push_str(&format!(
        "# TYPE springtide_store_revision counter\nspringtide_store_revision {}\n",
        core.store.revision()
    ));
    body::response(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

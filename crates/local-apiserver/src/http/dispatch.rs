//! From a parsed path to the registry's verb or to a fixed page.

use super::accept;
use super::body::{self, RequestBody, ResponseBody};
use super::path::{self, ResourcePath, Route};
use super::render;
use crate::aggregation;
use crate::auth::{User, authorize, reviews};
use crate::core::Core;
use crate::registry::context::Call;
use crate::registry::options::Query;
use crate::registry::{self, Reply, Served};
use crate::status::{ApiError, ApiResult};
use http::{HeaderMap, Method, Request, Response, header, request};
use jiff::Timestamp;
use std::sync::Arc;

/// How long a request may take; a watch has begun by then and goes on.
const REQUEST_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

fn timed_out() -> ApiError {
    ApiError::new(
        http::StatusCode::GATEWAY_TIMEOUT,
        "Timeout",
        "request did not complete within the allotted timeout",
        None,
    )
}

/// Upstream says so in every answer about them.
const ENDPOINTS_DEPRECATED: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// Answers one request of an authenticated user.
pub async fn handle(
    core: Arc<Core>,
    user: User,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    match route(core, user, &parts, body).await {
        Ok(response) => response,
        Err(error) => body::error(&error),
    }
}

/// A header's text, empty when absent.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

async fn route(
    core: Arc<Core>,
    user: User,
    parts: &request::Parts,
    body: RequestBody,
) -> ApiResult<Response<ResponseBody>> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    match path::parse(parts.uri.path()) {
        Route::Resource(found) => resource(core, user, parts, query, body, found).await,
        Route::GroupVersion(group, version) if aggregation::is_remote(&core, &group, &version) => {
            authorize::check_path(&core, &user, "get", parts.uri.path())?;
            Ok(aggregation::forward(&core, &user, &group, &version, parts, body).await)
        }
        fixed => {
            let verb = parts.method.as_str().to_ascii_lowercase();
            authorize::check_path(&core, &user, &verb, parts.uri.path())?;
            crate::discovery::page(&core, parts, &query, &fixed)
        }
    }
}

/// The verb of a request on a resource.
fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<&'static str> {
    let named = !path.name.is_empty();
    Some(match *method {
        Method::GET | Method::HEAD
            if path.watch || (query.flag("watch") == Some(true) && !named) =>
        {
            "watch"
        }
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}

fn find(core: &Core, path: &ResourcePath) -> ApiResult<Served> {
    let catalog = core.catalog();
    let served = catalog
        .served(&path.group, &path.version, &path.plural)
        .ok_or_else(ApiError::no_resource)?;
    let placed_wrong = if served.namespaced {
        path.namespace.is_empty() && !path.name.is_empty()
    } else {
        !path.namespace.is_empty()
    };
    if placed_wrong {
        return Err(ApiError::no_resource());
    }
    if !path.subresource.is_empty() && served.subresource(&path.subresource).is_none() {
        return Err(ApiError::no_resource());
    }
    Ok(served)
}

async fn resource(
    core: Arc<Core>,
    user: User,
    parts: &request::Parts,
    query: Query,
    body: RequestBody,
    path: ResourcePath,
) -> ApiResult<Response<ResponseBody>> {
    if aggregation::is_remote(&core, &path.group, &path.version) {
        let verb = verb(&parts.method, &path, &query);
        check_access(&core, &user, &path, &query, verb)?;
        return Ok(
            aggregation::forward(&core, &user, &path.group, &path.version, parts, body).await,
        );
    }
    let catalog = core.catalog();
    let custom_group = catalog
        .resources
        .iter()
        .any(|one| *one.group == *path.group && one.is_custom());
    if !catalog.has_group(&path.group)
        || (custom_group && !catalog.has_group_version(&path.group, &path.version))
    {
        return Ok(body::text(404, "404 page not found\n"));
    }
    let verb = verb(&parts.method, &path, &query);
    check_access(&core, &user, &path, &query, verb)?;
    let served = find(&core, &path)?;
    let verb = verb
        .filter(|_| parts.method != Method::HEAD)
        .ok_or_else(ApiError::method_not_allowed)?;
    check_method(&served, &path, verb)?;
    if crate::proxy::is_connect(&path.plural, &path.subresource) && served.group.is_empty() {
        return crate::proxy::connect(&core, &path, &query, parts, body).await;
    }
    let accepted = accept::negotiate(
        header_text(&parts.headers, &header::ACCEPT),
        path.name.is_empty(),
    )?;
    let bytes = body::read(body).await?;
    let call = Call {
        core,
        user,
        agent: agent_name(header_text(&parts.headers, &header::USER_AGENT)),
        served,
        namespace: path.namespace,
        name: path.name,
        subresource: path.subresource,
        query,
        content_type: media_type(header_text(&parts.headers, &header::CONTENT_TYPE)),
        body: bytes,
        now: Timestamp::now(),
        warnings: Default::default(),
    };
    Ok(answer(&call, accepted, verb).await)
}

/// `kubectl` of `kubectl/v1.32.4 (linux/amd64)`.
fn agent_name(text: &str) -> String {
    let name = text.split('/').next().filter(|name| !name.is_empty());
    name.unwrap_or("unknown").to_string()
}

/// Without parameters.
fn media_type(text: &str) -> String {
    let media = text.split(';').next().unwrap_or_default();
    media.trim().to_ascii_lowercase()
}

/// Runs the call within its time and puts its warnings on the answer.
async fn answer(
    call: &Call,
    accepted: accept::Accepted,
    verb: &'static str,
) -> Response<ResponseBody> {
    if let Some(warning) = call
        .served
        .custom()
        .and_then(|custom| custom.deprecation_warning.as_ref())
    {
        call.warn(warning.as_str());
    }
    if call.served.storage_id.as_ref() == "endpoints" {
        call.warn(ENDPOINTS_DEPRECATED);
    }
    let outcome = tokio::time::timeout(REQUEST_LIMIT, run(call, verb))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
        .and_then(|reply| render::reply(call, accepted, reply));
    let mut response = outcome.unwrap_or_else(|error| body::error(&error));
    add_warnings(call, &mut response);
    response
}

fn check_access(
    core: &Core,
    user: &User,
    path: &ResourcePath,
    query: &Query,
    verb: Option<&str>,
) -> ApiResult<()> {
    let chosen = chosen_name(query);
    let wanted = authorize::Wanted {
        verb: verb.unwrap_or("get"),
        group: &path.group,
        resource: &path.plural,
        subresource: &path.subresource,
        namespace: if path.plural == "namespaces" && path.namespace.is_empty() {
            &path.name
        } else {
            &path.namespace
        },
        name: match chosen {
            Some(name) if path.name.is_empty() => name,
            _ => &path.name,
        },
    };
    authorize::check(core, user, &wanted)
}

/// Whoever may see one object may also list and watch the collection with a selector that chooses just this one.
fn chosen_name(query: &Query) -> Option<&str> {
    let terms = query.text("fieldSelector").split(',');
    let mut names = terms.filter_map(|term| {
        let (field, name) = term.split_once('=')?;
        (field == "metadata.name").then(|| name.trim_start_matches('='))
    });
    names.next().filter(|name| !name.is_empty())
}

fn check_method(served: &Served, path: &ResourcePath, verb: &str) -> ApiResult<()> {
    let allowed = match served.subresource(&path.subresource) {
        Some(subresource) => subresource.verbs.iter().any(|one| one == verb),
        None => served.allows(verb),
    };
    let collection = path.name.is_empty();
    let fits = match verb {
        "create" if path.subresource.is_empty() => {
            collection && (!served.namespaced || !path.namespace.is_empty())
        }
        "deletecollection" => !served.namespaced || !path.namespace.is_empty(),
        "update" | "patch" => !collection,
        _ => true,
    };
    if allowed && fits {
        Ok(())
    } else {
        Err(ApiError::method_not_allowed())
    }
}

async fn run(call: &Call, verb: &str) -> ApiResult<Reply> {
    if !call.subresource.is_empty() {
        return subresource(call, verb).await;
    }
    match verb {
        "get" => registry::read::get(call).await,
        "list" => registry::read::list(call).await,
        "watch" => registry::watch::watch(call).await,
        "create" if reviews::is_review(&call.served.storage_id) => reviews::create(call),
        "create" if call.served.storage_id.as_ref() == "bindings" => {
            registry::subresources::bind(call).await
        }
        "create" => registry::create::create(call).await,
        "update" => registry::update::update(call).await,
        "patch" => registry::patch::patch(call).await,
        "delete" => registry::delete::delete(call).await,
        _ => registry::delete::delete_collection(call).await,
    }
}

async fn subresource(call: &Call, verb: &str) -> ApiResult<Reply> {
    match (call.subresource.as_str(), verb) {
        ("scale", "get") => registry::scale::get(call),
        ("scale", "update") => registry::scale::update(call).await,
        ("scale", "patch") => registry::scale::patch_scale(call).await,
        ("token", "create") => reviews::request_token(call),
        ("binding", "create") => registry::subresources::bind(call).await,
        ("eviction", "create") => registry::subresources::evict(call).await,
        ("finalize", "update") => registry::subresources::finalize(call).await,
        ("status" | "ephemeralcontainers" | "resize" | "approval", verb) => {
            registry::subresources::object_view(call, verb).await
        }
        _ => Err(ApiError::no_resource()),
    }
}

fn add_warnings(call: &Call, response: &mut Response<ResponseBody>) {
    let warnings = call
        .warnings
        .lock()
        .unwrap_or_else(|poison| poison.into_inner());
    for warning in warnings.iter() {
        let quoted = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "");
        if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

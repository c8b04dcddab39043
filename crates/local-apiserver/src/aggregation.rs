//! Aggregated API servers: APIServices with a Service behind them, their health, their discovery, their requests.

use crate::auth::User;
use crate::core::Core;
use crate::crd::versions;
use crate::discovery::RemoteGroup;
use crate::http::body::{self, RequestBody, ResponseBody};
use crate::http::client::{self, Target};
use crate::http::dispatch;
use crate::proxy;
use crate::registry::api_version;
use crate::registry::context::time_text;
use base64::Engine;
use http::{Method, Request, Response, header, request};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const API_SERVICES: &str = "apiservices.apiregistration.k8s.io";
/// How often servers are looked at: those that answer, and those that do not.
const LOOK: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A server that takes longer is not available.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of aggregated servers, by group and version.
#[derive(Default)]
pub struct Remotes {
    known: Mutex<BTreeMap<(String, String), Known>>,
}

#[derive(Clone)]
struct Known {
    /// In aggregated-discovery form; `None` while it never answered.
    resources: Option<Value>,
    available: bool,
}

impl Remotes {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Known>> {
        self.known
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// Groups for discovery documents.
    pub fn groups(&self) -> Vec<RemoteGroup> {
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for ((group, version), known) in self.lock().iter() {
            let mut entry = json!({"version": version, "freshness": if known.available { "Current" } else { "Stale" }});
            if let Some(resources) = &known.resources {
                entry["resources"] = resources.clone();
            }
            groups.entry(group.clone()).or_default().push(entry);
        }
        groups
            .into_iter()
            .map(|(group, mut versions)| {
                versions.sort_by_key(|one| {
                    std::cmp::Reverse(versions::rank(one["version"].as_str().unwrap_or_default()))
                });
                RemoteGroup { group, versions }
            })
            .collect()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The APIService of a group version when it leads to a Service.
fn remote(core: &Core, group: &str, version: &str) -> Option<Arc<Value>> {
    let found = core
        .store
        .get(API_SERVICES, &format!("{version}.{group}"))?;
    found.tree["spec"]["service"]
        .is_object()
        .then(|| found.tree.clone())
}

/// Runs until cancelled: looks at every aggregated server, at once when something changed.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut services = core.store.changes(API_SERVICES);
    let mut slices = core.store.changes("endpointslices.discovery.k8s.io");
    loop {
        services.mark_unchanged();
        slices.mark_unchanged();
        let (any, settled) = look(&core).await;
        let wait = match (any, settled) {
            (false, _) => None,
            (true, true) => Some(LOOK),
            (true, false) => Some(LOOK_AGAIN),
        };
        let pause = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = services.changed() => if changed.is_err() { return },
            changed = slices.changed(), if any => if changed.is_err() { return },
            () = pause => {}
        }
    }
}

/// Whether there are aggregated servers, and whether all of them are available.
async fn look(core: &Arc<Core>) -> (bool, bool) {
    let stored = core.store.list(API_SERVICES, "").objects;
    let mut seen = Vec::new();
    let mut settled = true;
    for (name, service) in &stored {
        let spec = &service.tree["spec"];
        if !spec["service"].is_object() {
            continue;
        }
        let place = (
            text(spec, "group").to_string(),
            text(spec, "version").to_string(),
        );
        let outcome = probe(core, &service.tree).await;
        settled &= outcome.is_ok();
        note(core, &place, &outcome);
        report(core, name, &service.tree, &outcome).await;
        seen.push(place);
    }
    core.remotes.lock().retain(|place, _| seen.contains(place));
    (!seen.is_empty(), settled)
}

fn note(core: &Core, place: &(String, String), outcome: &Result<Value, (&'static str, String)>) {
    let mut known = core.remotes.lock();
    let before = known.get(place).and_then(|known| known.resources.clone());
    let next = Known {
        resources: outcome.as_ref().ok().cloned().or(before),
        available: outcome.is_ok(),
    };
    known.insert(place.clone(), next);
}

/// The server's resources in aggregated form, or why it is not available.
async fn probe(core: &Arc<Core>, service: &Value) -> Result<Value, (&'static str, String)> {
    let spec = &service["spec"];
    let (namespace, name) = (
        text(&spec["service"], "namespace"),
        text(&spec["service"], "name"),
    );
    if core
        .store
        .get("services", &format!("{namespace}/{name}"))
        .is_none()
    {
        return Err((
            "ServiceNotFound",
            format!("service/{name} in \"{namespace}\" is not present"),
        ));
    }
    let missing = |error: String| {
        (
            "MissingEndpoints",
            format!("endpoints for service/{name} in \"{namespace}\" cannot be used: {error}"),
        )
    };
    let target = target(core, spec).map_err(missing)?;
    let path = format!("/apis/{}/{}", text(spec, "group"), text(spec, "version"));
    let head = Request::builder()
        .method(Method::GET)
        .uri(&path)
        .header(header::HOST, format!("{name}.{namespace}.svc"))
        .header(header::ACCEPT, "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters");
    let failed = |why: String| {
        (
            "FailedDiscoveryCheck",
            format!(
                "failing or missing response from https://{}{path}: {why}",
                target.address
            ),
        )
    };
    let answered = tokio::time::timeout(
        PATIENCE,
        core.pool.send(&target, &head, bytes::Bytes::new()),
    )
    .await;
    let (status, body) = answered
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(|error| failed(error.to_string()))?;
    if !status.is_success() {
        return Err(failed(format!("bad status: {}", status.as_u16())));
    }
    let list: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    Ok(aggregated(
        &list,
        text(spec, "group"),
        text(spec, "version"),
    ))
}

/// An `APIResourceList` in aggregated form.
fn aggregated(list: &Value, group: &str, version: &str) -> Value {
    let all = list["resources"].as_array().cloned().unwrap_or_default();
    let kind_of = |one: &Value| {
        let own = |field: &str, default: &str| match text(one, field) {
            "" => default.to_string(),
            given => given.to_string(),
        };
        json!({"group": own("group", group), "version": own("version", version), "kind": one["kind"]})
    };
    let mut resources: Vec<Value> = Vec::new();
    for one in all.iter().filter(|one| !text(one, "name").contains('/')) {
        let name = text(one, "name");
        let mut entry = json!({
            "resource": name, "responseKind": kind_of(one),
            "scope": if one["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": text(one, "singularName"), "verbs": one["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if one[field].is_array() {
                entry[field] = one[field].clone();
            }
        }
        let subresources: Vec<Value> = all
            .iter()
            .filter_map(|sub| {
                let rest = text(sub, "name").strip_prefix(name)?.strip_prefix('/')?;
                Some(json!({"subresource": rest, "responseKind": kind_of(sub), "verbs": sub["verbs"]}))
            })
            .collect();
        if !subresources.is_empty() {
            entry["subresources"] = subresources.into();
        }
        resources.push(entry);
    }
    resources.into()
}

fn target<'a>(core: &'a Core, spec: &Value) -> Result<Target<'a>, String> {
    let service = &spec["service"];
    let (namespace, name) = (text(service, "namespace"), text(service, "name"));
    let port = service["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(443);
    let address = proxy::service_address(core, namespace, name, port)?;
    let authority = base64::engine::general_purpose::STANDARD
        .decode(text(spec, "caBundle"))
        .map_err(|error| format!("caBundle is no base64: {error}"))?;
    let insecure = spec["insecureSkipTLSVerify"] == true;
    let settings = core
        .pool
        .settings(&authority, insecure, Some(&core.pki.front_proxy))
        .map_err(|error| error.to_string())?;
    Ok(Target {
        address,
        tls: Some((settings, format!("{name}.{namespace}.svc"))),
        dialer: core.dialer.as_ref(),
    })
}

/// Writes the condition Available when it changed.
async fn report(
    core: &Arc<Core>,
    name: &str,
    service: &Value,
    outcome: &Result<Value, (&'static str, String)>,
) {
    let (status, reason, message) = match outcome {
        Ok(_) => ("True", "Passed", "all checks passed".to_string()),
        Err((reason, message)) => ("False", *reason, message.clone()),
    };
    let before = service["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let before = before.into_iter().find(|one| one["type"] == "Available");
    if before.is_some_and(|one| {
        one["status"] == status && one["reason"] == reason && one["message"] == message.as_str()
    }) {
        return;
    }
    let since = match before {
        Some(one) if one["status"] == status => one["lastTransitionTime"].clone(),
        _ => time_text(Timestamp::now()).into(),
    };
    let condition = json!({"type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    let document = json!({"status": {"conditions": [condition]}});
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(format!(
            "/apis/apiregistration.k8s.io/v1/apiservices/{name}/status"
        ))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .header(header::USER_AGENT, "kube-apiserver/v1.34")
        .body(body::full(document.to_string()));
    if let Ok(request) = request {
        let user = User::new("system:apiserver", &[crate::auth::MASTERS]);
        dispatch::handle(core.clone(), user, request).await;
    }
}

/// Whether a group version that is not served here is served by an aggregated server.
pub fn is_remote(core: &Core, group: &str, version: &str) -> bool {
    !group.is_empty()
        && !core.catalog().has_group_version(group, version)
        && remote(core, group, version).is_some()
}

/// Sends a request on to an aggregated server, in the user's name.
pub async fn forward(
    core: &Arc<Core>,
    user: &User,
    group: &str,
    version: &str,
    parts: &request::Parts,
    request_body: RequestBody,
) -> Response<ResponseBody> {
    let down = || body::text(503, "service unavailable\n");
    let Some(service) = remote(core, group, version) else {
        return down();
    };
    let target = match target(core, &service["spec"]) {
        Ok(target) => target,
        Err(error) => {
            tracing::debug!(group, version, %error, "an aggregated server cannot be reached");
            return down();
        }
    };
    let host = target
        .tls
        .as_ref()
        .map(|(_, name)| name.clone())
        .unwrap_or_default();
    let tail = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(mut request) = proxy::forwarded(parts, tail, &host, request_body) else {
        return down();
    };
    name_user(&mut request, user);
    let sent = if request.headers().contains_key(header::UPGRADE) {
        client::send(&target, request, &core.tunnels).await
    } else {
        core.pool.pass_on(&target, request).await
    };
    match sent {
        Ok(response) => response,
        Err(error) => {
            let place = api_version(group, version);
            tracing::debug!(%place, %error, "an aggregated server did not answer");
            body::text(503, format!("error trying to reach service: {error}"))
        }
    }
}

fn name_user(request: &mut Request<RequestBody>, user: &User) {
    let headers = request.headers_mut();
    headers.remove(header::AUTHORIZATION);
    for name in ["x-remote-user", "x-remote-group", "x-remote-uid"] {
        headers.remove(name);
    }
    let forged: Vec<header::HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-extra-"))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
    if let Ok(value) = header::HeaderValue::from_str(&user.name) {
        headers.insert("x-remote-user", value);
    }
    for group in &user.groups {
        if let Ok(value) = header::HeaderValue::from_str(group) {
            headers.append("x-remote-group", value);
        }
    }
    for (key, values) in &user.extra {
        let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        let Ok(name) = header::HeaderName::try_from(format!("x-remote-extra-{key}").to_lowercase())
        else {
            continue;
        };
        for value in values {
            if let Ok(value) = header::HeaderValue::from_str(value) {
                headers.append(name.clone(), value);
            }
        }
    }
}

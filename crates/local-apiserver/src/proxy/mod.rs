//! Requests that end elsewhere: at a kubelet, in a pod or behind a Service.

mod place;
mod refusal;

use crate::core::Core;
use crate::http::ResponseBody;
use crate::http::body::RequestBody;
use crate::http::client::{self, Target};
use crate::http::path::ResourcePath;
use crate::http::tls::{self, Trust};
use crate::registry::options::Query;
use crate::status::{ApiError, ApiResult};
use http::{HeaderMap, Request, Response, Uri, header, request};
use place::{Place, Port};
use serde_json::Value;
use std::sync::Arc;

/// Whether a subresource is a proxy of some kind.
pub fn is_connect(plural: &str, subresource: &str) -> bool {
    matches!(
        (plural, subresource),
        ("pods", "exec" | "attach" | "portforward" | "log" | "proxy")
            | ("nodes" | "services", "proxy")
    )
}

/// Answers a proxied request.
pub async fn connect(
    core: &Arc<Core>,
    path: &ResourcePath,
    query: &Query,
    parts: &request::Parts,
    body: RequestBody,
) -> ApiResult<Response<ResponseBody>> {
    match (path.plural.as_str(), path.subresource.as_str()) {
        ("nodes", _) => {
            let (name, _, _) = place::split_name(&path.name);
            let node = node(core, &name)?;
            let tail = with_query(&format!("/{}", path.rest), parts.uri.query());
            to_kubelet(core, &node, &tail, parts, body).await
        }
        ("pods", "proxy") | ("services", _) => {
            let place = place::find(core, path)?;
            let tail = with_query(&format!("/{}", path.rest), parts.uri.query());
            to_place(core, &place, &tail, parts, body).await
        }
        (_, subresource) => to_pod(core, path, subresource, query, parts, body).await,
    }
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_string(),
    }
}

/// A kubelet's address.
struct Kubelet {
    name: String,
    address: std::net::SocketAddr,
    host: String,
}

fn node(core: &Core, name: &str) -> ApiResult<Kubelet> {
    let node = core
        .store
        .get("nodes", name)
        .ok_or_else(|| ApiError::not_found("", "nodes", name))?;
    let addresses = node.tree["status"]["addresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let internal = addresses.iter().find(|one| one["type"] == "InternalIP");
    let host = internal
        .and_then(|one| one["address"].as_str())
        .unwrap_or_default()
        .to_string();
    let port = node.tree["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .unwrap_or(10250);
    let address = host
        .parse()
        .ok()
        .zip(u16::try_from(port).ok())
        .map(|(address, port)| std::net::SocketAddr::new(address, port))
        .ok_or_else(|| {
            ApiError::internal(format!(
                "node {name} has no InternalIP to reach its kubelet"
            ))
        })?;
    Ok(Kubelet {
        name: name.to_string(),
        address,
        host,
    })
}

async fn to_kubelet(
    core: &Arc<Core>,
    kubelet: &Kubelet,
    tail: &str,
    parts: &request::Parts,
    body: RequestBody,
) -> ApiResult<Response<ResponseBody>> {
    let config = core.kubelet_tls().map_err(ApiError::internal)?;
    let target = Target {
        address: kubelet.address,
        tls: Some((config, kubelet.host.clone())),
        dialer: core.dialer.as_ref(),
    };
    let request = forwarded(parts, tail, &kubelet.host, body)?;
    let sent = client::send(&target, request, &core.tunnels).await;
    sent.map_err(|error| {
        ApiError::plain(format!(
            "error trying to reach the kubelet of node {} at {}: {error}",
            kubelet.name, kubelet.address
        ))
    })
}

async fn to_place(
    core: &Arc<Core>,
    place: &Place,
    tail: &str,
    parts: &request::Parts,
    body: RequestBody,
) -> ApiResult<Response<ResponseBody>> {
    let tls = if place.https {
        let config = tls::client(&Trust::Anybody, None).map_err(ApiError::internal)?;
        Some((Arc::new(config), place.address.ip().to_string()))
    } else {
        None
    };
    let target = Target {
        address: place.address,
        tls,
        dialer: core.dialer.as_ref(),
    };
    let request = forwarded(parts, tail, &place.address.to_string(), body)?;
    client::send(&target, request, &core.tunnels)
        .await
        .map_err(|error| ApiError::unavailable(format!("error trying to reach service: {error}")))
}

/// The request as the other side gets it: same method, headers and body, without what proves to us who asks.
pub fn forwarded(
    parts: &request::Parts,
    tail: &str,
    host: &str,
    body: RequestBody,
) -> ApiResult<Request<RequestBody>> {
    let mut parts = parts.clone();
    parts.uri = tail
        .parse::<Uri>()
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    parts.version = http::Version::HTTP_11;
    let headers = &mut parts.headers;
    headers.remove(header::AUTHORIZATION);
    for name in ["impersonate-user", "impersonate-group", "impersonate-uid"] {
        headers.remove(name);
    }
    if !upgrades(headers) {
        headers.remove(header::CONNECTION);
    }
    if let Ok(value) = header::HeaderValue::from_str(host) {
        headers.insert(header::HOST, value);
    }
    Ok(Request::from_parts(parts, body))
}

fn upgrades(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// exec, attach, log and portforward of a pod.
async fn to_pod(
    core: &Arc<Core>,
    path: &ResourcePath,
    subresource: &str,
    query: &Query,
    parts: &request::Parts,
    body: RequestBody,
) -> ApiResult<Response<ResponseBody>> {
    let key = format!("{}/{}", path.namespace, path.name);
    let pod = core
        .store
        .get("pods", &key)
        .ok_or_else(|| ApiError::not_found("", "pods", &path.name))?;
    let pod = &pod.tree;
    let node_name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let place = format!("{}/{}", path.namespace, path.name);
    let raw = parts.uri.query();
    let tail = match subresource {
        "portforward" => with_query(&format!("/portForward/{place}"), raw),
        "log" => {
            let container = container(pod, query, &path.name)?;
            if node_name.is_empty() {
                // Not scheduled yet: there is nothing to show.
                return Ok(crate::http::body::response(
                    200,
                    "text/plain",
                    bytes::Bytes::new(),
                ));
            }
            with_query(&format!("/containerLogs/{place}/{container}"), raw)
        }
        verb => {
            if matches!(
                pod["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            ) {
                return Err(ApiError::bad_request(format!(
                    "cannot exec or attach to a container in a completed pod; current phase is {}",
                    pod["status"]["phase"].as_str().unwrap_or_default()
                )));
            }
            let container = container(pod, query, &path.name)?;
            with_query(&format!("/{verb}/{place}/{container}"), raw)
        }
    };
    if node_name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            path.name
        )));
    }
    let kubelet = node(core, node_name).map_err(|_| {
        ApiError::internal(format!(
            "the node {node_name} of pod {} cannot be reached",
            path.name
        ))
    })?;
    let response = to_kubelet(core, &kubelet, &tail, parts, body).await?;
    refusal::as_status(response, &path.name).await
}

/// The container that is meant, or the sentence that asks for one.
fn container(pod: &Value, query: &Query, name: &str) -> ApiResult<String> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str().map(str::to_string))
            .collect()
    };
    let (plain, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let wanted = query.text("container");
    if wanted.is_empty() {
        let default =
            pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        if let Some(default) = default.filter(|default| plain.iter().any(|one| one == default)) {
            return Ok(default.to_string());
        }
        return match plain.as_slice() {
            [one] if init.is_empty() => Ok(one.clone()),
            [] => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}"
            ))),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    plain.join(" ")
                );
                if !init.is_empty() {
                    text.push_str(&format!(
                        " or one of the init containers: [{}]",
                        init.join(" ")
                    ));
                }
                Err(ApiError::bad_request(text))
            }
        };
    }
    if plain
        .iter()
        .chain(&init)
        .chain(&ephemeral)
        .any(|one| one == wanted)
    {
        return Ok(wanted.to_string());
    }
    Err(ApiError::bad_request(format!(
        "container {wanted} is not valid for pod {name}"
    )))
}

/// Where a Service's requests go, for aggregated servers and webhooks.
pub fn service_address(
    core: &Core,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<std::net::SocketAddr, String> {
    place::service(core, namespace, name, &Port::Number(port))
}

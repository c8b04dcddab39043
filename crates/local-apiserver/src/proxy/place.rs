//! Addresses of pods and of what is behind Services.

use crate::core::Core;
use crate::http::path::ResourcePath;
use crate::status::{ApiError, ApiResult};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// Where a proxied request goes.
pub struct Place {
    /// The address.
    pub address: SocketAddr,
    /// Speak TLS there.
    pub https: bool,
}

/// A port by number or name.
pub enum Port {
    /// `80`
    Number(u16),
    /// `http`
    Name(String),
    /// The only one there is.
    Only,
}

/// `[scheme:]name[:port]` taken apart: name, scheme, port.
pub fn split_name(text: &str) -> (String, String, String) {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [name, port] => (name.to_string(), String::new(), port.to_string()),
        [scheme, name, port] => (name.to_string(), scheme.to_string(), port.to_string()),
        _ => (text.to_string(), String::new(), String::new()),
    }
}

/// The place a pod or service proxy path means.
pub fn find(core: &Core, path: &ResourcePath) -> ApiResult<Place> {
    let (name, scheme, port) = split_name(&path.name);
    let port = match port.parse::<u16>() {
        Ok(number) => Port::Number(number),
        Err(_) if port.is_empty() => Port::Only,
        Err(_) => Port::Name(port),
    };
    let address = if path.plural == "pods" {
        pod(core, &path.namespace, &name, &port)?
    } else {
        let key = format!("{}/{name}", path.namespace);
        if core.store.get("services", &key).is_none() {
            return Err(ApiError::not_found("", "services", &name));
        }
        service(core, &path.namespace, &name, &port).map_err(ApiError::unavailable)?
    };
    Ok(Place {
        address,
        https: scheme == "https",
    })
}

fn pod(core: &Core, namespace: &str, name: &str, port: &Port) -> ApiResult<SocketAddr> {
    let key = format!("{namespace}/{name}");
    let pod = core
        .store
        .get("pods", &key)
        .ok_or_else(|| ApiError::not_found("", "pods", name))?;
    let address: IpAddr = pod.tree["status"]["podIP"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            ApiError::bad_request(format!("address not allowed: pod {name} has none yet"))
        })?;
    let containers = pod.tree["spec"]["containers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut ports = containers
        .iter()
        .flat_map(|one| one["ports"].as_array().into_iter().flatten());
    let number = match port {
        Port::Number(number) => Some(*number),
        Port::Name(wanted) => ports
            .find(|one| one["name"] == wanted.as_str())
            .and_then(container_port),
        Port::Only => Some(ports.next().and_then(container_port).unwrap_or(80)),
    };
    number
        .map(|number| SocketAddr::new(address, number))
        .ok_or_else(|| ApiError::bad_request(format!("pod {name} has no such port")))
}

fn container_port(port: &Value) -> Option<u16> {
    u16::try_from(port["containerPort"].as_u64()?).ok()
}

/// One ready address behind a Service's port.
pub fn service(
    core: &Core,
    namespace: &str,
    name: &str,
    port: &Port,
) -> Result<SocketAddr, String> {
    let key = format!("{namespace}/{name}");
    let service = core
        .store
        .get("services", &key)
        .ok_or_else(|| format!("service \"{name}\" not found"))?;
    let ports = service.tree["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = match port {
        Port::Number(number) => ports.iter().find(|one| one["port"] == *number),
        Port::Name(wanted) => ports.iter().find(|one| one["name"] == wanted.as_str()),
        Port::Only => ports.first(),
    };
    let found = found.ok_or_else(|| format!("no service port found for service \"{name}\""))?;
    let port_name = found["name"].as_str().unwrap_or_default();
    let address = from_slices(core, namespace, name, port_name)
        .or_else(|| from_endpoints(core, &key, port_name));
    address.ok_or_else(|| format!("no endpoints available for service \"{name}\""))
}

fn from_slices(core: &Core, namespace: &str, name: &str, port_name: &str) -> Option<SocketAddr> {
    let slices = core
        .store
        .list("endpointslices.discovery.k8s.io", &format!("{namespace}/"));
    slices.objects.iter().find_map(|(_, slice)| {
        let slice = &slice.tree;
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            return None;
        }
        let port = matching_port(&slice["ports"], port_name)?;
        let ready = slice["endpoints"]
            .as_array()?
            .iter()
            .find(|one| one["conditions"]["ready"] != false)?;
        let address = ready["addresses"]
            .as_array()?
            .first()?
            .as_str()?
            .parse()
            .ok()?;
        Some(SocketAddr::new(address, port))
    })
}

fn from_endpoints(core: &Core, key: &str, port_name: &str) -> Option<SocketAddr> {
    let endpoints = core.store.get("endpoints", key)?;
    endpoints.tree["subsets"]
        .as_array()?
        .iter()
        .find_map(|subset| {
            let port = matching_port(&subset["ports"], port_name)?;
            let address = subset["addresses"].as_array()?.first()?["ip"]
                .as_str()?
                .parse()
                .ok()?;
            Some(SocketAddr::new(address, port))
        })
}

fn matching_port(ports: &Value, name: &str) -> Option<u16> {
    let ports = ports.as_array()?;
    let found = ports
        .iter()
        .find(|one| one["name"].as_str().unwrap_or_default() == name)?;
    u16::try_from(found["port"].as_u64()?).ok()
}

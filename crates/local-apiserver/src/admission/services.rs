//! Addresses and ports of Services: given out here, remembered by the stored Services themselves.

use crate::core::Core;
use crate::registry::Call;
use crate::status::{ApiError, ApiResult};
use local_schema::FieldError;
use rand::Rng;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;
/// Addresses below this offset are only given to those who ask for them.
const STATIC_BAND: u32 = 256;

/// The networks and what was given to writes that are not stored yet.
pub struct Allocator {
    network: Ipv4Addr,
    prefix: u8,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    addresses: HashSet<String>,
    ports: HashSet<u64>,
}

/// What one write was given; given back when dropped (by then the Service is stored or refused).
pub struct Reserved {
    allocator: Arc<Allocator>,
    addresses: Vec<String>,
    ports: Vec<u64>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut pending = self.allocator.lock();
        for address in &self.addresses {
            pending.addresses.remove(address);
        }
        for port in &self.ports {
            pending.ports.remove(port);
        }
    }
}

impl Allocator {
    /// For a network.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Self {
        Self {
            network,
            prefix,
            pending: Mutex::new(Pending::default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn size(&self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(u32::MAX)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.network.to_bits());
        offset > 0 && offset < self.size() - 1
    }

    /// A free address, from a random place upwards.
    fn free(&self, used: &HashSet<String>) -> Option<String> {
        let size = self.size();
        let low = STATIC_BAND.min(size / 16).max(1);
        let span = size.checked_sub(low + 1)?;
        let start = rand::rng().random_range(0..span.max(1));
        (0..span)
            .map(|step| low + (start + step) % span)
            .map(|offset| Ipv4Addr::from_bits(self.network.to_bits() + offset).to_string())
            .find(|address| !used.contains(address))
    }
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_string))
        .collect()
}

/// Addresses and ports of all stored Services but one.
fn used(core: &Core, except: &str) -> Pending {
    let mut used = Pending::default();
    for (key, service) in core.store.list("services", "").objects {
        if key.as_ref() == except {
            continue;
        }
        let spec = &service.tree["spec"];
        used.addresses.extend(strings(&spec["clusterIPs"]));
        used.addresses
            .extend(spec["clusterIP"].as_str().map(str::to_string));
        used.ports.extend(spec["healthCheckNodePort"].as_u64());
        for port in spec["ports"].as_array().into_iter().flatten() {
            used.ports.extend(port["nodePort"].as_u64());
        }
    }
    used
}

/// Gives a Service what its type needs.
pub fn allocate(
    call: &Call,
    service: &mut Value,
    old: Option<&Value>,
) -> ApiResult<Option<Reserved>> {
    let allocator = call.core.allocator.clone();
    let name = service["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    let mut used = used(&call.core, &format!("{}/{name}", call.namespace));
    let mut pending = allocator.lock();
    used.addresses.extend(pending.addresses.iter().cloned());
    used.ports.extend(pending.ports.iter().copied());
    let mut reserved = Reserved {
        allocator: allocator.clone(),
        addresses: Vec::new(),
        ports: Vec::new(),
    };
    let mut errors = Vec::new();
    let kind = service["spec"]["type"]
        .as_str()
        .unwrap_or("ClusterIP")
        .to_string();
    if kind != "ExternalName" {
        address(
            &allocator,
            &mut service["spec"],
            old,
            &used,
            &mut reserved,
            &mut errors,
        );
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        ports(
            &kind,
            &mut service["spec"],
            old,
            &mut used,
            &mut reserved,
            &mut errors,
        );
    }
    pending.addresses.extend(reserved.addresses.iter().cloned());
    pending.ports.extend(reserved.ports.iter().copied());
    drop(pending);
    if errors.is_empty() {
        return Ok(Some(reserved));
    }
    Err(ApiError::invalid("", "Service", &name, &errors))
}

fn address(
    allocator: &Allocator,
    spec: &mut Value,
    old: Option<&Value>,
    used: &Pending,
    reserved: &mut Reserved,
    errors: &mut Vec<FieldError>,
) {
    let given = spec["clusterIP"].as_str().unwrap_or_default().to_string();
    let single = |spec: &mut Value| {
        if !spec["ipFamilies"].is_array() {
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        if !spec["ipFamilyPolicy"].is_string() {
            spec["ipFamilyPolicy"] = "SingleStack".into();
        }
    };
    if given == "None" {
        spec["clusterIPs"] = json!(["None"]);
        if spec["selector"]
            .as_object()
            .is_some_and(|map| !map.is_empty())
            || spec["ipFamilies"].is_array()
        {
            single(spec);
        } else {
            if !spec["ipFamilies"].is_array() {
                spec["ipFamilies"] = json!(["IPv4"]);
            }
            if !spec["ipFamilyPolicy"].is_string() {
                spec["ipFamilyPolicy"] = "RequireDualStack".into();
            }
        }
        return;
    }
    let kept =
        old.is_some_and(|old| old["spec"]["clusterIP"] == given.as_str()) && !given.is_empty();
    if kept {
        single(spec);
        return;
    }
    let chosen = if given.is_empty() {
        match allocator.free(&used.addresses) {
            Some(free) => free,
            None => {
                errors.push(FieldError::new(
                    local_schema::FieldErrorKind::Internal,
                    "spec.clusterIPs",
                    Value::Null,
                    "failed to allocate a serviceIP: range is full",
                ));
                return;
            }
        }
    } else {
        let Ok(address) = given.parse::<Ipv4Addr>() else {
            // The kind's own validation says what is wrong with it.
            return;
        };
        let refusal = if !allocator.contains(address) {
            Some("the provided network does not match the current range")
        } else if used.addresses.contains(&given) {
            Some("provided IP is already allocated")
        } else {
            None
        };
        if let Some(why) = refusal {
            let detail = format!("failed to allocate IP {given}: {why}");
            errors.push(FieldError::invalid(
                "spec.clusterIPs",
                json!([given]),
                detail,
            ));
            return;
        }
        given
    };
    reserved.addresses.push(chosen.clone());
    spec["clusterIP"] = chosen.as_str().into();
    spec["clusterIPs"] = json!([chosen]);
    single(spec);
}

fn free_port(used: &HashSet<u64>) -> Option<u64> {
    let span = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = rand::rng().random_range(0..span);
    (0..span)
        .map(|step| NODE_PORTS.start() + (start + step) % span)
        .find(|port| !used.contains(port))
}

fn ports(
    kind: &str,
    spec: &mut Value,
    old: Option<&Value>,
    used: &mut Pending,
    reserved: &mut Reserved,
    errors: &mut Vec<FieldError>,
) {
    let held: HashSet<u64> = old
        .and_then(|old| old["spec"]["ports"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|port| port["nodePort"].as_u64())
        .collect();
    let wanted = kind == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
    let mut take = |port: u64, used: &mut Pending| {
        used.ports.insert(port);
        reserved.ports.push(port);
    };
    for (index, port) in spec["ports"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let given = port["nodePort"].as_u64().unwrap_or(0);
        if given != 0 {
            let path = format!("spec.ports[{index}].nodePort");
            if !NODE_PORTS.contains(&given) {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    NODE_PORTS.start(),
                    NODE_PORTS.end()
                );
                errors.push(FieldError::invalid(path, given, detail));
            } else if used.ports.contains(&given) && !held.contains(&given) {
                errors.push(FieldError::invalid(
                    path,
                    given,
                    "provided port is already allocated",
                ));
            } else {
                take(given, used);
            }
        } else if wanted && let Some(free) = free_port(&used.ports) {
            port["nodePort"] = free.into();
            take(free, used);
        }
    }
    let health = kind == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    if health && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
        let before = old.and_then(|old| old["spec"]["healthCheckNodePort"].as_u64());
        let port = before.or_else(|| free_port(&used.ports));
        if let Some(port) = port {
            spec["healthCheckNodePort"] = port.into();
            take(port, used);
        }
    }
}

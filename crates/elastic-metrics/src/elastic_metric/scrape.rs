//! The endpoints of a Service, found through the API and read one by one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elastic_core::ElasticMetric;
use elastic_core::elastic_metric::Scrape;
use futures::StreamExt;
use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::evaluate::{Endpoint, Problem, Reading, from_scrape, of_endpoint};
use crate::outgoing::Fetcher;

/// Endpoints read at the same time.
const CALLS: usize = 16;
/// Most endpoints of one Service.
const MAX_ENDPOINTS: usize = 2_000;
/// Longest text of one endpoint.
const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(3);

/// A place to read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    address: SocketAddr,
}

/// What endpoints said last.
pub(super) type Memory = HashMap<SocketAddr, (f64, Timestamp)>;

/// Reads all endpoints; one that does not answer keeps its last value until that is too old.
pub(super) async fn read(
    client: &Client,
    fetcher: &Fetcher,
    metric: &ElasticMetric,
    scrape: &Scrape,
    memory: &mut Memory,
) -> Result<Reading, Problem> {
    let namespace = metric.namespace().unwrap_or_default();
    let places = places(client, &namespace, &scrape.service, scrape.port.as_ref()).await?;
    let shared = Arc::new(scrape.clone());
    let asked: Vec<_> = places
        .into_iter()
        .map(|place| one(fetcher.clone(), shared.clone(), place))
        .collect();
    let answers: Vec<_> = futures::stream::iter(asked)
        .buffer_unordered(CALLS)
        .collect()
        .await;
    let now = Timestamp::now();
    let mut next = Memory::new();
    let mut endpoints = Vec::with_capacity(answers.len());
    for (place, answer) in answers {
        let earlier = memory.get(&place.address).copied();
        let (value, is_old) = match (answer, earlier) {
            (Ok(value), _) => (Ok(value), false),
            (Err(_), Some(value)) => (Ok(value), true),
            (Err(reason), None) => (Err(reason), false),
        };
        if let Ok(value) = value {
            next.insert(place.address, value);
        }
        endpoints.push(Endpoint {
            name: place.name,
            value,
            is_old,
        });
    }
    endpoints.sort_by(|left, right| left.name.cmp(&right.name));
    *memory = next;
    from_scrape(metric, scrape, endpoints, now)
}

async fn one(
    fetcher: Fetcher,
    scrape: Arc<Scrape>,
    place: Place,
) -> (Place, Result<(f64, Timestamp), String>) {
    let path = scrape.path.as_deref().unwrap_or("/metrics");
    let request = Request::get(format!("http://{}{path}", place.address))
        .header("accept", "text/plain;version=0.0.4")
        .body(Full::new(Bytes::new()));
    let request = match request {
        Ok(request) => request,
        Err(error) => return (place, Err(format!("cannot be asked: {error}"))),
    };
    let value = match fetcher.send(request, MAX_TEXT_BYTES, TIMEOUT).await {
        Ok((status, body)) if status.is_success() => {
            of_endpoint(&scrape, &String::from_utf8_lossy(&body), Timestamp::now())
        }
        Ok((status, _)) => Err(format!("answered {status}")),
        Err(error) => Err(format!("did not answer: {error}")),
    };
    (place, value)
}

/// Ready endpoints of a Service's port.
async fn places(
    client: &Client,
    namespace: &str,
    service: &str,
    port: Option<&IntOrString>,
) -> Result<Vec<Place>, Problem> {
    let failed = |error: kube::Error| {
        Problem::new(
            "ScrapeFailed",
            format!("the endpoints of service {service} could not be listed: {error}"),
        )
    };
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let Some(found) = services.get_opt(service).await.map_err(failed)? else {
        return Err(Problem::new(
            "NoEndpoints",
            format!("there is no service {service}"),
        ));
    };
    let ports = found.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = pick(&ports, port)
        .map_err(|why| Problem::new("Invalid", format!("service {service} {why}")))?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&of_service).await.map_err(failed)?;
    let places = ready(&slices.items, port.name.as_deref().unwrap_or_default());
    if places.len() > MAX_ENDPOINTS {
        let message = format!(
            "service {service} has {} endpoints, at most {MAX_ENDPOINTS} are read",
            places.len()
        );
        return Err(Problem::new("ScrapeFailed", message));
    }
    Ok(places)
}

/// Addresses of the ready endpoints behind a Service's port, for whoever cannot ask the cluster's DNS; why there are none
/// otherwise.
pub async fn service_endpoints(
    client: &Client,
    namespace: &str,
    service: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, String> {
    let port = IntOrString::Int(i32::from(port));
    let places = places(client, namespace, service, Some(&port)).await;
    let places = places.map_err(|problem| problem.message)?;
    Ok(places.into_iter().map(|place| place.address).collect())
}

fn pick<'p>(
    ports: &'p [ServicePort],
    wanted: Option<&IntOrString>,
) -> Result<&'p ServicePort, String> {
    let found = match (wanted, ports) {
        (None, [only]) => Some(only),
        (None, _) => {
            return Err(format!(
                "has {} ports; name one in spec.scrape.port",
                ports.len()
            ));
        }
        (Some(IntOrString::Int(number)), _) => ports.iter().find(|port| port.port == *number),
        (Some(IntOrString::String(name)), _) => {
            ports.iter().find(|port| port.name.as_ref() == Some(name))
        }
    };
    let shown = match wanted {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => String::new(),
    };
    found.ok_or_else(|| format!("has no port {shown} (spec.scrape.port)"))
}

/// Ready addresses; an endpoint without a pod is called by its address.
fn ready(slices: &[EndpointSlice], port_name: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let port = ports
            .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .find_map(|port| port.port);
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        let endpoints = slice.endpoints.iter();
        // Absent means ready.
        let is_ready = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| {
            conditions.ready.unwrap_or(true)
        };
        for endpoint in endpoints.filter(|one| one.conditions.as_ref().is_none_or(is_ready)) {
            let address = endpoint
                .addresses
                .first()
                .and_then(|address| address.parse().ok());
            let Some(address) = address.map(|address| SocketAddr::new(address, port)) else {
                continue;
            };
            let pod = endpoint
                .target_ref
                .as_ref()
                .filter(|target| target.kind.as_deref() == Some("Pod"));
            let name = pod
                .and_then(|pod| pod.name.clone())
                .unwrap_or_else(|| address.to_string());
            if !places.iter().any(|place| place.address == address) {
                places.push(Place { name, address });
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_found_by_name_and_number() {
        let ports: Vec<ServicePort> = serde_json::from_value(json!([
            {"name": "http", "port": 80}, {"name": "metrics", "port": 9100}
        ]))
        .unwrap();
        let name = IntOrString::String("metrics".into());
        assert_eq!(pick(&ports, Some(&name)).unwrap().port, 9100);
        assert_eq!(
            pick(&ports, Some(&IntOrString::Int(80)))
                .unwrap()
                .name
                .as_deref(),
            Some("http")
        );
        assert!(pick(&ports, None).unwrap_err().contains("name one"));
        assert!(
            pick(&ports, Some(&IntOrString::Int(81)))
                .unwrap_err()
                .contains("no port 81")
        );
        assert_eq!(pick(&ports[..1], None).unwrap().port, 80);
    }

    #[test]
    fn only_ready_endpoints_are_read_each_once() {
        let slices: Vec<EndpointSlice> = serde_json::from_value(json!([{
            "metadata": {"name": "a"}, "addressType": "IPv4", "ports": [{"name": "m", "port": 9000}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web-1"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": true}}
            ]
        }])).unwrap();
        let names: Vec<String> = ready(&slices, "m")
            .into_iter()
            .map(|place| place.name)
            .collect();
        assert_eq!(names, ["web-1", "10.0.0.3:9000"]);
        assert!(ready(&slices, "other").is_empty());
    }
}

//! Makes the API known: a Service, where it leads, and the APIService. Doing it again changes nothing.

use std::fmt::Debug;
use std::net::SocketAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::MetricsConfig;

const API_SERVICE: &str = "v1beta1.metrics.k8s.io";
const PORT_NAME: &str = "https";
const MAX_ATTEMPTS: usize = 5;

/// The API could not be registered.
#[derive(Debug, thiserror::Error)]
#[error("register {kind} {name}")]
pub struct RegisterError {
    kind: String,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

pub(crate) async fn register(client: &Client, config: &MetricsConfig) -> Result<(), RegisterError> {
    if let Some(address) = config.address {
        let namespace = &config.namespace;
        put(
            Api::namespaced(client.clone(), namespace),
            service(config, address),
            keep_cluster_ip,
        )
        .await?;
        put(
            Api::namespaced(client.clone(), namespace),
            endpoints(config, address),
            |_, _| {},
        )
        .await?;
        put(
            Api::namespaced(client.clone(), namespace),
            slice(config, address),
            |_, _| {},
        )
        .await?;
    }
    put(
        Api::all(client.clone()),
        api_service(config),
        |_, next: &mut APIService| next.status = None,
    )
    .await
}

/// Creates or replaces; `keep` carries over what the server chose.
async fn put<K>(api: Api<K>, wanted: K, keep: fn(&K, &mut K)) -> Result<(), RegisterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = wanted.name_any();
    for attempt in 1.. {
        let outcome = match api.get_opt(&name).await {
            Ok(None) => api.create(&PostParams::default(), &wanted).await.map(drop),
            Ok(Some(existing)) => {
                let mut next = wanted.clone();
                keep(&existing, &mut next);
                next.meta_mut().resource_version = existing.resource_version();
                api.replace(&name, &PostParams::default(), &next)
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => break,
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < MAX_ATTEMPTS => {}
            Err(source) => {
                let kind = K::kind(&()).into_owned();
                return Err(RegisterError {
                    kind,
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

fn service(config: &MetricsConfig, address: SocketAddr) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": config.service, "namespace": config.namespace, "labels": {"k8s-app": config.service}},
        "spec": {"ports": [{"name": PORT_NAME, "port": 443, "protocol": "TCP", "targetPort": address.port()}]}
    }))
    .expect("the literal above has the shape of a Service")
}

fn keep_cluster_ip(existing: &Service, next: &mut Service) {
    if let (Some(old), Some(new)) = (&existing.spec, &mut next.spec) {
        new.cluster_ip.clone_from(&old.cluster_ip);
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
}

fn endpoints(config: &MetricsConfig, address: SocketAddr) -> Endpoints {
    serde_json::from_value(json!({
        "metadata": {
            "name": config.service, "namespace": config.namespace,
            // The slice is written below, so nobody has to mirror this one.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}
        },
        "subsets": [{
            "addresses": [{"ip": address.ip().to_string()}],
            "ports": [{"name": PORT_NAME, "port": address.port(), "protocol": "TCP"}]
        }]
    }))
    .expect("the literal above has the shape of Endpoints")
}

fn slice(config: &MetricsConfig, address: SocketAddr) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}-springtide", config.service), "namespace": config.namespace,
            "labels": {
                "kubernetes.io/service-name": config.service,
                "endpointslice.kubernetes.io/managed-by": "springtide"
            }
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": PORT_NAME, "port": address.port(), "protocol": "TCP"}]
    }))
    .expect("the literal above has the shape of an EndpointSlice")
}

fn api_service(config: &MetricsConfig) -> APIService {
    let mut api_service: APIService = serde_json::from_value(json!({
        "metadata": {"name": API_SERVICE, "labels": {"k8s-app": config.service}},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": config.namespace, "name": config.service, "port": 443}
        }
    }))
    .expect("the literal above has the shape of an APIService");
    if let Some(spec) = &mut api_service.spec {
        spec.ca_bundle = Some(ByteString(config.tls.authority_pem.clone().into_bytes()));
    }
    api_service
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricsTls;

    #[test]
    fn every_object_leads_to_the_listener() {
        let address: SocketAddr = "10.10.0.1:4443".parse().unwrap();
        let tls = MetricsTls {
            certificate_pem: String::new(),
            key_pem: String::new(),
            authority_pem: "PEM".into(),
            client_authority_pem: None,
        };
        let config = MetricsConfig::new(address, tls);
        assert_eq!(service(&config, address).name_any(), "metrics-server");
        let slice = slice(&config, address);
        assert_eq!(
            slice.labels()["kubernetes.io/service-name"],
            "metrics-server"
        );
        assert_eq!(slice.ports.unwrap()[0].port, Some(4443));
        let addresses = endpoints(&config, address).subsets.unwrap()[0]
            .addresses
            .clone()
            .unwrap();
        assert_eq!(addresses[0].ip, "10.10.0.1");
        let spec = api_service(&config).spec.unwrap();
        assert_eq!(spec.ca_bundle.unwrap().0, b"PEM");
        assert_eq!(
            spec.service.unwrap().name.as_deref(),
            Some("metrics-server")
        );
    }
}

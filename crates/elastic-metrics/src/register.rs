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

const PORT_NAME: &str = "https";
const MAX_ATTEMPTS: usize = 5;

/// The API could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The API server refused.
    #[error("register {kind} {name}")]
    Refused {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Another server has it.
    #[error(
        "APIService {name} leads to service {owner}; remove that server or do not ask for this API"
    )]
    Taken {
        /// The APIService.
        name: String,
        /// Namespace and name of the other server's Service.
        owner: String,
    },
}

/// A group version to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiVersion {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) priority: i32,
}

/// CPU and memory of nodes and pods.
pub(crate) const RESOURCE_METRICS: ApiVersion = ApiVersion {
    group: "metrics.k8s.io",
    version: "v1beta1",
    priority: 100,
};

/// What is registered.
pub(crate) struct Registration<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service: &'a str,
    /// Where the listener is; `None` when somebody else makes the Service.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) authority_pem: &'a str,
    pub(crate) versions: &'a [ApiVersion],
    /// Whether a version that leads to another server is taken from it.
    pub(crate) take_over: bool,
}

pub(crate) async fn register(
    client: &Client,
    wanted: &Registration<'_>,
) -> Result<(), RegisterError> {
    if let Some(address) = wanted.address {
        let namespace = wanted.namespace;
        put(
            Api::namespaced(client.clone(), namespace),
            service(wanted, address),
            keep_cluster_ip,
        )
        .await?;
        put(
            Api::namespaced(client.clone(), namespace),
            endpoints(wanted, address),
            |_, _| {},
        )
        .await?;
        put(
            Api::namespaced(client.clone(), namespace),
            slice(wanted, address),
            |_, _| {},
        )
        .await?;
    }
    if !wanted.take_over {
        check_owners(client, wanted).await?;
    }
    for version in wanted.versions {
        put(
            Api::all(client.clone()),
            api_service(wanted, version),
            |_, next: &mut APIService| next.status = None,
        )
        .await?;
    }
    Ok(())
}

/// Fails when a version leads to somebody else.
async fn check_owners(client: &Client, wanted: &Registration<'_>) -> Result<(), RegisterError> {
    let services: Api<APIService> = Api::all(client.clone());
    for version in wanted.versions {
        let name = format!("{}.{}", version.version, version.group);
        let found = services.get_opt(&name).await;
        let found = found.map_err(|source| RegisterError::Refused {
            kind: "APIService".to_owned(),
            name: name.clone(),
            source: Box::new(source),
        })?;
        let Some(service) = found.and_then(|found| found.spec?.service) else {
            continue;
        };
        let (namespace, service) = (
            service.namespace.unwrap_or_default(),
            service.name.unwrap_or_default(),
        );
        if (namespace.as_str(), service.as_str()) != (wanted.namespace, wanted.service) {
            let owner = format!("{namespace}/{service}");
            return Err(RegisterError::Taken { name, owner });
        }
    }
    Ok(())
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
                return Err(RegisterError::Refused {
                    kind,
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

fn service(config: &Registration<'_>, address: SocketAddr) -> Service {
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

fn endpoints(config: &Registration<'_>, address: SocketAddr) -> Endpoints {
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

fn slice(config: &Registration<'_>, address: SocketAddr) -> EndpointSlice {
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

fn api_service(config: &Registration<'_>, version: &ApiVersion) -> APIService {
    let mut api_service: APIService = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}.{}", version.version, version.group),
            "labels": {"k8s-app": config.service}
        },
        "spec": {
            "group": version.group, "version": version.version,
            "groupPriorityMinimum": 100, "versionPriority": version.priority,
            "service": {"namespace": config.namespace, "name": config.service, "port": 443}
        }
    }))
    .expect("the literal above has the shape of an APIService");
    if let Some(spec) = &mut api_service.spec {
        spec.ca_bundle = Some(ByteString(config.authority_pem.as_bytes().to_vec()));
    }
    api_service
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_leads_to_the_listener() {
        let address: SocketAddr = "10.10.0.1:4443".parse().unwrap();
        let config = Registration {
            namespace: "kube-system",
            service: "metrics-server",
            address: Some(address),
            authority_pem: "PEM",
            versions: &[RESOURCE_METRICS],
            take_over: true,
        };
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
        let api_service = api_service(&config, &RESOURCE_METRICS);
        assert_eq!(api_service.name_any(), "v1beta1.metrics.k8s.io");
        let spec = api_service.spec.unwrap();
        assert_eq!(spec.ca_bundle.unwrap().0, b"PEM");
        assert_eq!(
            spec.service.unwrap().name.as_deref(),
            Some("metrics-server")
        );
    }
}

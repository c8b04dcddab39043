//! The custom and external metrics APIs on a local cluster: sources, listener, and how they are reached.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use elastic_metrics::{
    AdapterConfig, CustomMetricsConfig, Dialer, FrontProxy, MetricsTls, PrometheusOptions,
    PushedMetrics,
};
use local_apiserver::ApiServer;
use local_network::{CONTROL_ADDRESS, ClusterNetwork, SocketFactory};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{addresses, spawn};

/// Name of the Service, in `kube-system`.
const SERVICE: &str = "elastic-metrics";
/// How the API server proves itself to aggregated servers.
const FRONT_PROXY: &str = "front-proxy-client";

/// Where business metrics come from.
#[derive(Clone, Debug, Default)]
pub struct MetricsSources {
    pub prometheus: Option<PrometheusOptions>,
    /// Rules of a configuration file of prometheus-adapter.
    pub rules: Option<AdapterConfig>,
    /// Between two lists of Prometheus' series.
    pub relist: Option<std::time::Duration>,
    /// What is pushed, and who is told of it.
    pub pushed: PushedMetrics,
    /// Labels by which several Prometheus that push the same series are told apart; the usual ones when there are none.
    pub replica_labels: Vec<String>,
}

/// Registers and serves the APIs.
pub async fn start(
    api: &ApiServer,
    network: &ClusterNetwork,
    sources: MetricsSources,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let address: SocketAddr = (CONTROL_ADDRESS, addresses::CUSTOM_METRICS_PORT).into();
    let listener = network
        .sockets()
        .tcp_listen(address)
        .await
        .context("listen for the custom metrics API")?;
    let name = format!("{SERVICE}.kube-system.svc");
    let (certificate_pem, key_pem) = api
        .issue_serving_certificate(&[name], &[address.ip()])
        .context("issue the certificate of the custom metrics API")?;
    let authority_pem = api.credentials().ca_pem;
    let tls = MetricsTls {
        certificate_pem,
        key_pem,
        authority_pem: authority_pem.clone(),
        client_authority_pem: None,
    };
    let front_proxy = FrontProxy::new(authority_pem, vec![FRONT_PROXY.to_string()]);
    let mut config = CustomMetricsConfig::new(Some(address), tls, front_proxy);
    config.service = SERVICE.to_string();
    config.pushed = sources.pushed;
    if !sources.replica_labels.is_empty() {
        config.replica_labels = sources.replica_labels;
    }
    config.prometheus = sources.prometheus;
    config.rules = sources.rules;
    config.relist = sources.relist.unwrap_or(config.relist);
    let dialer = Arc::new(FromHost {
        sockets: network.sockets(),
        client: api.client(),
    });
    config.prometheus_dialer = dialer.clone();
    config.pod_dialer = dialer;
    spawn(
        tasks,
        "custom metrics API",
        elastic_metrics::run_custom_metrics(api.client(), config, listener, shutdown.clone()),
    );
    Ok(())
}

/// Reaches both the host's network and the cluster's: Prometheus may run in either.
struct FromHost {
    sockets: SocketFactory,
    client: kube::Client,
}

#[async_trait]
impl Dialer for FromHost {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let Some((service, namespace)) = service_name(host) else {
            return Ok(tokio::net::lookup_host((host, port)).await?.collect());
        };
        let found =
            elastic_metrics::service_endpoints(&self.client, namespace, service, port).await;
        found.map_err(|reason| io::Error::new(io::ErrorKind::NotFound, reason))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if addresses::is_inside(address.ip()) {
            return self.sockets.tcp_connect(address).await;
        }
        TcpStream::connect(address).await
    }
}

/// Service and namespace of `service.namespace.svc` and its longer form.
fn service_name(host: &str) -> Option<(&str, &str)> {
    let host = host.trim_end_matches('.');
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    let (service, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
    (!namespace.contains('.')).then_some((service, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_told_from_others() {
        let wanted = Some(("prometheus", "monitoring"));
        assert_eq!(service_name("prometheus.monitoring.svc"), wanted);
        assert_eq!(
            service_name("prometheus.monitoring.svc.cluster.local."),
            wanted
        );
        for other in ["localhost", "prometheus.example.com", "a.b.c.svc", "svc"] {
            assert_eq!(service_name(other), None, "{other}");
        }
    }
}

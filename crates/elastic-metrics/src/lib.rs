//! Metrics for autoscalers, as aggregated APIs.
//!
//! `metrics.k8s.io`: nodes are asked for `/metrics/resource`, and rates are computed from the counters; or Prometheus is asked
//! by the adapter's `resourceRules`. `custom.metrics.k8s.io` and `external.metrics.k8s.io`: values of Prometheus by the rules of
//! prometheus-adapter, and `ElasticMetric` objects. The crate keeps only the newest samples: it is no metrics store.

mod adapter;
mod custom;
mod elastic_metric;
mod exposition;
mod forecasts;
pub mod log_exporter;
mod outgoing;
mod prometheus;
mod pushed;
mod register;
mod resource;
mod run_custom;
mod selector;
mod serve;
mod status;
mod value;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use adapter::{AdapterConfig, ConfigError};
pub use custom::access::FrontProxy;
pub use elastic_metric::service_endpoints;
pub use outgoing::{Dialer, OwnNetwork, TrustError};
pub use prometheus::{PrometheusError, PrometheusOptions, Verb};
pub use pushed::{PushedMetrics, Pushes, RelayOptions, write_request};
pub use register::RegisterError;
pub use resource::KubeletOptions;
pub use run_custom::{
    CustomMetricsConfig, CustomRunError, Groups, REPLICA_LABELS, run_custom_metrics,
};
pub use serve::ServeError;

/// Keys of the HTTPS server, as PEM.
#[derive(Clone)]
pub struct MetricsTls {
    /// Serving certificate for `<service>.<namespace>.svc`, leaf first.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// Authority of the serving certificate, for the APIService.
    pub authority_pem: String,
    /// Authority of the API server's front proxy; when given, only clients it vouches for are served.
    pub client_authority_pem: Option<String>,
}

/// How metrics are collected and served.
#[derive(Clone)]
pub struct MetricsConfig {
    /// Between two looks at each node.
    pub interval: Duration,
    /// A pod whose newest sample is older than this is no longer shown.
    pub stale_after: Duration,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Where the API server reaches the listener; `None` when the Service is made by somebody else.
    pub address: Option<SocketAddr>,
    /// Keys.
    pub tls: MetricsTls,
}

impl MetricsConfig {
    /// Defaults for everything that has one.
    pub fn new(address: SocketAddr, tls: MetricsTls) -> Self {
        Self {
            interval: Duration::from_secs(1),
            stale_after: Duration::from_secs(30),
            namespace: "kube-system".to_owned(),
            service: "metrics-server".to_owned(),
            address: Some(address),
            tls,
        }
    }
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The APIService or what belongs to it.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The HTTPS server.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Registers the API, collects and serves until `shutdown`. The registration stays, as upstream's does.
pub async fn run_metrics(
    client: Client,
    config: MetricsConfig,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let server = serve::Server::new(&config.tls, serve::Clients::HaveCertificates)?;
    let board = Arc::new(resource::Board::default());
    let registration = register::Registration {
        namespace: &config.namespace,
        service: &config.service,
        address: config.address,
        authority_pem: &config.tls.authority_pem,
        versions: &[register::RESOURCE_METRICS],
        take_over: true,
    };
    register::register(&client, &registration).await?;
    let answers = Arc::new(resource::ResourceMetrics {
        board: board.clone(),
        stale_after: config.stale_after,
        prometheus: None,
    });
    let collection = resource::Collection {
        client,
        board,
        kubelets: resource::Kubelets::ThroughApiServer,
        interval: config.interval,
    };
    tokio::join!(
        resource::collect(collection, shutdown.clone()),
        server.run(listener, answers, shutdown),
    );
    Ok(())
}

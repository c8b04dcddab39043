//! The resource metrics API: CPU and memory of nodes and pods, fresh enough for an autoscaler that looks every second.
//!
//! Nodes are asked for `/metrics/resource` through the API server's node proxy, rates are computed from the counters, and
//! `metrics.k8s.io/v1beta1` is served over HTTPS as an ordinary aggregated API. The crate keeps only the newest samples: it
//! is no metrics store, and it scrapes nothing that Prometheus already has.

mod api;
mod exposition;
pub mod log_exporter;
mod register;
mod samples;
mod scrape;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use register::RegisterError;
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
    let server = serve::Server::new(&config.tls, config.stale_after)?;
    let board = Arc::new(samples::Board::default());
    register::register(&client, &config).await?;
    let ended = shutdown.clone();
    tokio::join!(
        scrape::collect(
            client.clone(),
            board.clone(),
            config.clone(),
            shutdown.clone()
        ),
        server.run(listener, board, ended),
    );
    Ok(())
}

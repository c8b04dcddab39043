//! Runs the custom and external metrics APIs: registration, sources, server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::MetricsTls;
use crate::adapter::AdapterConfig;
use crate::custom::access::{Access, FrontProxy};
use crate::custom::answer::MetricsApi;
use crate::custom::path::{CUSTOM, EXTERNAL};
use crate::custom::source::Source;
use crate::elastic_metric::{self, Settings};
use crate::forecasts::Forecasts;
use crate::outgoing::{Dialer, Fetcher, OwnNetwork, TrustError};
use crate::prometheus::{Prometheus, PrometheusError, PrometheusOptions};
use crate::register::{self, ApiVersion, RegisterError, Registration};
use crate::serve::{ServeError, Server};

/// Which groups are registered; another server may have the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// `custom.metrics.k8s.io`.
    pub custom: bool,
    /// `external.metrics.k8s.io`.
    pub external: bool,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            custom: true,
            external: true,
        }
    }
}

impl Groups {
    fn versions(self) -> Vec<ApiVersion> {
        let version = |group, version, priority| ApiVersion {
            group,
            version,
            priority,
        };
        let mut versions = Vec::new();
        if self.custom {
            versions.push(version(CUSTOM, "v1beta1", 100));
            versions.push(version(CUSTOM, "v1beta2", 200));
        }
        if self.external {
            versions.push(version(EXTERNAL, "v1beta1", 100));
        }
        versions
    }
}

/// How the APIs are served and where values come from.
pub struct CustomMetricsConfig {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Where the API server reaches the listener; `None` when the Service is made by somebody else.
    pub address: Option<SocketAddr>,
    /// Keys; clients are believed by `front_proxy`, not by `client_authority_pem`.
    pub tls: MetricsTls,
    /// How the API server proves itself.
    pub front_proxy: FrontProxy,
    /// What is registered.
    pub groups: Groups,
    /// Without it only what is scraped directly has values.
    pub prometheus: Option<PrometheusOptions>,
    /// Rules of prometheus-adapter.
    pub rules: Option<AdapterConfig>,
    /// Between two lists of Prometheus' series.
    pub relist: Duration,
    /// Series without a sample for so long are not listed.
    pub max_age: Duration,
    /// How Prometheus is reached.
    pub prometheus_dialer: Arc<dyn Dialer>,
    /// How pods are reached.
    pub pod_dialer: Arc<dyn Dialer>,
    /// Whether this replica writes status on ElasticMetrics.
    pub leads: watch::Receiver<bool>,
}

impl CustomMetricsConfig {
    /// Defaults for everything that has one.
    pub fn new(address: Option<SocketAddr>, tls: MetricsTls, front_proxy: FrontProxy) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            service: "elastic-metrics".to_owned(),
            address,
            tls,
            front_proxy,
            groups: Groups::default(),
            prometheus: None,
            rules: None,
            relist: Duration::from_secs(4),
            max_age: Duration::from_secs(600),
            prometheus_dialer: Arc::new(OwnNetwork),
            pod_dialer: Arc::new(OwnNetwork),
            leads: watch::channel(true).1,
        }
    }
}

/// Why the APIs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CustomRunError {
    /// The APIServices or what belongs to them.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The HTTPS server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Prometheus' options.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    /// TLS towards pods.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Rules without anybody to ask.
    #[error("rules of a metrics configuration need a Prometheus; give its address")]
    RulesWithoutPrometheus,
}

/// Registers the APIs and serves them until `shutdown`. The definitions must be installed before.
pub async fn run_custom_metrics(
    client: Client,
    config: CustomMetricsConfig,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), CustomRunError> {
    let mut tls = config.tls.clone();
    tls.client_authority_pem = Some(config.front_proxy.authority_pem.clone());
    let server = Server::new(&tls)?;
    let prometheus = config.prometheus.as_ref();
    let prometheus = prometheus
        .map(|options| Prometheus::new(options, config.prometheus_dialer.clone()))
        .transpose()?;
    if config.rules.is_some() && prometheus.is_none() {
        return Err(CustomRunError::RulesWithoutPrometheus);
    }
    let fetcher = Fetcher::new(config.pod_dialer.clone(), None)?;
    if config
        .rules
        .as_ref()
        .is_some_and(|rules| rules.has_resource_rules)
    {
        tracing::info!(
            "resourceRules of the metrics configuration are not used: metrics.k8s.io comes from the kubelets"
        );
    }
    let rules = config
        .rules
        .map(|rules| (rules, config.relist, config.max_age));
    let source = Arc::new(Source::new(client.clone(), prometheus, rules, &shutdown));
    source.learn_kinds().await;
    let registration = Registration {
        namespace: &config.namespace,
        service: &config.service,
        address: config.address,
        authority_pem: &config.tls.authority_pem,
        versions: &config.groups.versions(),
        take_over: false,
    };
    register::register(&client, &registration).await?;
    let (forecasts, following) = Forecasts::follow(client.clone(), shutdown.clone());
    let answers = Arc::new(MetricsApi {
        access: Access::new(client.clone(), config.front_proxy),
        source: source.clone(),
        forecasts,
    });
    let settings = Settings {
        client,
        source: source.clone(),
        fetcher,
        leads: config.leads,
    };
    tokio::join!(
        source.keep_fresh(shutdown.clone()),
        following,
        elastic_metric::run(settings, shutdown.clone()),
        server.run(listener, answers, shutdown),
    );
    Ok(())
}

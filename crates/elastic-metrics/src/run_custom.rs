//! Runs the custom and external metrics APIs: registration, sources, server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::MetricsTls;
use crate::adapter::{AdapterConfig, ResourceRules};
use crate::custom::access::{Access, FrontProxy};
use crate::custom::answer::MetricsApi;
use crate::custom::path::{CUSTOM, EXTERNAL};
use crate::custom::source::{RELIST, Source};
use crate::elastic_metric::{self, Settings};
use crate::forecasts::Forecasts;
use crate::outgoing::{Dialer, Fetcher, OwnNetwork, TrustError};
use crate::prometheus::{Prometheus, PrometheusError, PrometheusOptions};
use crate::pushed::{Fleet, PUSHED, PUSHED_VERSION, PushedMetrics, Relay, RelayOptions};
use crate::register::{self, ApiVersion, RegisterError, Registration};
use crate::resource::{
    Board, Collection, KubeletOptions, Kubelets, PrometheusUsage, ResourceMetrics, collect,
    follow_labels,
};
use crate::serve::{Clients, ServeError, Server};

/// A value of `metrics.k8s.io` is shown for so many intervals.
const STALE_INTERVALS: u32 = 4;

/// How the field names the replicas of one Prometheus: its operator does, and what takes remote writes from several.
pub const REPLICA_LABELS: [&str; 2] = ["prometheus_replica", "__replica__"];

/// Which groups are registered; another server may have the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// `custom.metrics.k8s.io`.
    pub custom: bool,
    /// `external.metrics.k8s.io`.
    pub external: bool,
    /// `metrics.k8s.io`, where nobody serves it yet: from Prometheus when the rules have `resourceRules`, from the kubelets
    /// otherwise.
    pub resource: bool,
    /// The group that metrics are pushed to.
    pub pushed: bool,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            custom: true,
            external: true,
            resource: false,
            pushed: true,
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
        if self.resource {
            versions.push(register::RESOURCE_METRICS);
        }
        if self.pushed {
            versions.push(version(PUSHED, PUSHED_VERSION, 100));
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
    /// How kubelets are asked, for `metrics.k8s.io` without `resourceRules`.
    pub kubelets: KubeletOptions,
    /// Whether this replica writes status on ElasticMetrics.
    pub leads: watch::Receiver<bool>,
    /// Where pushed metrics are kept, and who is told of them.
    pub pushed: PushedMetrics,
    /// Labels by which several Prometheus that push the same series are told apart. They are taken off, so that the series
    /// counts once; the newest sample wins.
    pub replica_labels: Vec<String>,
    /// How pushed metrics reach the other replicas; none when there is only this one.
    pub relay: Option<RelayOptions>,
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
            relist: RELIST,
            max_age: Duration::from_secs(600),
            prometheus_dialer: Arc::new(OwnNetwork),
            pod_dialer: Arc::new(OwnNetwork),
            kubelets: KubeletOptions::default(),
            leads: watch::channel(true).1,
            pushed: PushedMetrics::default(),
            replica_labels: REPLICA_LABELS.map(str::to_owned).to_vec(),
            relay: None,
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

fn relay(client: &Client, config: &CustomMetricsConfig) -> Option<Relay> {
    let fleet = Fleet {
        client: client.clone(),
        namespace: config.namespace.clone(),
        service: config.service.clone(),
        authority_pem: config.tls.authority_pem.clone(),
        dialer: config.pod_dialer.clone(),
    };
    let options = config.relay.clone()?;
    Some(Relay::new(options, fleet))
}

fn clients(groups: Groups) -> Clients {
    match groups.pushed {
        // Who pushes may show a token instead of a certificate.
        true => Clients::MayHaveCertificates,
        false => Clients::HaveCertificates,
    }
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
    let relay = relay(&client, &config);
    let server = Server::new(&tls, clients(config.groups))?;
    let prometheus = config.prometheus.as_ref();
    let prometheus = prometheus
        .map(|options| Prometheus::new(options, config.prometheus_dialer.clone()))
        .transpose()?;
    if config.rules.is_some() && prometheus.is_none() {
        return Err(CustomRunError::RulesWithoutPrometheus);
    }
    let fetcher = Fetcher::new(config.pod_dialer.clone(), None)?;
    let resource_rules = config
        .rules
        .as_ref()
        .and_then(|rules| rules.resource_rules.clone());
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
    let (resource, filling) = if config.groups.resource {
        let parts = (client.clone(), source.clone(), resource_rules);
        let (resource, filling) = serve_resource(parts, &config.kubelets, shutdown.clone())?;
        (Some(resource), Some(filling))
    } else {
        (None, None)
    };
    let (forecasts, following) = Forecasts::follow(client.clone(), shutdown.clone());
    let answers = Arc::new(MetricsApi {
        access: Access::new(client.clone(), config.front_proxy),
        source: source.clone(),
        forecasts,
        resource,
        takes_pushes: config.groups.pushed,
        pushed: config.pushed,
        replica_labels: config.replica_labels,
        relay,
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
        OptionFuture::from(filling),
        elastic_metric::run(settings, shutdown.clone()),
        server.run(listener, answers, shutdown),
    );
    Ok(())
}

/// `metrics.k8s.io`, and what keeps its board filled until `shutdown`.
fn serve_resource(
    (client, source, rules): (Client, Arc<Source>, Option<ResourceRules>),
    kubelets: &KubeletOptions,
    shutdown: CancellationToken,
) -> Result<(ResourceMetrics, BoxFuture<'static, ()>), TrustError> {
    let board = Arc::new(Board::default());
    let mut resource = ResourceMetrics {
        board: board.clone(),
        stale_after: STALE_INTERVALS * kubelets.interval,
        prometheus: None,
    };
    let filling = match rules {
        Some(rules) => {
            resource.prometheus = Some(PrometheusUsage::new(source, rules, board.clone()));
            follow_labels(client, board, shutdown).boxed()
        }
        None => {
            let collection = Collection {
                client,
                board,
                kubelets: Kubelets::direct(kubelets)?,
                interval: kubelets.interval,
            };
            collect(collection, shutdown).boxed()
        }
    };
    Ok((resource, filling))
}

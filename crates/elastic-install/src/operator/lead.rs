//! What the leading replica does: keeps definitions installed, runs controllers, and runs the virtual nodes.
//!
//! The virtual nodes follow `eci-profile` themselves; here is only what they cannot know: which cloud, with whose key,
//! the zones of vSwitches, and where their kubelet APIs listen.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloud_api::client::{ConfigError, HyperTransport};
use cloud_api::model::vpc::DescribeVSwitchesRequest;
use cloud_api::{ClientSources, EciClient, EciConfig};
use elastic_controllers::{ControllersConfig, install_definitions, run_controllers};
use elastic_core::eci_profile::{Environment, describe};
use elastic_metrics::PushedMetrics;
use elastic_node::{
    FindZone, NodeEndpoint, OpenEndpoint, Timing, VirtualNodeConfig, run_virtual_nodes,
};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Status;
use super::credentials::{self, CredentialsError};
use super::kubelet;
use super::metrics::{Counting, follow_pods};
use super::settings::{Texts, endpoints};
use crate::names::NAMESPACE;

/// Wait after a failure that may pass by itself.
const RETRY: Duration = Duration::from_secs(5);
/// Tasks get this long to stop; less than the Lease lasts.
const END_TIMEOUT: Duration = Duration::from_secs(3);
const DNS_SERVICE: &str = "kube-dns";

/// Where this replica stands.
pub(super) struct Place {
    pub(super) environment: Texts,
    pub(super) node_address: IpAddr,
    pub(super) kubelet_bind: IpAddr,
    pub(super) kubelet_port: u16,
    pub(super) timing: Timing,
    pub(super) metadata_endpoint: String,
    /// What this replica was pushed.
    pub(super) pushed: PushedMetrics,
}

/// Why the virtual nodes cannot run now.
#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error("the environment cannot be used: {0}")]
    Environment(String),
    #[error("ECI_REGION is not set; give the region's id, such as cn-hangzhou")]
    NoRegion,
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Endpoint(#[from] ConfigError),
    #[error("ask the API for {what}")]
    Api {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error(transparent)]
    Run(#[from] elastic_node::RunError),
}

/// Everything until `stop`.
pub(super) async fn lead(
    client: Client,
    place: &Place,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let mut config = ControllersConfig::default();
    let zone = place.environment.get("TZ").map(String::as_str);
    config.cron_horizontal_pod_autoscaler =
        config.cron_horizontal_pod_autoscaler.with_time_zone(zone);
    config.cron_horizontal_pod_autoscaler.counts = status.jobs.clone();
    config.fast_autoscaler.pushes = Some(place.pushed.pushes());
    tasks.spawn(controllers(client.clone(), config, stop.clone()));
    tasks.spawn(follow_pods(
        client.clone(),
        status.metrics.clone(),
        stop.clone(),
    ));
    while let Err(error) = virtual_nodes(&client, place, &status, &stop).await {
        let why = chain(&error);
        tracing::error!(error = why, "virtual nodes do not run, trying again");
        status.set_problem(Some(why));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    end(tasks).await;
}

/// Waits for tasks that were told to stop; what does not end by itself is ended, so that the Lease is let go of in time.
pub(super) async fn end(mut tasks: JoinSet<()>) {
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
        tracing::warn!(left = tasks.len(), "some tasks did not stop in time");
        tasks.shutdown().await;
    }
}

/// The definitions first: a watch of a kind that is not there yet only fails.
async fn controllers(client: Client, config: ControllersConfig, stop: CancellationToken) {
    while let Err(error) = install_definitions(&client).await {
        let why = chain(&error);
        tracing::warn!(error = why, "elastic kinds are not installed, trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    run_controllers(client, config, stop).await;
}

async fn virtual_nodes(
    client: &Client,
    place: &Place,
    status: &Status,
    stop: &CancellationToken,
) -> Result<(), LeadError> {
    let environment = Environment::parse(&place.environment)
        .map_err(|problems| LeadError::Environment(describe(&problems)))?;
    let region = environment.region.clone().ok_or(LeadError::NoRegion)?;
    let (credentials, source) =
        credentials::find(client, &place.environment, &place.metadata_endpoint).await?;
    let cluster_id = match environment.cluster_id.clone() {
        Some(id) => id,
        None => cluster_uid(client).await?,
    };
    tracing::info!(%source, region, cluster = cluster_id, "access key found");
    let at = endpoints(&region, &place.environment);
    // For a cloud without call limits, such as the local one; the real one answers too many calls with throttling.
    let unlimited = place.environment.get("ECI_CALL_LIMITS").map(String::as_str) == Some("none");
    let cloud = |endpoint: &str| {
        let config = EciConfig::new(endpoint, &region, credentials.clone());
        let config = if unlimited {
            config.without_limits()
        } else {
            config
        };
        counted(config, status)
    };
    let (eci, vpc) = (cloud(&at.eci)?, cloud(&at.vpc)?);
    // Ends with the virtual nodes, whatever ends them.
    let ended = stop.child_token();
    let keeping = TaskTracker::new();
    let opener = Opener::new(client.clone(), place, &keeping, &ended).await?;
    let config = VirtualNodeConfig::new(cluster_id, Vec::new(), Vec::new());
    let mut config = config.with_environment(environment);
    config.timing = place.timing.clone();
    config.figures = status.metrics.figures.clone();
    config.settings.cluster_dns = cluster_dns(client).await?;
    config.settings.kubernetes_service = kubernetes_service(client).await?;
    config.open_endpoint = Some(Arc::new(opener));
    config.find_zone = Some(Arc::new(Zones(vpc.clone())));
    status.set_problem(None);
    let fresh = credentials::keep_fresh(
        client.clone(),
        place.environment.clone(),
        place.metadata_endpoint.clone(),
        vec![eci.clone(), vpc],
        credentials,
        ended.clone(),
    );
    let nodes = async {
        let outcome = run_virtual_nodes(client.clone(), eci, config, stop.clone()).await;
        ended.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(nodes, fresh);
    keeping.close();
    keeping.wait().await;
    Ok(outcome?)
}

/// A client whose calls are counted.
fn counted(config: EciConfig, status: &Status) -> Result<EciClient, ConfigError> {
    let with_tls = !config.endpoint.starts_with("http://");
    let transport = HyperTransport::new(with_tls, config.max_in_flight);
    let inner = transport.map_err(|source| ConfigError::Tls {
        endpoint: config.endpoint.clone(),
        source,
    })?;
    let counting = Counting {
        inner,
        metrics: status.metrics.clone(),
    };
    EciClient::with_transport(config, ClientSources::system(), Arc::new(counting))
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> LeadError {
    move |error| LeadError::Api {
        what,
        source: Box::new(error),
    }
}

async fn cluster_uid(client: &Client) -> Result<String, LeadError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get(NAMESPACE).await;
    let system = system.map_err(api("the namespace whose UID names the cluster"))?;
    Ok(system.uid().unwrap_or_default())
}

async fn service(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Service>, LeadError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services.get_opt(name).await.map_err(api("a service"))
}

async fn cluster_dns(client: &Client) -> Result<Vec<String>, LeadError> {
    let found = service(client, NAMESPACE, DNS_SERVICE).await?;
    let address = found.and_then(|service| service.spec?.cluster_ip);
    let real = |address: &String| address != "None" && !address.is_empty();
    Ok(address.into_iter().filter(real).collect())
}

async fn kubernetes_service(client: &Client) -> Result<Option<(String, u16)>, LeadError> {
    let found = service(client, "default", "kubernetes").await?;
    Ok(found.and_then(|service| {
        let spec = service.spec?;
        let port = spec.ports?.first()?.port;
        Some((spec.cluster_ip?, u16::try_from(port).ok()?))
    }))
}

/// Asks the network service.
struct Zones(EciClient);

#[async_trait]
impl FindZone for Zones {
    async fn zone(&self, v_switch: &str) -> Result<Option<String>, String> {
        let question = DescribeVSwitchesRequest {
            v_switch_id: Some(v_switch.to_owned()),
            ..DescribeVSwitchesRequest::default()
        };
        let answer = self.0.call(&question).await;
        let answer = answer.map_err(|error| chain(&error))?;
        let mut found = answer.v_switches.v_switch.into_iter();
        Ok(found
            .find(|one| one.v_switch_id == v_switch && !one.zone_id.is_empty())
            .map(|one| one.zone_id))
    }
}

/// All nodes under this replica's address, each on a port of its own that it keeps.
struct Opener {
    client: Client,
    node_address: IpAddr,
    bind: IpAddr,
    first_port: u16,
    authority: Option<String>,
    names: Mutex<Vec<String>>,
    /// Renews the nodes' certificates.
    keeping: TaskTracker,
    ended: CancellationToken,
}

impl Opener {
    async fn new(
        client: Client,
        place: &Place,
        keeping: &TaskTracker,
        ended: &CancellationToken,
    ) -> Result<Self, LeadError> {
        let authority = kubelet::client_authority(&client).await;
        let authority = authority.map_err(api("the authority of its clients"))?;
        if authority.is_none() {
            tracing::warn!(
                "the cluster publishes no client authority (ConfigMap {NAMESPACE}/extension-apiserver-authentication), \
                 so the virtual nodes serve no logs, exec and metrics"
            );
        }
        Ok(Self {
            client,
            node_address: place.node_address,
            bind: place.kubelet_bind,
            first_port: place.kubelet_port,
            authority,
            names: Mutex::default(),
            keeping: keeping.clone(),
            ended: ended.clone(),
        })
    }

    fn port(&self, name: &str) -> u16 {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        port(self.first_port, index)
    }
}

#[async_trait]
impl OpenEndpoint for Opener {
    async fn open(&self, name: &str, zone: &str) -> Result<NodeEndpoint, String> {
        let mut endpoint = NodeEndpoint {
            zone: zone.to_owned(),
            address: self.node_address,
            port: self.port(name),
            listener: None,
        };
        let Some(authority) = self.authority.clone() else {
            return Ok(endpoint);
        };
        let address = SocketAddr::new(self.bind, endpoint.port);
        let failed = |error| format!("listen on {address}: {error}");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        endpoint.port = listener.local_addr().map_err(failed)?.port();
        let subject = kubelet::Subject {
            node: name.to_owned(),
            address: self.node_address,
            client_ca_pem: authority,
        };
        let keys = subject.first_keys(&self.client).await;
        let keys = keys.map_err(|error| chain(&error))?;
        let (shown, followed) = watch::channel(keys.tls.clone());
        endpoint.listener = Some((listener, followed));
        let (client, ended) = (self.client.clone(), self.ended.clone());
        self.keeping
            .spawn(subject.keep_fresh(client, keys, shown, ended));
        Ok(endpoint)
    }
}

fn port(first: u16, index: usize) -> u16 {
    match first {
        0 => 0,
        first => first.saturating_add(u16::try_from(index).unwrap_or(u16::MAX)),
    }
}

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_one_another_and_zero_means_any() {
        assert_eq!((port(10250, 0), port(10250, 2)), (10250, 10252));
        assert_eq!(port(0, 3), 0);
    }
}

//! What the leading replica does: keeps definitions installed, runs controllers, and runs the virtual nodes of the
//! settings in force, again whenever these change.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cloud_api::client::{BoxError, ConfigError};
use cloud_api::model::vpc::DescribeVSwitchesRequest;
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig, EciError};
use elastic_controllers::{ElasticWorkloadConfig, install_definitions, run_elastic_workload};
use elastic_node::{
    ClusterSettings, NodeEndpoint, Timing, VSwitch, VirtualNodeConfig, run_virtual_nodes,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Status;
use super::credentials::{self, CredentialsError};
use super::kubelet;
use super::settings::{Settings, SettingsError, Texts, settings};
use crate::names::{NAMESPACE, PROFILE};

/// Wait after a failure that may pass by itself.
const RETRY: Duration = Duration::from_secs(5);
const DNS_SERVICE: &str = "kube-dns";

/// Where this replica stands.
pub(super) struct Place {
    pub(super) environment: Texts,
    pub(super) node_address: IpAddr,
    pub(super) kubelet_bind: IpAddr,
    pub(super) kubelet_port: u16,
    pub(super) timing: Timing,
    pub(super) metadata_endpoint: String,
}

/// Why the virtual nodes cannot run now.
#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
    #[error("ask for the zone of vSwitch {v_switch}")]
    Zone {
        v_switch: String,
        #[source]
        source: Box<EciError>,
    },
    #[error("vSwitch {0} does not exist in the region; correct vSwitchIds")]
    NoVSwitch(String),
    #[error("listen for the kubelet API on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("make the kubelet certificate")]
    Certificate(#[source] BoxError),
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
    let tasks = TaskTracker::new();
    let (profile, changes) = watch::channel(None);
    tasks.spawn(watch_profile(client.clone(), profile, stop.clone()));
    tasks.spawn(controllers(client.clone(), stop.clone()));
    virtual_nodes(&client, place, &status, changes, &stop).await;
    tasks.close();
    tasks.wait().await;
}

/// The definitions first: a watch of a kind that is not there yet only fails.
async fn controllers(client: Client, stop: CancellationToken) {
    while let Err(error) = install_definitions(&client).await {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, cause, "elastic kinds are not installed, trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    run_elastic_workload(client, ElasticWorkloadConfig::default(), stop).await;
}

/// Keeps the profile's newest data in `profile`; an absent one is an empty one.
async fn watch_profile(
    client: Client,
    profile: watch::Sender<Option<Texts>>,
    stop: CancellationToken,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut changes = pin!(watcher::watch_object(api, PROFILE).default_backoff());
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => change,
        };
        match change {
            Some(Ok(found)) => {
                let data = found.and_then(|map| map.data).unwrap_or_default();
                profile.send_if_modified(|known| {
                    let news = known.as_ref() != Some(&data);
                    *known = Some(data);
                    news
                });
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "ConfigMap {NAMESPACE}/{PROFILE} cannot be watched, trying again");
            }
            None => return,
        }
    }
}

/// Settings with everything that had to be asked for: a wrong id shows here, before anything is stopped.
struct Prepared {
    settings: Settings,
    eci: EciClient,
    vpc: EciClient,
    credentials: Credentials,
    v_switches: Vec<VSwitch>,
}

async fn virtual_nodes(
    client: &Client,
    place: &Place,
    status: &Status,
    mut changes: watch::Receiver<Option<Texts>>,
    stop: &CancellationToken,
) {
    let mut next: Option<Prepared> = None;
    loop {
        let prepared = match next.take() {
            Some(prepared) => prepared,
            None => match first(client, place, status, &mut changes, stop).await {
                Some(prepared) => prepared,
                None => return,
            },
        };
        let again = stop.child_token();
        let in_force = prepared.settings.clone();
        let mut running = pin!(run_with(client, place, prepared, status, again.clone()));
        let failed = loop {
            tokio::select! {
                outcome = &mut running => break outcome.err(),
                replacement = replacement(client, place, status, &in_force, &mut changes) => {
                    tracing::info!("settings changed, virtual nodes go on with the new ones");
                    next = Some(replacement);
                    again.cancel();
                }
            }
            if next.is_some() {
                break running.await.err();
            }
        };
        if stop.is_cancelled() {
            return;
        }
        if let Some(error) = failed {
            complain(client, status, &error).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// The first settings that can be used; `None` when told to stop before.
async fn first(
    client: &Client,
    place: &Place,
    status: &Status,
    changes: &mut watch::Receiver<Option<Texts>>,
    stop: &CancellationToken,
) -> Option<Prepared> {
    loop {
        let newest = changes.borrow_and_update().clone();
        let mut retry = Duration::MAX;
        if let Some(profile) = newest {
            match prepare(client, place, &profile).await {
                Ok(prepared) => return Some(prepared),
                Err(error) => {
                    complain(client, status, &error).await;
                    // Words do not get right by themselves; everything else may.
                    if !matches!(error, LeadError::Settings(_)) {
                        retry = RETRY;
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            changed = changes.changed() => if changed.is_err() { return None },
            () = tokio::time::sleep(retry) => {}
        }
    }
}

/// Waits for settings that differ from those in force and can be used; bad ones are reported and change nothing.
async fn replacement(
    client: &Client,
    place: &Place,
    status: &Status,
    in_force: &Settings,
    changes: &mut watch::Receiver<Option<Texts>>,
) -> Prepared {
    loop {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(profile) = changes.borrow_and_update().clone() else {
            continue;
        };
        match prepare(client, place, &profile).await {
            Ok(prepared) if prepared.settings == *in_force => status.set_problem(None),
            Ok(prepared) => return prepared,
            Err(error) => {
                tracing::warn!("the last good settings stay in force");
                complain(client, status, &error).await;
            }
        }
    }
}

async fn prepare(client: &Client, place: &Place, profile: &Texts) -> Result<Prepared, LeadError> {
    let system: Api<Namespace> = Api::all(client.clone());
    let system = system.get(NAMESPACE).await.map_err(api("its name space"))?;
    let settings = settings(
        profile,
        &place.environment,
        &system.uid().unwrap_or_default(),
    )?;
    let (credentials, source) =
        credentials::find(client, &place.environment, &place.metadata_endpoint).await?;
    tracing::info!(%source, region = settings.region, cluster = settings.cluster_id, "access key found");
    let cloud = |endpoint: &str| {
        let config = EciConfig::new(endpoint, &settings.region, credentials.clone());
        EciClient::new(config, ClientSources::system())
    };
    let (eci, vpc) = (
        cloud(&settings.eci_endpoint)?,
        cloud(&settings.vpc_endpoint)?,
    );
    let mut v_switches = Vec::new();
    for id in &settings.v_switches {
        let zone = match settings.zones.get(id) {
            Some(zone) => zone.clone(),
            None => zone(&vpc, id).await?,
        };
        v_switches.push(VSwitch {
            zone,
            id: id.clone(),
        });
    }
    Ok(Prepared {
        settings,
        eci,
        vpc,
        credentials,
        v_switches,
    })
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> LeadError {
    move |error| LeadError::Api {
        what,
        source: Box::new(error),
    }
}

async fn zone(vpc: &EciClient, id: &str) -> Result<String, LeadError> {
    let question = DescribeVSwitchesRequest {
        v_switch_id: Some(id.to_owned()),
        ..DescribeVSwitchesRequest::default()
    };
    let answer = vpc.call(&question).await.map_err(|error| LeadError::Zone {
        v_switch: id.to_owned(),
        source: Box::new(error),
    })?;
    let found = answer.v_switches.v_switch.into_iter();
    let mut found = found.filter(|one| one.v_switch_id == id && !one.zone_id.is_empty());
    found
        .next()
        .map(|one| one.zone_id)
        .ok_or_else(|| LeadError::NoVSwitch(id.to_owned()))
}

async fn run_with(
    client: &Client,
    place: &Place,
    prepared: Prepared,
    status: &Status,
    stop: CancellationToken,
) -> Result<(), LeadError> {
    let Prepared {
        settings,
        eci,
        vpc,
        credentials,
        v_switches,
    } = prepared;
    let version = client
        .apiserver_version()
        .await
        .map_err(api("its version"))?;
    let nodes = endpoints(client, place, &v_switches).await?;
    let mut config = VirtualNodeConfig::new(&settings.cluster_id, v_switches, nodes);
    config.kubelet_version = kubelet_version(&version.git_version);
    config.timing = place.timing.clone();
    config.settings = ClusterSettings {
        cluster_dns: cluster_dns(client).await?,
        cluster_domain: settings.cluster_domain,
        kubernetes_service: settings.api_server,
        security_group: settings.security_group,
    };
    status.set_problem(None);
    let fresh = credentials::keep_fresh(
        client.clone(),
        place.environment.clone(),
        place.metadata_endpoint.clone(),
        vec![eci.clone(), vpc],
        credentials,
        stop.clone(),
    );
    let (outcome, ()) = tokio::join!(
        run_virtual_nodes(client.clone(), eci, config, stop.clone()),
        async {
            fresh.await;
        }
    );
    Ok(outcome?)
}

/// As the cluster's own nodes show theirs, so that tools that compare versions see no skew.
fn kubelet_version(server: &str) -> String {
    let plain = server.split(['-', '+']).next().unwrap_or(server);
    format!("{plain}-springtide.{}", env!("CARGO_PKG_VERSION"))
}

async fn cluster_dns(client: &Client) -> Result<Vec<String>, LeadError> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let found = services
        .get_opt(DNS_SERVICE)
        .await
        .map_err(api("the cluster's DNS service"))?;
    let address = found.and_then(|service| service.spec?.cluster_ip);
    Ok(address
        .into_iter()
        .filter(|address| address != "None" && !address.is_empty())
        .collect())
}

/// One endpoint a zone, all under this replica's address, each on a port of its own.
async fn endpoints(
    client: &Client,
    place: &Place,
    v_switches: &[VSwitch],
) -> Result<Vec<NodeEndpoint>, LeadError> {
    let authority = kubelet::client_authority(client)
        .await
        .map_err(api("the authority of its clients"))?;
    if authority.is_none() {
        tracing::warn!(
            "the cluster publishes no client authority (ConfigMap {NAMESPACE}/extension-apiserver-authentication), so              the virtual nodes serve no logs, exec and metrics"
        );
    }
    let mut nodes: Vec<NodeEndpoint> = Vec::new();
    for v_switch in v_switches {
        if nodes.iter().any(|node| node.zone == v_switch.zone) {
            continue;
        }
        let mut node = NodeEndpoint {
            zone: v_switch.zone.clone(),
            address: place.node_address,
            port: port(place.kubelet_port, nodes.len()),
            listener: None,
        };
        if let Some(authority) = &authority {
            let address = SocketAddr::new(place.kubelet_bind, node.port);
            let failed = |source| LeadError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            node.port = listener.local_addr().map_err(failed)?.port();
            let name = format!("{}{}", elastic_core::names::VIRTUAL_NODE_PREFIX, node.zone);
            let keys = kubelet::serving_keys(client, &name, node.address, authority.clone())
                .await
                .map_err(|error| LeadError::Certificate(Box::new(error)))?;
            node.listener = Some((listener, keys));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn port(first: u16, index: usize) -> u16 {
    match first {
        0 => 0,
        first => first.saturating_add(u16::try_from(index).unwrap_or(u16::MAX)),
    }
}

/// Where people look: the log, the readiness, and an event on the profile.
async fn complain(client: &Client, status: &Status, error: &LeadError) {
    let why = chain(error);
    tracing::error!(error = why, "settings cannot be used");
    status.set_problem(Some(why.clone()));
    let now = jiff::Timestamp::now();
    let event: Event = serde_json::from_value(json!({
        "metadata": {"generateName": format!("{PROFILE}-"), "namespace": NAMESPACE},
        "involvedObject": {"apiVersion": "v1", "kind": "ConfigMap", "name": PROFILE, "namespace": NAMESPACE},
        "type": "Warning", "reason": "InvalidSettings", "message": why, "count": 1,
        "firstTimestamp": Time(now), "lastTimestamp": Time(now),
        "source": {"component": crate::names::CONTROLLER}
    }))
    .expect("the literal above has the shape of an Event");
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::debug!(%error, "event about the settings not written");
    }
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
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
    fn the_kubelet_version_is_the_clusters_with_ours_behind_it() {
        let version = kubelet_version("v1.31.1+k3s1");
        assert!(version.starts_with("v1.31.1-springtide."), "{version}");
    }

    #[test]
    fn ports_follow_one_another_and_zero_means_any() {
        assert_eq!((port(10250, 0), port(10250, 2)), (10250, 10252));
        assert_eq!(port(0, 3), 0);
    }
}

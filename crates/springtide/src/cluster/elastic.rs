//! The elastic parts on a local cluster: exactly what they would be given on any other one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use elastic_controllers::{AdmissionConfig, AdmissionIdentity, ControllersConfig, WebhookAddress};
use elastic_core::eci_profile::EciProfile;
use elastic_metrics::{MetricsConfig, MetricsTls, Pushes};
use elastic_node::{ClusterSettings, NodeEndpoint, TokenPolicy, VSwitch, VirtualNodeConfig};
use kubelet_api::ServerTls;
use local_apiserver::ApiServer;
use local_network::{CONTROL_ADDRESS, ClusterNetwork};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{addresses, spawn};
use crate::status::CloudStatus;

/// Installs definitions and webhook, then starts controllers and virtual nodes.
pub async fn start(
    cluster_id: &str,
    api: &ApiServer,
    network: &ClusterNetwork,
    cloud: &CloudStatus,
    pushes: Pushes,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let client = api.client();
    elastic_controllers::install_definitions(&client)
        .await
        .context("install the elastic kinds")?;
    start_routing(&client, shutdown, tasks).await?;
    let mut config = ControllersConfig::default();
    config.fast_autoscaler.pushes = Some(pushes);
    let zone = std::env::var("TZ").ok();
    config.cron_horizontal_pod_autoscaler = config
        .cron_horizontal_pod_autoscaler
        .with_time_zone(zone.as_deref());
    let controller = elastic_controllers::run_controllers(client.clone(), config, shutdown.clone());
    tasks.spawn(controller);
    let nodes = virtual_nodes(cluster_id, api, network, cloud).await?;
    let eci = eci_client(cloud)?;
    spawn(
        tasks,
        "virtual nodes",
        elastic_node::run_virtual_nodes(client.clone(), eci, nodes, shutdown.clone()),
    );
    Ok(())
}

/// A client of a cluster's cloud, which keeps the call limits that the cloud keeps.
pub(crate) fn eci_client(cloud: &CloudStatus) -> anyhow::Result<EciClient> {
    let credentials = Credentials::new(&cloud.access_key_id, &cloud.access_key_secret);
    let mut config = EciConfig::new(
        format!("http://{}", cloud.eci.endpoint),
        &cloud.region,
        credentials,
    );
    // Every creation waits for the cloud's disk, so many are under way at once; the virtual node bounds them too.
    config.max_in_flight = 256;
    // Where the cloud refuses nothing, waiting would only cost time.
    if !cloud.call_limits {
        config = config.without_limits();
    }
    EciClient::new(config, ClientSources::system()).context("set up the cloud's client")
}

async fn start_routing(
    client: &kube::Client,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let (view, following) =
        elastic_controllers::follow_routing(client.clone(), BTreeMap::new(), shutdown.clone());
    tasks.spawn(following);
    tasks.spawn(elastic_controllers::run_burst(
        client.clone(),
        view.clone(),
        shutdown.clone(),
    ));
    // Outside the cluster's network: the API server calls a webhook's URL from the host.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .context("listen for the admission webhook")?;
    let port = listener
        .local_addr()
        .context("read the webhook's address")?
        .port();
    let identity = AdmissionIdentity::generate(&["127.0.0.1".to_string()])
        .context("issue the webhook's certificate")?;
    let address = WebhookAddress::Url(format!("https://127.0.0.1:{port}"));
    // Registered before anything is answered, so that the first pods are routed already.
    elastic_controllers::register_admission(
        client,
        &address,
        &identity.authority_pem,
        &EciProfile::default(),
    )
    .await
    .context("register the webhook")?;
    let config = AdmissionConfig {
        listener,
        address,
        identity: tokio::sync::watch::channel(identity).1,
    };
    let serving =
        elastic_controllers::run_admission(client.clone(), config, view, shutdown.clone());
    spawn(tasks, "admission webhook", serving);
    Ok(())
}

async fn virtual_nodes(
    cluster_id: &str,
    api: &ApiServer,
    network: &ClusterNetwork,
    cloud: &CloudStatus,
) -> anyhow::Result<VirtualNodeConfig> {
    let mut zones: Vec<&str> = Vec::new();
    for v_switch in &cloud.v_switches {
        if !zones.contains(&v_switch.zone.as_str()) {
            zones.push(&v_switch.zone);
        }
    }
    let mut nodes = Vec::new();
    for (index, zone) in zones.into_iter().enumerate() {
        let address = addresses::virtual_node(index);
        let name = format!("{}{zone}", elastic_core::names::VIRTUAL_NODE_PREFIX);
        network
            .add_address(address)
            .await
            .with_context(|| format!("set up the address of {name}"))?;
        let listener = network
            .sockets()
            .tcp_listen((address, addresses::KUBELET_PORT).into())
            .await
            .with_context(|| format!("listen for the kubelet API of {name}"))?;
        let (certificate_pem, key_pem) = api
            .issue_serving_certificate(std::slice::from_ref(&name), &[IpAddr::from(address)])
            .with_context(|| format!("issue the kubelet certificate of {name}"))?;
        let tls = ServerTls {
            certificate_pem,
            key_pem,
            client_ca_pem: api.credentials().ca_pem,
        };
        nodes.push(NodeEndpoint {
            zone: zone.to_string(),
            address: address.into(),
            port: addresses::KUBELET_PORT,
            listener: Some((listener, kubelet_api::fixed(tls))),
        });
    }
    let v_switches = cloud
        .v_switches
        .iter()
        .map(|one| VSwitch {
            id: one.id.clone(),
            zone: one.zone.clone(),
        })
        .collect();
    let mut config = VirtualNodeConfig::new(cluster_id, v_switches, nodes);
    config.settings = ClusterSettings {
        cluster_dns: vec![addresses::CLUSTER_DNS.to_string()],
        cluster_domain: "cluster.local".to_string(),
        direct_dns: vec![CONTROL_ADDRESS.to_string()],
        kubernetes_service: Some(("10.96.0.1".to_string(), 443)),
        api_server: Some((
            addresses::api_inside().ip().to_string(),
            addresses::api_inside().port(),
        )),
        security_group: cloud.security_groups.first().cloned(),
        ..ClusterSettings::default()
    };
    // The local cloud starts nothing anew for new files, so pods get tokens as short-lived as they ask for.
    config.tokens = TokenPolicy {
        least_life: std::time::Duration::ZERO,
        renew_in_place: true,
    };
    config.pod_dialer = addresses::pod_dialer(network.sockets());
    Ok(config)
}

/// Serves `metrics.k8s.io`, which every cluster has.
pub async fn start_metrics(
    api: &ApiServer,
    network: &ClusterNetwork,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let listener = network
        .sockets()
        .tcp_listen((CONTROL_ADDRESS, addresses::METRICS_PORT).into())
        .await
        .context("listen for the metrics API")?;
    let (certificate_pem, key_pem) = api
        .issue_serving_certificate(
            &["metrics-server.kube-system.svc".to_string()],
            &[CONTROL_ADDRESS.into()],
        )
        .context("issue the certificate of the metrics API")?;
    let tls = MetricsTls {
        certificate_pem,
        key_pem,
        authority_pem: api.credentials().ca_pem,
        client_authority_pem: None,
    };
    let config = MetricsConfig::new((CONTROL_ADDRESS, addresses::METRICS_PORT).into(), tls);
    spawn(
        tasks,
        "metrics API",
        elastic_metrics::run_metrics(api.client(), config, listener, shutdown.clone()),
    );
    Ok(())
}

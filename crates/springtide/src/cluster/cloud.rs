//! The local cloud: zones, vSwitches, an access key, and where its endpoint listens.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use cloud_api::Credentials;
use cloud_api::client::CallLimits;
use local_cloud::backend::{
    GroupBackend, RealBackend, RealBackendConfig, SimulatedBackend, StartDelay,
};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig, VSwitchConfig, ZoneConfig};
use local_network::ClusterNetwork;
use local_runtime::Runtime;
use rand::distr::{Alphanumeric, SampleString};

use crate::cli::{CallLimitsChoice, SizeArguments};
use crate::cluster::addresses;
use crate::data_dir::DataDir;
use crate::status::{CloudStatus, ClusterStatus, EndpointStatus, VSwitchStatus};

const REGION: &str = "cn-hangzhou";
const SECURITY_GROUP: &str = "sg-local";

/// Starts the cloud; an access key of an earlier run stays valid.
pub async fn start(
    data_dir: &DataDir,
    size: &SizeArguments,
    call_limits: CallLimitsChoice,
    runtime: &Runtime,
    network: &ClusterNetwork,
    before: Option<&ClusterStatus>,
) -> anyhow::Result<(LocalCloud, CloudStatus)> {
    let known = before.map(|status| status.cloud.control_token.clone());
    let control_token = known
        .filter(|token| !token.is_empty())
        .unwrap_or_else(|| Alphanumeric.sample_string(&mut rand::rng(), 40));
    let (key_id, secret) = match before {
        Some(status) => (
            status.cloud.access_key_id.clone(),
            status.cloud.access_key_secret.clone(),
        ),
        None => new_access_key(),
    };
    let v_switches = v_switches(&size.zones);
    let mut config = LocalCloudConfig::new(data_dir.cloud(), Credentials::new(&key_id, &secret));
    config.region = REGION.to_string();
    config.local_token = Some(control_token.clone());
    if call_limits == CallLimitsChoice::Documented {
        config.call_limits = CallLimits::documented();
    }
    config.zones = size
        .zones
        .iter()
        .map(|zone| ZoneConfig {
            id: zone.clone(),
            stock_vcpu: None,
        })
        .collect();
    config.v_switches = v_switches
        .iter()
        .map(|one| VSwitchConfig {
            id: one.id.clone(),
            zone: one.zone.clone(),
            cidr: one.cidr.clone(),
        })
        .collect();
    config.security_groups = vec![SECURITY_GROUP.to_string()];
    let sources = CloudSources::system();
    let backend: Arc<dyn GroupBackend> = if size.simulated {
        // Addresses only on paper too, so that thousands of groups fit.
        for v_switch in &mut config.v_switches {
            v_switch.cidr = v_switch
                .cidr
                .replace("10.4.", "10.")
                .replace(".0/24", ".0.0/16");
        }
        let delay = StartDelay {
            start: size.simulated_start_delay,
            ..StartDelay::default()
        };
        Arc::new(SimulatedBackend::new(delay, sources.now.clone()))
    } else {
        Arc::new(RealBackend::new(RealBackendConfig {
            runtime: runtime.clone(),
            network: network.clone(),
            data_dir: data_dir.cloud().join("groups"),
            cgroup_subpath: "cloud".to_string(),
            default_resolv_conf: String::new(),
        }))
    };
    let old_port =
        before.and_then(|status| status.cloud.eci.endpoint.rsplit(':').next()?.parse().ok());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = addresses::listen(any, old_port, "local cloud", "--data-dir").await?;
    let cloud = LocalCloud::start(config, backend, listener, sources)
        .await
        .context("start the local cloud")?;
    let status = CloudStatus {
        region: REGION.to_string(),
        access_key_id: key_id,
        access_key_secret: secret,
        control_token,
        call_limits: call_limits == CallLimitsChoice::Documented,
        simulated: size.simulated,
        eci: EndpointStatus {
            endpoint: cloud.address().to_string(),
        },
        v_switches,
        security_groups: vec![SECURITY_GROUP.to_string()],
    };
    Ok((cloud, status))
}

/// An access key in the vendor's form.
fn new_access_key() -> (String, String) {
    let mut random = rand::rng();
    let id = format!("LTAI{}", Alphanumeric.sample_string(&mut random, 20));
    (id, Alphanumeric.sample_string(&mut random, 30))
}

/// One vSwitch in each zone.
fn v_switches(zones: &[String]) -> Vec<VSwitchStatus> {
    let number = zones.iter().enumerate();
    number
        .map(|(index, zone)| VSwitchStatus {
            id: format!("vsw-local-{}", zone.rsplit('-').next().unwrap_or(zone)),
            zone: zone.clone(),
            cidr: addresses::v_switch(index),
        })
        .collect()
}

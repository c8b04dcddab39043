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
/// The first is used where nobody names one.
const SECURITY_GROUPS: [&str; 2] = ["sg-local", "sg-local-2"];

/// Starts the cloud; an access key of an earlier run stays valid.
pub async fn start(
    data_dir: &DataDir,
    size: &SizeArguments,
    call_limits: CallLimitsChoice,
    runtime: &Runtime,
    network: &ClusterNetwork,
    before: Option<&ClusterStatus>,
) -> anyhow::Result<(LocalCloud, CloudStatus)> {
    let keys = Keys::of(before);
    let v_switches = v_switches(&size.zones);
    let mut config = config(data_dir, size, &v_switches, &keys);
    if call_limits == CallLimitsChoice::Documented {
        config.call_limits = CallLimits::documented();
    }
    let sources = CloudSources::system();
    let backend: Arc<dyn GroupBackend> = if size.simulated {
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
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let old_port = before.and_then(|status| port_of(&status.cloud.eci));
    let listener = addresses::listen(any, old_port, "local cloud", "--data-dir").await?;
    let cloud = LocalCloud::start(config, backend, listener, sources)
        .await
        .context("start the local cloud")?;
    let old_port = before.and_then(|status| port_of(&status.cloud.sls));
    let listener = addresses::listen(any, old_port, "local log service", "--data-dir").await?;
    let logs = cloud
        .serve_logs(listener)
        .await
        .context("start the local log service")?;
    let status = CloudStatus {
        region: REGION.to_string(),
        access_key_id: keys.id,
        access_key_secret: keys.secret,
        control_token: keys.control_token,
        call_limits: call_limits == CallLimitsChoice::Documented,
        simulated: size.simulated,
        eci: EndpointStatus {
            endpoint: cloud.address().to_string(),
        },
        sls: EndpointStatus {
            endpoint: logs.to_string(),
        },
        v_switches,
        security_groups: SECURITY_GROUPS.map(str::to_string).to_vec(),
    };
    Ok((cloud, status))
}

fn port_of(status: &EndpointStatus) -> Option<u16> {
    status.endpoint.rsplit(':').next()?.parse().ok()
}

/// What opens the cloud; that of an earlier run stays valid.
struct Keys {
    id: String,
    secret: String,
    control_token: String,
}

impl Keys {
    fn of(before: Option<&ClusterStatus>) -> Self {
        let known = before.map(|status| status.cloud.control_token.clone());
        let control_token = known
            .filter(|token| !token.is_empty())
            .unwrap_or_else(|| Alphanumeric.sample_string(&mut rand::rng(), 40));
        let (id, secret) = match before {
            Some(status) => (
                status.cloud.access_key_id.clone(),
                status.cloud.access_key_secret.clone(),
            ),
            None => new_access_key(),
        };
        Self {
            id,
            secret,
            control_token,
        }
    }
}

fn config(
    data_dir: &DataDir,
    size: &SizeArguments,
    v_switches: &[VSwitchStatus],
    keys: &Keys,
) -> LocalCloudConfig {
    let credentials = Credentials::new(&keys.id, &keys.secret);
    let mut config = LocalCloudConfig::new(data_dir.cloud(), credentials);
    config.region = REGION.to_string();
    config.local_token = Some(keys.control_token.clone());
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
    config.security_groups = SECURITY_GROUPS.map(str::to_string).to_vec();
    if size.simulated {
        // Addresses only on paper too, so that thousands of groups fit.
        for v_switch in &mut config.v_switches {
            v_switch.cidr = v_switch
                .cidr
                .replace("10.4.", "10.")
                .replace(".0/24", ".0.0/16");
        }
    }
    config
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

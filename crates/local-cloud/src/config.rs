//! What a local cloud consists of, and what it takes from outside.

use cloud_api::Credentials;
use cloud_api::catalog::PriceList;
use cloud_api::client::CallLimits;
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A zone of the region.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneConfig {
    /// Such as `cn-hangzhou-h`.
    pub id: String,
    /// vCPU that can be had; without end when unset.
    pub stock_vcpu: Option<f64>,
}

/// A vSwitch: a range of addresses in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VSwitchConfig {
    /// Such as `vsw-local-h`.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Such as `10.4.1.0/24`; the first address and the last three are kept back, as in the real one.
    pub cidr: String,
}

/// A local cloud.
#[derive(Clone, Debug)]
pub struct LocalCloudConfig {
    /// The region's id.
    pub region: String,
    /// Who may call. The first one is handed out; more may exist.
    pub credentials: Vec<Credentials>,
    /// Where groups, client tokens and the ledger are kept.
    pub state_dir: PathBuf,
    /// Where the files of network file systems lie.
    pub nas_dir: PathBuf,
    /// The zones.
    pub zones: Vec<ZoneConfig>,
    /// The vSwitches, in the order in which a request that names none tries them.
    pub v_switches: Vec<VSwitchConfig>,
    /// The network that all vSwitches belong to.
    pub vpc_id: String,
    /// The security groups; the first one is the default.
    pub security_groups: Vec<String>,
    /// The range that public addresses are taken from; nothing is reachable through them.
    pub public_cidr: String,
    /// How long each stage of an image cache, a data cache, a virtual node and a commit on paper takes.
    pub stage: Duration,
    /// How long before the end a spot group is told that it is taken away.
    pub spot_notice: Duration,
    /// Whether the region has the extra sizes of large ones.
    pub large_region: bool,
    /// What things cost.
    pub prices: PriceList,
    /// The account's quota of vCPU; without end when unset.
    pub quota_vcpu: Option<f64>,
    /// How often each action may be called: none here; whoever serves people sets [`CallLimits::documented`].
    pub call_limits: CallLimits,
    /// Lets a caller read `/springtide/…` without a signature, as `Authorization: Bearer …`, and opens the control
    /// API below `/springtide/control/`; without it that stays closed.
    pub local_token: Option<String>,
    /// How long ended groups stay visible.
    pub keep_ended: Duration,
    /// The longest wait for a group's containers to stop when the request names none.
    pub default_grace: Duration,
    /// The pause before a container's second restart (the first is at once); it doubles up to five minutes.
    pub restart_backoff: Duration,
}

impl LocalCloudConfig {
    /// One region with three zones, each with a vSwitch of 252 addresses.
    pub fn new(state_dir: PathBuf, credentials: Credentials) -> Self {
        let region = "cn-hangzhou";
        let zones = ["h", "i", "j"];
        Self {
            region: region.to_owned(),
            credentials: vec![credentials],
            nas_dir: state_dir.join("nas"),
            state_dir,
            zones: zones
                .map(|zone| ZoneConfig {
                    id: format!("{region}-{zone}"),
                    stock_vcpu: None,
                })
                .to_vec(),
            v_switches: zones
                .iter()
                .zip(1..)
                .map(|(zone, number)| VSwitchConfig {
                    id: format!("vsw-local-{zone}"),
                    zone: format!("{region}-{zone}"),
                    cidr: format!("10.4.{number}.0/24"),
                })
                .collect(),
            vpc_id: "vpc-local".to_owned(),
            security_groups: vec!["sg-local".to_owned()],
            public_cidr: "198.18.0.0/16".to_owned(),
            stage: Duration::from_secs(2),
            spot_notice: Duration::from_secs(180),
            large_region: true,
            prices: PriceList::default(),
            quota_vcpu: None,
            call_limits: CallLimits::none(),
            local_token: None,
            keep_ended: Duration::from_secs(3_600),
            default_grace: Duration::from_secs(30),
            restart_backoff: Duration::from_secs(10),
        }
    }
}

/// What a local cloud takes from outside besides the network.
#[derive(Clone)]
pub struct CloudSources {
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where ids and random choices start from.
    pub seed: u64,
}

impl CloudSources {
    /// The machine's clock, a random seed.
    pub fn system() -> Self {
        Self {
            now: Arc::new(Timestamp::now),
            seed: rand::random(),
        }
    }
}

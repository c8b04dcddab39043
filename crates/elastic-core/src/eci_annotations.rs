//! The annotations by which users shape a pod's container group: which are honoured, which are refused, and what the
//! honoured ones say.
//!
//! Reading is all or nothing: every annotation that cannot be followed is named with the reason, and the pod is refused.
//! Sizes (`eci-use-specs`, `eci-cpu`, `eci-memory`) are read in [`crate::pod_sizing`].

mod reader;
mod table;

use std::collections::BTreeMap;

pub use table::{HONOURED, REFUSED, unknown};

use crate::eci_profile::Problem;
use reader::Reader;

/// Most vSwitches of a pod.
const MAX_V_SWITCHES: usize = 10;
/// Most security groups of a pod.
const MAX_SECURITY_GROUPS: usize = 5;
/// Most tags a pod adds.
const MAX_TAGS: usize = 3;

/// In which order vSwitches are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScheduleStrategy {
    /// Where it goes fastest: the node's own zone first, vSwitches that lately had nothing last.
    #[default]
    Random,
    /// Strictly in the order of the list.
    Ordered,
}

/// A wish for a spot group.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    /// `SpotAsPriceGo` or `SpotWithPriceLimit`.
    pub strategy: String,
    /// Highest price per hour.
    pub price_limit: Option<f64>,
    /// Hours of protection.
    pub duration_hours: Option<i64>,
    /// Take a group at list price when there is no spot stock.
    pub fallback: bool,
}

/// A registry of ACR that needs no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcrInstance {
    /// Its region, when it is another one.
    pub region: Option<String>,
    /// `cri-…`.
    pub id: String,
    /// Role of the service.
    pub service_arn: Option<String>,
    /// Role of the user.
    pub user_arn: Option<String>,
}

/// A line of the hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address.
    pub ip: String,
    /// Its name.
    pub host: String,
}

/// The resolver's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, perhaps with a value.
    pub options: Vec<(String, Option<String>)>,
}

/// A public address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eip {
    /// One that exists.
    pub instance_id: Option<String>,
    /// Make one.
    pub create: bool,
    /// Mbit/s of a new one.
    pub bandwidth: Option<i64>,
    /// Line of a new one.
    pub isp: Option<String>,
    /// Shared bandwidth a new one joins.
    pub common_bandwidth_package: Option<String>,
}

/// Disks of data caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataCache {
    /// The bucket.
    pub bucket: Option<String>,
    /// Performance level.
    pub performance_level: Option<String>,
    /// Operations per second.
    pub provisioned_iops: Option<i64>,
    /// Whether it may burst.
    pub bursting: Option<bool>,
}

/// What the annotations of a pod say about its group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceOptions {
    /// Comma separated.
    pub security_groups: Option<String>,
    /// The resource group.
    pub resource_group: Option<String>,
    /// Replaces the node's list.
    pub v_switches: Vec<String>,
    /// In which order they are tried.
    pub strategy: ScheduleStrategy,
    /// `economy`, `general`, in order.
    pub compute_category: Vec<String>,
    /// Physical cores.
    pub cpu_cores: Option<i64>,
    /// Threads per core.
    pub threads_per_core: Option<i64>,
    /// Driver of GPUs.
    pub gpu_driver: Option<String>,
    /// A spot group.
    pub spot: Option<Spot>,
    /// Report the failure of a creation at once instead of trying again.
    pub fail_fast: bool,
    /// Minutes a group may take to start.
    pub max_pending_minutes: Option<i64>,
    /// Extra tags.
    pub tags: Vec<(String, String)>,
    /// Extra lines of the hosts file.
    pub hosts: Vec<Host>,
    /// Replaces the resolver's configuration.
    pub dns: Option<Dns>,
    /// Role the group assumes.
    pub ram_role: Option<String>,
    /// Look for a fitting image cache.
    pub auto_image_cache: Option<bool>,
    /// An image cache by id.
    pub image_cache: Option<String>,
    /// Registries of ACR.
    pub acr: Vec<AcrInstance>,
    /// Registries without TLS.
    pub plain_http_registry: Option<String>,
    /// Registries whose certificates are not verified.
    pub insecure_registry: Option<String>,
    /// Data caches.
    pub data_cache: DataCache,
    /// A public address.
    pub eip: Eip,
    /// An IPv6 address.
    pub ipv6: bool,
    /// Whether the IPv6 address reaches the internet.
    pub ipv6_internet: Option<bool>,
    /// Its bandwidth.
    pub ipv6_bandwidth: Option<String>,
    /// The IPv4 address to take.
    pub private_ip: Option<String>,
    /// Keep the address after the group is gone.
    pub fixed_ip: Option<bool>,
    /// For so many hours.
    pub fixed_ip_retain_hours: Option<i64>,
    /// Bits per second into the group.
    pub ingress_bandwidth: Option<i64>,
    /// Bits per second out of the group.
    pub egress_bandwidth: Option<i64>,
    /// Scratch space beyond the free 30 GiB.
    pub extra_ephemeral_gib: Option<i64>,
    /// Time servers.
    pub ntp_servers: Vec<String>,
    /// Where core dumps go.
    pub core_pattern: Option<String>,
}

impl InstanceOptions {
    /// Reads a pod's annotations.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(annotations);
        let options = Self {
            security_groups: reader.ids("eci-security-group", "sg-", MAX_SECURITY_GROUPS),
            resource_group: reader.text("eci-resource-group-id"),
            v_switches: reader.list("eci-vswitch", MAX_V_SWITCHES),
            strategy: reader.strategy(),
            compute_category: reader.categories(),
            cpu_cores: reader.number("eci-cpu-option-core", 1..=512),
            threads_per_core: reader.number("eci-cpu-option-ht", 1..=2),
            gpu_driver: reader.text("eci-gpu-driver-version"),
            spot: reader.spot(),
            fail_fast: reader.fail_fast(),
            max_pending_minutes: reader.number("eci-max-pending-minute", 10..=1440),
            tags: reader.tags(MAX_TAGS),
            hosts: reader.hosts(),
            dns: reader.dns(),
            ram_role: reader.text("eci-ram-role-name"),
            auto_image_cache: reader
                .switch("eci-auto-imc")
                .or_else(|| reader.switch("eci-image-cache")),
            image_cache: reader
                .text("eci-imc-id")
                .or_else(|| reader.text("eci-image-snapshot-id")),
            acr: reader.acr(),
            plain_http_registry: reader.text("plain-http-registry"),
            insecure_registry: reader.text("insecure-registry"),
            data_cache: DataCache {
                bucket: reader.text("eci-data-cache-bucket"),
                performance_level: reader.text("eci-data-cache-pl"),
                provisioned_iops: reader.number("eci-data-cache-provisionedIops", 0..=1_000_000),
                bursting: reader.switch("eci-data-cache-burstingEnabled"),
            },
            eip: reader.eip(),
            ipv6: reader.switch("eci-enable-ipv6") == Some(true),
            ipv6_internet: reader.switch("eci-ipv6-bandwidth-enable"),
            ipv6_bandwidth: reader.text("eci-ipv6-bandwidth"),
            private_ip: reader.address("eci-private-ip-address"),
            fixed_ip: reader.switch("eci-fixed-ip"),
            fixed_ip_retain_hours: reader.number("eci-fixed-ip-retain-hour", 1..=8_760),
            ingress_bandwidth: reader.bandwidth("kubernetes.io/ingress-bandwidth"),
            egress_bandwidth: reader.bandwidth("kubernetes.io/egress-bandwidth"),
            extra_ephemeral_gib: reader.gib("eci-extra-ephemeral-storage"),
            ntp_servers: reader.list("eci-ntp-server", 10),
            core_pattern: reader.core_pattern(),
        };
        reader.refuse_what_has_no_parameter();
        if options.spot.is_some() && !options.compute_category.is_empty() {
            reader.wrong(
                "eci-compute-category",
                "cannot be combined with eci-spot-strategy; remove one",
            );
        }
        reader.end(options)
    }
}

#[cfg(test)]
mod tests;

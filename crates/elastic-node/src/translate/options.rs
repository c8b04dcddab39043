//! What annotations and the pod's own security settings ask of the whole group.

use std::collections::BTreeMap;

use cloud_api::model::create::{
    AcrRegistry, CreateContainerGroupRequest, DnsConfigSpec, GroupSecurityContext, HostAlias,
    NameValue,
};
use elastic_core::eci_annotations::{AcrInstance, InstanceOptions};
use elastic_core::quantity;
use k8s_openapi::api::core::v1::PodSpec;

use super::TranslateError;

const GIB: i64 = 1 << 30;
/// Scratch space that every group has.
const FREE_EPHEMERAL_GIB: i64 = 30;
/// Kernel settings that belong to the group's own namespaces; all others are the instance's.
const SAFE_SYSCTLS: [&str; 2] = [
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
];

/// Puts options into a request. What the pod says by annotation beats what its spec says.
pub(super) fn apply(
    options: &InstanceOptions,
    spec: &PodSpec,
    request: &mut CreateContainerGroupRequest,
) -> Result<(), TranslateError> {
    request
        .compute_category
        .clone_from(&options.compute_category);
    request.cpu_options_core = options.cpu_cores;
    request.cpu_options_threads_per_core = options.threads_per_core;
    request.gpu_driver_version.clone_from(&options.gpu_driver);
    if let Some(spot) = &options.spot {
        request.spot_strategy = Some(spot.strategy.clone());
        request.spot_price_limit = spot.price_limit;
        request.spot_duration = spot.duration_hours;
    }
    request.max_pending_minute = options.max_pending_minutes;
    request.ram_role_name.clone_from(&options.ram_role);
    request.auto_match_image_cache = options.auto_image_cache;
    request.image_snapshot_id.clone_from(&options.image_cache);
    request.acr_registry_info = options.acr.iter().map(registry).collect();
    request
        .plain_http_registry
        .clone_from(&options.plain_http_registry);
    request
        .insecure_registry
        .clone_from(&options.insecure_registry);
    request.ntp_server.clone_from(&options.ntp_servers);
    request.core_pattern.clone_from(&options.core_pattern);
    request.ephemeral_storage = ephemeral(options, spec)?;
    network(options, request);
    data_cache(options, request);
    sysctls(spec, request);
    Ok(())
}

fn registry(instance: &AcrInstance) -> AcrRegistry {
    AcrRegistry {
        instance_id: Some(instance.id.clone()),
        region_id: instance.region.clone(),
        arn_service: instance.service_arn.clone(),
        arn_user: instance.user_arn.clone(),
        ..AcrRegistry::default()
    }
}

fn network(options: &InstanceOptions, request: &mut CreateContainerGroupRequest) {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for host in &options.hosts {
        names.entry(&host.ip).or_default().push(host.host.clone());
    }
    request
        .host_aliase
        .extend(names.into_iter().map(|(ip, hostname)| HostAlias {
            ip: ip.to_owned(),
            hostname,
        }));
    if let Some(dns) = &options.dns {
        let choice = |(name, value): &(String, Option<String>)| NameValue {
            name: name.clone(),
            value: value.clone(),
        };
        request.dns_policy = Some("None".to_owned());
        request.dns_config = Some(DnsConfigSpec {
            name_server: dns.nameservers.clone(),
            search: dns.searches.clone(),
            option: dns.options.iter().map(choice).collect(),
        });
    }
    let eip = &options.eip;
    request.auto_create_eip = eip.create.then_some(true);
    request.eip_instance_id.clone_from(&eip.instance_id);
    request.eip_bandwidth = eip.bandwidth;
    request.eip_isp.clone_from(&eip.isp);
    request
        .eip_common_bandwidth_package
        .clone_from(&eip.common_bandwidth_package);
    if options.ipv6 {
        request.ipv6_address_count = Some(1);
        request.ipv6_gateway_bandwidth_enable = options.ipv6_internet;
        request
            .ipv6_gateway_bandwidth
            .clone_from(&options.ipv6_bandwidth);
    }
    request.private_ip_address.clone_from(&options.private_ip);
    request.fixed_ip = options.fixed_ip.map(|fixed| fixed.to_string());
    request.fixed_ip_retain_hour = options.fixed_ip_retain_hours;
    request.ingress_bandwidth = options.ingress_bandwidth;
    request.egress_bandwidth = options.egress_bandwidth;
}

fn data_cache(options: &InstanceOptions, request: &mut CreateContainerGroupRequest) {
    let cache = &options.data_cache;
    request.data_cache_bucket.clone_from(&cache.bucket);
    request.data_cache_pl.clone_from(&cache.performance_level);
    request.data_cache_provisioned_iops = cache.provisioned_iops;
    request.data_cache_bursting_enabled = cache.bursting;
}

/// The larger of what the annotation adds and what containers ask for above the free space.
fn ephemeral(options: &InstanceOptions, spec: &PodSpec) -> Result<Option<i64>, TranslateError> {
    let mut asked: i64 = 0;
    for container in &spec.containers {
        let requests = container
            .resources
            .as_ref()
            .and_then(|all| all.requests.as_ref());
        let Some(amount) = requests.and_then(|all| all.get("ephemeral-storage")) else {
            continue;
        };
        let bytes = quantity::units(&amount.0).map_err(|error| TranslateError::Invalid {
            field: format!("container {}: ephemeral-storage", container.name),
            reason: error.to_string(),
        })?;
        asked = asked.saturating_add(bytes);
    }
    let above = (asked / GIB + i64::from(asked % GIB > 0) - FREE_EPHEMERAL_GIB).max(0);
    let extra = above.max(options.extra_ephemeral_gib.unwrap_or(0));
    Ok((extra > 0).then_some(extra))
}

fn sysctls(spec: &PodSpec, request: &mut CreateContainerGroupRequest) {
    let asked = spec
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten());
    let (safe, unsafe_ones): (Vec<_>, Vec<_>) = asked
        .map(|sysctl| NameValue {
            name: sysctl.name.clone(),
            value: Some(sysctl.value.clone()),
        })
        .partition(|sysctl| SAFE_SYSCTLS.contains(&sysctl.name.as_str()));
    let context =
        |sysctl: Vec<NameValue>| (!sysctl.is_empty()).then_some(GroupSecurityContext { sysctl });
    request.security_context = context(safe);
    request.host_security_context = context(unsafe_ones);
}

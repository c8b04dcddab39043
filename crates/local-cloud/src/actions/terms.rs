//! Checks of the terms a group is asked for on: spot, class, architecture, addresses, bandwidth, kernel settings.
//! What this cloud does not have is refused by name, not ignored.

use super::filter::given;
use super::market;
use super::validate::{Check, one_of};
use crate::gateway::refusal::Refusal;
use cloud_api::model::create::{CreateContainerGroupRequest, GroupSecurityContext};

/// Kernel settings that concern the group alone.
const SAFE: [&str; 9] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_syncookies",
];
/// Beginnings of kernel settings that every group has of its own, although the vendor calls them unsafe.
const UNSAFE: [&str; 5] = [
    "kernel.shm",
    "kernel.msg",
    "kernel.sem",
    "fs.mqueue.",
    "net.",
];
/// Longest protection of a spot group in hours.
const LONGEST_SPOT_HOURS: i64 = 6;

pub(super) fn check(request: &CreateContainerGroupRequest, simulated: bool) -> Check {
    spot(request)?;
    let ranged = |name: &str, value: Option<i64>, range: std::ops::RangeInclusive<i64>| {
        let rule = format!("it must be from {} to {}", range.start(), range.end());
        match value.filter(|value| !range.contains(value)) {
            Some(_) => Err(Refusal::invalid(name, rule)),
            None => Ok(()),
        }
    };
    ranged("MaxPendingMinute", request.max_pending_minute, 10..=1440)?;
    ranged("EipBandwidth", request.eip_bandwidth, 1..=1_000)?;
    ranged(
        "FixedIpRetainHour",
        request.fixed_ip_retain_hour,
        0..=24 * 365,
    )?;
    ranged("IngressBandwidth", request.ingress_bandwidth, 1..=i64::MAX)?;
    ranged("EgressBandwidth", request.egress_bandwidth, 1..=i64::MAX)?;
    one_of("EipISP", &request.eip_isp, &["BGP", "BGP_PRO"])?;
    one_of("OsType", &request.os_type, &["Linux"])
        .map_err(|_| Refusal::unsupported("OsType", "this cloud has Linux only"))?;
    one_of(
        "CpuArchitecture",
        &request.cpu_architecture,
        &["AMD64", "ARM64"],
    )?;
    if given(&request.cpu_architecture) == Some("ARM64")
        && !simulated
        && cfg!(target_arch = "x86_64")
    {
        let message = "This cloud's containers run on this machine, which is no ARM64 one.";
        return Err(Refusal::new(400, "InstanceTypeNotMatchCpuArch", message));
    }
    if request.ipv6_address_count.unwrap_or_default() > 0 {
        let message = "The vSwitches of this cloud have no IPv6 addresses.";
        return Err(Refusal::new(400, "Ipv6AddressNotSupportVsw", message));
    }
    if request.auto_create_eip == Some(true) && given(&request.eip_instance_id).is_some() {
        let rule = "a group has one public address: give either AutoCreateEip or EipInstanceId";
        return Err(Refusal::invalid("EipInstanceId", rule));
    }
    if given(&request.core_pattern).is_some_and(|pattern| pattern.starts_with('|')) {
        return Err(Refusal::invalid(
            "CorePattern",
            "it must not start a program",
        ));
    }
    sysctls("SecurityContext", &request.security_context, |name| {
        SAFE.contains(&name)
    })?;
    sysctls(
        "HostSecurityContext",
        &request.host_security_context,
        |name| UNSAFE.iter().any(|beginning| name.starts_with(beginning)),
    )
}

fn spot(request: &CreateContainerGroupRequest) -> Check {
    one_of(
        "SpotStrategy",
        &request.spot_strategy,
        &["NoSpot", "SpotWithPriceLimit", "SpotAsPriceGo"],
    )?;
    if !market::is_spot(&request.spot_strategy) {
        return Ok(());
    }
    if !request.compute_category.is_empty() {
        let message = "ComputeCategory and SpotStrategy cannot be given together.";
        return Err(Refusal::new(400, "FeatureBasedConstraintConflict", message));
    }
    if given(&request.spot_strategy) == Some("SpotWithPriceLimit") {
        match request.spot_price_limit {
            None => return Err(Refusal::missing("SpotPriceLimit")),
            Some(limit) if limit <= 0.0 => {
                return Err(Refusal::invalid(
                    "SpotPriceLimit",
                    "it must be greater than 0",
                ));
            }
            Some(_) => {}
        }
    }
    let hours = request.spot_duration.unwrap_or(1);
    if !(0..=LONGEST_SPOT_HOURS).contains(&hours) {
        let message = format!("SpotDuration must be from 0 to {LONGEST_SPOT_HOURS} hours.");
        return Err(Refusal::new(
            400,
            "InvalidInstanceTypeForEciSpotDurationBuy",
            message,
        ));
    }
    Ok(())
}

fn sysctls(
    parameter: &str,
    context: &Option<GroupSecurityContext>,
    allowed: impl Fn(&str) -> bool,
) -> Check {
    let settings = context.iter().flat_map(|context| &context.sysctl);
    for (number, setting) in settings.enumerate() {
        let plain = setting
            .name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !plain || setting.name.contains("..") || !allowed(&setting.name) {
            return Err(Refusal::invalid(
                &format!("{parameter}.Sysctl.{}.Name", number + 1),
                "this kernel setting may not be changed there",
            ));
        }
    }
    Ok(())
}

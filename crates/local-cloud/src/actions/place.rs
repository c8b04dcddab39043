//! How large a group is, and in which zone and vSwitch it lands.

use super::filter::given;
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::pools::milli;
use cloud_api::catalog::{Catalog, DEFAULT_SIZE, Size};
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use std::net::Ipv4Addr;

/// Most vSwitches or zones in one request.
const MAX_CHOICES: usize = 10;

/// Where a group lands.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) zone: String,
    pub(super) v_switch: String,
    pub(super) address: Ipv4Addr,
}

/// The size as billed: what the group asks for, else what its containers add up to, else the default.
pub(super) fn size(
    request: &CreateContainerGroupRequest,
    catalog: &Catalog,
) -> Result<Size, Refusal> {
    let sum = |member: fn(&ContainerSpec) -> Option<f64>| {
        let add = |list: &[ContainerSpec]| list.iter().filter_map(member).sum::<f64>();
        // Init containers run one at a time, and before the others.
        let most = request
            .init_container
            .iter()
            .filter_map(member)
            .fold(0.0, f64::max);
        add(&request.container).max(most)
    };
    let (cpu_sum, memory_sum) = (sum(|spec| spec.cpu), sum(|spec| spec.memory));
    for (asked, name) in [(request.cpu, "Cpu"), (request.memory, "Memory")] {
        if asked.is_some_and(|asked| !(asked.is_finite() && asked > 0.0)) {
            return Err(Refusal::invalid(name, "it must be greater than 0"));
        }
    }
    let cpu = request.cpu.unwrap_or(cpu_sum);
    let memory = request.memory.unwrap_or(memory_sum);
    if cpu <= 0.0 && memory <= 0.0 {
        return Ok(DEFAULT_SIZE);
    }
    let too_large = || {
        let message = format!(
            "There is no size for {cpu} vCPU and {memory} GiB; the largest has 64 vCPU and 512 GiB."
        );
        Refusal::new(400, "InvalidParameter.CPU.Memory", message)
    };
    // One of the two may be left open; then the smallest that goes with the other is taken.
    let wish = Size::from_decimals(cpu.max(0.001), memory.max(0.001)).ok_or_else(too_large)?;
    let size = catalog.round_up(wish).ok_or_else(too_large)?;
    if cpu_sum > size.vcpu() || memory_sum > size.memory_gib() {
        let message = format!(
            "The containers ask for {cpu_sum} vCPU and {memory_sum} GiB, the group has {size}."
        );
        return Err(Refusal::new(400, "InvalidParameter.CPU.Memory", message));
    }
    Ok(size)
}

fn choices<'a>(list: &'a Option<String>, parameter: &str) -> Result<Vec<&'a str>, Refusal> {
    let choices: Vec<&str> = given(list)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|choice| !choice.is_empty())
        .collect();
    if choices.len() > MAX_CHOICES {
        return Err(Refusal::invalid(
            parameter,
            format!("at most {MAX_CHOICES} can be given"),
        ));
    }
    Ok(choices)
}

/// The vSwitches that come into question, in order.
fn candidates(
    request: &CreateContainerGroupRequest,
    state: &mut State,
) -> Result<Vec<usize>, Refusal> {
    let zones = choices(&request.zone_id, "ZoneId")?;
    if let Some(unknown) = zones
        .iter()
        .find(|zone| !state.pools.zones.contains_key(**zone))
    {
        return Err(Refusal::new(
            404,
            "InvalidZoneId.NotFound",
            format!("The zone {unknown} does not exist."),
        ));
    }
    let v_switches = choices(&request.v_switch_id, "VSwitchId")?;
    let all = &state.pools.v_switches;
    let mut found = Vec::new();
    for id in &v_switches {
        let index = all
            .iter()
            .position(|v_switch| v_switch.config.id == *id)
            .ok_or_else(|| {
                Refusal::new(
                    404,
                    "InvalidVSwitchId.NotFound",
                    format!("The vSwitch {id} does not exist."),
                )
            })?;
        found.push(index);
    }
    if v_switches.is_empty() {
        found.extend(0..all.len());
    }
    if !zones.is_empty() {
        found.retain(|index| zones.contains(&all[*index].config.zone.as_str()));
        if v_switches.is_empty() {
            // Then the order of the zones is the caller's preference.
            found.sort_by_key(|index| {
                zones
                    .iter()
                    .position(|zone| *zone == all[*index].config.zone)
            });
        }
        if found.is_empty() {
            let message = "None of the vSwitches lies in one of the zones.";
            return Err(Refusal::new(
                403,
                "OperationDenied.VswZoneMisMatch",
                message,
            ));
        }
    }
    if request.schedule_strategy.as_deref() == Some("VSwitchRandom") {
        state.shuffle(&mut found);
    }
    Ok(found)
}

/// Takes stock and an address in the first place that has both.
pub(super) fn take(
    request: &CreateContainerGroupRequest,
    size: Size,
    quota_vcpu: Option<f64>,
    state: &mut State,
) -> Result<Place, Refusal> {
    let vcpu = u64::from(size.vcpu_milli);
    if quota_vcpu.is_some_and(|quota| state.pools.used() + vcpu > milli(quota)) {
        let message = format!("The account's quota of vCPU does not allow {size} more.");
        return Err(Refusal::new(403, "QuotaExceeded", message));
    }
    let candidates = candidates(request, state)?;
    let (mut sold_out, mut full) = (Vec::new(), Vec::new());
    for index in candidates {
        let pools = &mut state.pools;
        let v_switch = &mut pools.v_switches[index];
        let (id, zone_id) = (v_switch.config.id.clone(), v_switch.config.zone.clone());
        let Some(zone) = pools.zones.get_mut(&zone_id) else {
            continue;
        };
        if !zone.has(vcpu) {
            sold_out.push(zone_id);
            continue;
        }
        let Some(address) = address(request, &mut v_switch.addresses)? else {
            full.push(id);
            continue;
        };
        zone.used += vcpu;
        return Ok(Place {
            zone: zone_id,
            v_switch: id,
            address,
        });
    }
    if sold_out.is_empty() {
        let message = format!("There is no free address in {}.", full.join(", "));
        return Err(Refusal::new(403, "InvalidVSwitchId.IpNotEnough", message));
    }
    let message = format!("There is no stock of {size} in {}.", sold_out.join(", "));
    Err(Refusal::new(403, "OperationDenied.NoStock", message))
}

fn address(
    request: &CreateContainerGroupRequest,
    pool: &mut crate::state::pools::Addresses,
) -> Result<Option<Ipv4Addr>, Refusal> {
    let Some(wanted) = given(&request.private_ip_address) else {
        return Ok(pool.take());
    };
    let wanted = wanted
        .parse()
        .map_err(|_| Refusal::invalid("PrivateIpAddress", "it must be an IPv4 address"))?;
    if pool.take_exactly(wanted) {
        return Ok(Some(wanted));
    }
    let message = format!("The address {wanted} is in use or not in the vSwitch.");
    Err(Refusal::new(400, "PrivateIpAddress.Already.InUse", message))
}

//! How large a group is, and in which zone and vSwitch it lands.

use super::filter::given;
use super::market::{self, Offer};
use crate::gateway::refusal::Refusal;
use crate::shared::Shared;
use crate::state::State;
use crate::state::pools::milli;
use crate::state::record::SpotRecord;
use crate::state::resources::FixedAddress;
use cloud_api::catalog::{Catalog, Category, DEFAULT_SIZE, Size};
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use cloud_api::money::Amount;
use std::net::Ipv4Addr;

/// Most vSwitches or zones in one request.
const MAX_CHOICES: usize = 10;
const SMALLEST_SPOT_VCPU: f64 = 2.0;

/// Where a group lands.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) zone: String,
    pub(super) v_switch: String,
    pub(super) address: Ipv4Addr,
    pub(super) offer: Offer,
    pub(super) per_second: Amount,
    pub(super) spot: Option<SpotRecord>,
}

/// Why the places that were tried would not do.
#[derive(Default)]
struct Tried {
    sold_out: Vec<String>,
    full: Vec<String>,
    too_dear: Vec<String>,
}

/// vCPU and GiB that the containers ask for together; init containers run one at a time, and before the others.
pub(super) fn needed(request: &CreateContainerGroupRequest) -> (f64, f64) {
    let sum = |member: fn(&ContainerSpec) -> Option<f64>| {
        let all = request.container.iter().filter_map(member).sum::<f64>();
        let most = request
            .init_container
            .iter()
            .filter_map(member)
            .fold(0.0, f64::max);
        all.max(most)
    };
    (sum(|spec| spec.cpu), sum(|spec| spec.memory))
}

/// GPUs that the containers ask for together.
pub(super) fn needed_gpus(request: &CreateContainerGroupRequest) -> u32 {
    let of = |spec: &ContainerSpec| {
        let gpus = spec.gpu.and_then(|gpus| u32::try_from(gpus).ok());
        gpus.unwrap_or_default()
    };
    let all = request
        .container
        .iter()
        .map(of)
        .fold(0, u32::saturating_add);
    let most = request.init_container.iter().map(of).max();
    all.max(most.unwrap_or_default())
}

/// The size as billed: what the group asks for, else what its containers add up to, else the default; one for each
/// class that was asked for.
pub(super) fn sizes(
    request: &CreateContainerGroupRequest,
    catalog: &Catalog,
    is_spot: bool,
) -> Result<Vec<(Size, Option<Category>)>, Refusal> {
    let (cpu_sum, memory_sum) = needed(request);
    for (asked, name) in [(request.cpu, "Cpu"), (request.memory, "Memory")] {
        if asked.is_some_and(|asked| !(asked.is_finite() && asked > 0.0)) {
            return Err(Refusal::invalid(name, "it must be greater than 0"));
        }
    }
    let cpu = request.cpu.unwrap_or(cpu_sum);
    let memory = request.memory.unwrap_or(memory_sum);
    let too_large = || {
        let message = format!(
            "There is no size for {cpu} vCPU and {memory} GiB; the largest has 64 vCPU and 512 GiB{}.",
            classes(request)
        );
        Refusal::new(400, "InvalidParameter.CPU.Memory", message)
    };
    // One of the two may be left open; then the smallest that goes with the other is taken.
    let wish = match cpu <= 0.0 && memory <= 0.0 {
        true => DEFAULT_SIZE,
        false => Size::from_decimals(cpu.max(0.001), memory.max(0.001)).ok_or_else(too_large)?,
    };
    if is_spot && request.cpu.is_some_and(|cpu| cpu < SMALLEST_SPOT_VCPU) {
        let message = format!("Spot groups have at least {SMALLEST_SPOT_VCPU} vCPU, not {cpu}.");
        return Err(Refusal::new(400, "InvalidSpotCpuMemorySpec", message));
    }
    let sizes = market::rounded(request, catalog, wish, is_spot);
    let (size, _) = *sizes.first().ok_or_else(too_large)?;
    if cpu_sum > size.vcpu() || memory_sum > size.memory_gib() {
        let message = format!(
            "The containers ask for {cpu_sum} vCPU and {memory_sum} GiB, the group has {size}."
        );
        return Err(Refusal::new(400, "InvalidParameter.CPU.Memory", message));
    }
    Ok(sizes)
}

/// What the classes that were asked for come in.
fn classes(request: &CreateContainerGroupRequest) -> String {
    let categories = request.compute_category.iter();
    let texts = categories.filter_map(|name| {
        let vcpu = Category::parse(name)?.vcpu_milli();
        let (least, most) = (f64::from(*vcpu.start()), f64::from(*vcpu.end()));
        Some(format!(
            "; the class {name} has {} to {} vCPU",
            least / 1_000.0,
            most / 1_000.0
        ))
    });
    texts.collect()
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

/// The vSwitches that come into question, in the order in which they are tried.
fn candidates(
    request: &CreateContainerGroupRequest,
    state: &mut State,
) -> Result<Vec<usize>, Refusal> {
    let mut found = named(request, state)?;
    if request.schedule_strategy.as_deref() == Some("VSwitchRandom") {
        state.shuffle(&mut found);
    }
    Ok(found)
}

/// The vSwitches that come into question, in the caller's order.
pub(super) fn named(
    request: &CreateContainerGroupRequest,
    state: &State,
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
    Ok(found)
}

/// Takes stock and an address in the first place that has both, for the first offer that finds one.
pub(super) fn take(
    request: &CreateContainerGroupRequest,
    offers: Vec<Offer>,
    shared: &Shared,
    state: &mut State,
) -> Result<Place, Refusal> {
    let mut candidates = candidates(request, state)?;
    let kept = kept_address(request, &candidates, state);
    if let Some((index, _)) = kept {
        candidates = vec![index];
    }
    let mut tried = Tried::default();
    for offer in offers {
        let vcpu = u64::from(offer.size.vcpu_milli);
        let quota = shared.config.quota_vcpu;
        if quota.is_some_and(|quota| state.pools.used() + vcpu > milli(quota)) {
            let size = offer.size;
            let message = format!("The account's quota of vCPU does not allow {size} more.");
            return Err(Refusal::new(403, "QuotaExceeded", message));
        }
        for index in &candidates {
            let kept = kept.map(|(_, address)| address);
            if let Some(place) = try_one(request, &offer, *index, kept, shared, state, &mut tried)?
            {
                return Ok(place);
            }
        }
    }
    Err(tried.refusal())
}

fn try_one(
    request: &CreateContainerGroupRequest,
    offer: &Offer,
    index: usize,
    kept: Option<Ipv4Addr>,
    shared: &Shared,
    state: &mut State,
    tried: &mut Tried,
) -> Result<Option<Place>, Refusal> {
    let now = shared.now();
    let vcpu = u64::from(offer.size.vcpu_milli);
    let v_switch = &state.pools.v_switches[index].config;
    let (id, zone_id) = (v_switch.id.clone(), v_switch.zone.clone());
    let has_stock = |state: &State| {
        let zone = state.pools.zones.get(&zone_id);
        zone.is_some_and(|zone| zone.has(vcpu))
    };
    if !has_stock(state) || state.is_sold_out(&zone_id, &offer.names(), now) {
        tried.sold_out.push(format!("{} in {zone_id}", offer.size));
        return Ok(None);
    }
    let Some((per_second, spot)) = market::terms(request, offer, &zone_id, now) else {
        tried.too_dear.push(zone_id);
        return Ok(None);
    };
    let address = match kept {
        Some(kept) => Some(kept),
        None if state.is_used_up(&zone_id, &id, now) => None,
        None => address(request, &mut state.pools.v_switches[index].addresses)?,
    };
    let Some(address) = address else {
        tried.full.push(id);
        return Ok(None);
    };
    if let Some(zone) = state.pools.zones.get_mut(&zone_id) {
        zone.used += vcpu;
    }
    if kept.is_some() {
        state.take_row::<FixedAddress>(&request.container_group_name);
    }
    Ok(Some(Place {
        zone: zone_id,
        v_switch: id,
        address,
        offer: offer.clone(),
        per_second,
        spot,
    }))
}

/// The address that was kept for this name, and the place of its vSwitch.
fn kept_address(
    request: &CreateContainerGroupRequest,
    candidates: &[usize],
    state: &State,
) -> Option<(usize, Ipv4Addr)> {
    let wanted = given(&request.fixed_ip)?.eq_ignore_ascii_case("true");
    let fixed = state
        .resources
        .fixed_addresses
        .get(&request.container_group_name)
        .filter(|_| wanted)?;
    let own = |index: &&usize| state.pools.v_switches[**index].config.id == fixed.v_switch;
    Some((*candidates.iter().find(own)?, fixed.address))
}

impl Tried {
    fn refusal(mut self) -> Refusal {
        for list in [&mut self.sold_out, &mut self.full, &mut self.too_dear] {
            list.dedup();
        }
        if !self.sold_out.is_empty() {
            let message = format!("There is no stock of {}.", self.sold_out.join(", "));
            return Refusal::new(403, "OperationDenied.NoStock", message);
        }
        if !self.too_dear.is_empty() {
            let message = format!(
                "The spot price is above SpotPriceLimit in {}.",
                self.too_dear.join(", ")
            );
            return Refusal::new(403, "Spot.NotMatched", message);
        }
        let message = format!("There is no free address in {}.", self.full.join(", "));
        Refusal::new(403, "InvalidVSwitchId.IpNotEnough", message)
    }
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

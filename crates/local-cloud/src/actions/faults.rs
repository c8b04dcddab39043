//! Orders for faults: checked, kept, and carried out at once where they concern groups that exist.

use super::market;
use crate::config::LocalCloudConfig;
use crate::state::State;
use crate::state::faults::{Fault, FaultOrder, FaultRecord, LONGEST_DELAY_MS, MAX_FAULTS};
use jiff::Timestamp;

/// Why a fault was not taken on; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FaultRefused {
    /// What is wrong, and what would be right.
    pub reason: String,
}

fn refused(reason: impl Into<String>) -> FaultRefused {
    FaultRefused {
        reason: reason.into(),
    }
}

/// Takes an order on; answers with its id.
pub(crate) fn order(
    state: &mut State,
    config: &LocalCloudConfig,
    order: FaultOrder,
    now: Timestamp,
) -> Result<String, FaultRefused> {
    check(state, config, &order)?;
    let id = state.random_id("flt-");
    let mut record = FaultRecord::new(order.clone(), now);
    match &order.fault {
        Fault::InstanceFailure {
            group: Some(group), ..
        } => {
            doom(state, group, now);
            record.hits = 1;
            record.left = Some(0);
        }
        Fault::SpotReclaim { group, zone } => {
            record.hits = reclaim(state, config, (group, zone), order.times, now);
            record.left = Some(0);
        }
        _ => {}
    }
    state.put(&id, record);
    Ok(id)
}

fn check(state: &State, config: &LocalCloudConfig, order: &FaultOrder) -> Result<(), FaultRefused> {
    if state.resources.faults.len() >= MAX_FAULTS {
        return Err(refused(format!(
            "there are {MAX_FAULTS} faults already; clear some first"
        )));
    }
    let zone = match &order.fault {
        Fault::NoStock { zone, .. }
        | Fault::NoAddresses { zone, .. }
        | Fault::InstanceFailure { zone, .. }
        | Fault::SpotReclaim { zone, .. } => zone.as_ref(),
        _ => None,
    };
    if let Some(zone) = zone.filter(|zone| !state.pools.zones.contains_key(*zone)) {
        let known: Vec<&str> = state.pools.zones.keys().map(String::as_str).collect();
        return Err(refused(format!(
            "there is no zone {zone}; there are {}",
            known.join(", ")
        )));
    }
    match &order.fault {
        Fault::InstanceFailure {
            group: Some(group), ..
        }
        | Fault::SpotReclaim {
            group: Some(group), ..
        } => {
            let Some(known) = state.groups.get(group) else {
                return Err(refused(format!("there is no container group {group}")));
            };
            let is_spot = known.spot.is_some();
            if matches!(order.fault, Fault::SpotReclaim { .. }) && !is_spot {
                return Err(refused(format!("container group {group} is no spot group")));
            }
            Ok(())
        }
        Fault::Latency { delay_ms } if !(1..=LONGEST_DELAY_MS).contains(delay_ms) => Err(refused(
            format!("delayMs must be from 1 to {LONGEST_DELAY_MS}"),
        )),
        Fault::Refuse { code, http_status }
            if code.is_empty() || !(400..600).contains(http_status) =>
        {
            Err(refused(
                "a refusal needs a code and an httpStatus from 400 to 599",
            ))
        }
        Fault::SecurityGroup { id: Some(id) } if !config.security_groups.contains(id) => {
            Err(refused(format!("there is no security group {id}")))
        }
        _ if order.times == Some(0) || order.seconds == Some(0) => {
            Err(refused("times and seconds must be at least 1"))
        }
        _ => Ok(()),
    }
}

fn doom(state: &mut State, group: &str, now: Timestamp) {
    state.change(group, now, |group| {
        if !group.status.is_final() {
            group.doomed = true;
        }
    });
    state.prod(group);
}

/// Takes spot groups away; says how many.
fn reclaim(
    state: &mut State,
    config: &LocalCloudConfig,
    (group, zone): (&Option<String>, &Option<String>),
    most: Option<u64>,
    now: Timestamp,
) -> u64 {
    let fits = |wanted: &Option<String>, value: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == value)
    };
    let meant: Vec<String> = state
        .groups
        .values()
        .filter(|known| known.spot.is_some() && fits(group, &known.id) && fits(zone, &known.zone))
        .map(|known| known.id.clone())
        .collect();
    let mut count = 0;
    for id in meant {
        if most.is_none_or(|most| count < most) && market::take_back(state, &id, config, now) {
            count += 1;
        }
    }
    count
}

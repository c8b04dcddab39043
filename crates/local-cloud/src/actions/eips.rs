//! Public addresses of groups: one that is made with the group and goes with it, or one that exists.

use super::filter::given;
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::EipRecord;
use cloud_api::model::create::CreateContainerGroupRequest;
use jiff::Timestamp;
use std::net::Ipv4Addr;

/// Mbit/s when nothing is said.
const DEFAULT_BANDWIDTH: i64 = 5;

/// What a request wants, found possible.
pub(super) enum Wanted {
    Nothing,
    New { bandwidth: i64 },
    Known { id: String },
}

/// What a request wants; refuses what is not to be had.
pub(super) fn wanted(
    request: &CreateContainerGroupRequest,
    state: &State,
) -> Result<Wanted, Refusal> {
    let bandwidth = request.eip_bandwidth.unwrap_or(DEFAULT_BANDWIDTH);
    if request.auto_create_eip == Some(true) {
        return new(bandwidth, state);
    }
    given(&request.eip_instance_id).map_or(Ok(Wanted::Nothing), |id| known(id, state))
}

/// A new address, if there is one left.
pub(super) fn new(bandwidth: i64, state: &State) -> Result<Wanted, Refusal> {
    if state.pools.eips.available() == 0 {
        let message = "There is no free public address.";
        return Err(Refusal::new(400, "EipPurchaseFlowControl", message));
    }
    Ok(Wanted::New { bandwidth })
}

/// An address that exists, if nobody has it.
pub(super) fn known(id: &str, state: &State) -> Result<Wanted, Refusal> {
    match state.resources.eips.get(id) {
        None => Err(Refusal::invalid(
            "EipInstanceId",
            "there is no such public address",
        )),
        Some(EipRecord {
            user: Some(user), ..
        }) => {
            let message = format!("The public address {id} belongs to {user}.");
            Err(Refusal::new(400, "IncorrectStatus", message))
        }
        Some(_) => Ok(Wanted::Known { id: id.to_owned() }),
    }
}

/// Gives a user its address.
pub(super) fn bind(
    wanted: Wanted,
    user: &str,
    state: &mut State,
    now: Timestamp,
) -> Option<(String, Ipv4Addr)> {
    match wanted {
        Wanted::Nothing => None,
        Wanted::New { bandwidth } => make(bandwidth, Some(user), state, now),
        Wanted::Known { id } => {
            let address = state.change_row(&id, |eip: &mut EipRecord| {
                eip.user = Some(user.to_owned());
                eip.address
            })?;
            Some((id, address))
        }
    }
}

/// Makes an address, for a user or for later; `None` when there is none left.
pub(crate) fn make(
    bandwidth: i64,
    user: Option<&str>,
    state: &mut State,
    now: Timestamp,
) -> Option<(String, Ipv4Addr)> {
    let address = state.pools.eips.take()?;
    let id = state.random_id("eip-");
    let eip = EipRecord {
        address,
        bandwidth,
        automatic: user.is_some(),
        user: user.map(str::to_owned),
        created_at: now,
    };
    state.put(&id, eip);
    Some((id, address))
}

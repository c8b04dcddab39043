//! DescribeVSwitches, the one action of the network service: which zone a vSwitch lies in.

use super::Call;
use super::filter::given;
use cloud_api::model::vpc::*;

pub(crate) fn v_switches(
    call: &Call<'_>,
    request: &DescribeVSwitchesRequest,
) -> DescribeVSwitchesResponse {
    let config = &call.shared.config;
    let wanted = config
        .v_switches
        .iter()
        .filter(|one| given(&request.v_switch_id).is_none_or(|id| id == one.id));
    let v_switch: Vec<VSwitch> = wanted
        .map(|one| VSwitch {
            v_switch_id: one.id.clone(),
            zone_id: one.zone.clone(),
            vpc_id: config.vpc_id.clone(),
            cidr_block: one.cidr.clone(),
        })
        .collect();
    DescribeVSwitchesResponse {
        total_count: u32::try_from(v_switch.len()).unwrap_or(u32::MAX),
        v_switches: VSwitches { v_switch },
        ..Default::default()
    }
}

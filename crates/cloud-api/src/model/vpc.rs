//! The one action of the network service (product `Vpc`) that is needed: which zone a vSwitch lies in.

use super::{Action, wire};

/// The version of the network service's interface.
pub const VERSION: &str = "2016-04-28";

wire! {
    /// Asks for vSwitches.
    pub struct DescribeVSwitchesRequest {
        /// The region.
        pub region_id: String,
        /// Only this one.
        pub v_switch_id: Option<String>,
    }

    /// One page of vSwitches.
    pub struct DescribeVSwitchesResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The vSwitches.
        pub v_switches: VSwitches,
        /// Matching vSwitches over all pages.
        pub total_count: u32,
    }

    /// The list, one level down as the service has it.
    pub struct VSwitches {
        /// One entry per vSwitch.
        pub v_switch: Vec<VSwitch>,
    }

    /// A vSwitch.
    pub struct VSwitch {
        /// `vsw-…`.
        pub v_switch_id: String,
        /// The zone it lies in.
        pub zone_id: String,
        /// The network it belongs to.
        pub vpc_id: String,
        /// Its range of addresses.
        pub cidr_block: String,
    }
}

impl Action for DescribeVSwitchesRequest {
    const NAME: &'static str = "DescribeVSwitches";
    const VERSION: &'static str = VERSION;
    const REPEATABLE: bool = true;
    type Response = DescribeVSwitchesResponse;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_answer_is_read_and_members_nobody_needs_are_ignored() {
        let answer = r#"{"RequestId":"R","TotalCount":1,"PageSize":10,"VSwitches":{"VSwitch":[
            {"VSwitchId":"vsw-a","ZoneId":"cn-hangzhou-h","VpcId":"vpc-a","CidrBlock":"10.0.0.0/24","Status":"Available"}]}}"#;
        let answer: DescribeVSwitchesResponse = serde_json::from_str(answer).unwrap();
        assert_eq!(answer.v_switches.v_switch[0].zone_id, "cn-hangzhou-h");
    }
}

//! Core dumps and packet captures of groups.

use super::{Action, action, wire};

wire! {
    /// Switches a core dump or a packet capture on or off.
    pub struct CreateInstanceOpsTaskRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// `coredump` or `tcpdump`.
        pub ops_type: String,
        /// `enable` or `disable`; for `tcpdump` a JSON object.
        pub ops_value: String,
    }

    /// What became of it.
    pub struct CreateInstanceOpsTaskResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// In words.
        pub result: String,
    }

    /// Asks for the tasks of a group.
    pub struct DescribeInstanceOpsRecordsRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// `coredump` or `tcpdump`.
        pub ops_type: String,
    }

    /// The tasks of a group.
    pub struct DescribeInstanceOpsRecordsResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// Newest first.
        pub records: Vec<OpsRecord>,
    }

    /// One task.
    pub struct OpsRecord {
        /// `coredump` or `tcpdump`.
        pub ops_type: String,
        /// `Ready`, `Failed`, `Expired`, `Closed`, `Success`.
        pub ops_status: String,
        /// When it was asked for.
        pub create_time: String,
        /// When it ends by itself.
        pub expire_time: String,
        /// `OSS`.
        pub result_type: String,
        /// Where the result lies.
        pub result_content: String,
    }
}

impl Action for CreateInstanceOpsTaskRequest {
    const NAME: &'static str = "CreateInstanceOpsTask";
    // Each call makes another record.
    const REPEATABLE: bool = false;
    type Response = CreateInstanceOpsTaskResponse;
}

action!(DescribeInstanceOpsRecordsRequest => DescribeInstanceOpsRecordsResponse, "DescribeInstanceOpsRecords", read);

//! The life cycle of a container group and DescribeContainerGroupStatus.

use super::describe::Tag;
use super::{action, json_list, wire};
use serde::{Deserialize, Serialize};

/// Where a container group stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum GroupStatus {
    /// Being created; costs nothing yet.
    Scheduling,
    /// Creation failed for good; costs nothing.
    ScheduleFailed,
    /// Starting: images are pulled, init containers run. Billing begins here.
    Pending,
    /// The containers run.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly and is not restarted.
    Failed,
    /// Being restarted on request.
    Restarting,
    /// Being updated on request.
    Updating,
    /// Being deleted.
    Terminating,
    /// A spot group that was reclaimed.
    Expired,
    /// A status this crate does not know.
    Other(String),
}

impl GroupStatus {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Scheduling => "Scheduling",
            Self::ScheduleFailed => "ScheduleFailed",
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Restarting => "Restarting",
            Self::Updating => "Updating",
            Self::Terminating => "Terminating",
            Self::Expired => "Expired",
            Self::Other(text) => text,
        }
    }

    /// Whether seconds in this status cost money.
    pub fn is_billed(&self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Running | Self::Restarting | Self::Updating | Self::Terminating
        )
    }

    /// Whether the group has ended and only its record is left.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Expired | Self::ScheduleFailed
        )
    }
}

impl Default for GroupStatus {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<String> for GroupStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "Scheduling" => Self::Scheduling,
            "ScheduleFailed" => Self::ScheduleFailed,
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            "Restarting" => Self::Restarting,
            "Updating" => Self::Updating,
            "Terminating" => Self::Terminating,
            "Expired" => Self::Expired,
            _ => Self::Other(text),
        }
    }
}

impl From<GroupStatus> for String {
    fn from(status: GroupStatus) -> Self {
        match status {
            GroupStatus::Other(text) => text,
            known => known.as_str().to_owned(),
        }
    }
}

wire! {
    /// Status in the shape of a pod's, for many groups at once; `since_second` makes it a delta.
    pub struct DescribeContainerGroupStatusRequest {
        /// The region.
        pub region_id: String,
        /// Only these groups.
        #[serde(with = "json_list")]
        pub container_group_ids: Vec<String>,
        /// Only groups that changed within the last so many seconds.
        pub since_second: Option<u64>,
        /// Only this zone.
        pub zone_id: Option<String>,
        /// Only this vSwitch.
        pub v_switch_id: Option<String>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// Only groups that carry all of these tags.
        pub tag: Vec<Tag>,
        /// Page size, at most 200.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of [`DescribeContainerGroupStatusRequest`].
    pub struct DescribeContainerGroupStatusResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The groups.
        pub data: Vec<GroupStatusEntry>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching groups over all pages.
        pub total_count: u32,
    }

    /// One group.
    pub struct GroupStatusEntry {
        /// The group's id.
        pub container_group_id: String,
        /// The group's name.
        pub name: String,
        /// The namespace, when the group stands for a pod.
        pub namespace: String,
        /// The identity of the pod it stands for.
        #[serde(rename = "uuid")]
        pub uuid: String,
        /// Annotations as a JSON text.
        pub annotations: String,
        /// The group's status.
        pub status: GroupStatus,
        /// The status as a pod would have it.
        pub pod_status: PodStatus,
    }

    /// The status of a pod.
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed`.
        pub phase: String,
        /// The host's address.
        pub host_ip: String,
        /// The group's address.
        pub pod_ip: String,
        /// All addresses.
        pub pod_ips: Vec<PodIp>,
        /// The quality-of-service class.
        pub qos_class: String,
        /// When the group was taken on.
        pub start_time: String,
        /// The conditions.
        pub conditions: Vec<PodCondition>,
        /// The containers.
        pub container_statuses: Vec<ContainerStatus>,
    }

    /// One address.
    pub struct PodIp {
        /// The address.
        pub ip: String,
    }

    /// One condition; mind the mixed letter case.
    pub struct PodCondition {
        /// The kind of condition.
        #[serde(rename = "type")]
        pub kind: String,
        /// `True`, `False`, `Unknown`.
        #[serde(rename = "status")]
        pub status: String,
        /// When it changed.
        #[serde(rename = "lastTransitionTime")]
        pub last_transition_time: String,
        /// Why, in one word.
        pub reason: String,
        /// Why, in a sentence.
        pub message: String,
    }

    /// One container.
    pub struct ContainerStatus {
        /// The container's name.
        pub name: String,
        /// The image asked for.
        pub image: String,
        /// The image that runs.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Whether it takes requests.
        pub ready: bool,
        /// Whether it has started.
        pub started: bool,
        /// Restarts so far.
        pub restart_count: u32,
        /// Now.
        pub state: State,
        /// The run before.
        pub last_state: State,
    }

    /// One of its members is set.
    pub struct State {
        /// Not running yet.
        pub waiting: Option<Waiting>,
        /// Running.
        pub running: Option<Running>,
        /// Ended.
        pub terminated: Option<Terminated>,
    }

    /// Why a container does not run yet.
    pub struct Waiting {
        /// In one word.
        pub reason: String,
        /// In a sentence.
        pub message: String,
    }

    /// Since when a container runs.
    pub struct Running {
        /// The SDK's odd name; written for its sake.
        #[serde(rename = "StartedAtstartedAt")]
        pub started_at_odd: String,
        /// The start.
        pub started_at: String,
    }

    /// How a container ended.
    pub struct Terminated {
        /// The run's id.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// The exit code.
        pub exit_code: i64,
        /// The signal that ended it.
        pub signal: i64,
        /// In one word.
        pub reason: String,
        /// In a sentence.
        pub message: String,
        /// The start.
        pub started_at: String,
        /// The end.
        pub finished_at: String,
    }
}

action!(DescribeContainerGroupStatusRequest => DescribeContainerGroupStatusResponse, "DescribeContainerGroupStatus", read);

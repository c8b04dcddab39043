//! Deleting, updating and restarting groups; their logs; commands inside them.

use super::create::{AcrRegistry, ContainerSpec, DnsConfigSpec, RegistryCredential, VolumeSpec};
use super::describe::Tag;
use super::{EmptyResponse, action, json_list, wire};

wire! {
    /// Deletes a group.
    pub struct DeleteContainerGroupRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Deletes several groups; only the old SDK has it.
    pub struct DeleteContainerGroupsRequest {
        /// The region.
        pub region_id: String,
        /// The groups, at most 20.
        #[serde(with = "json_list")]
        pub container_group_ids: Vec<String>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Makes a cloud disk of a group larger.
    pub struct ResizeContainerGroupVolumeRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// The volume.
        pub volume_name: String,
        /// GiB.
        pub new_size: Option<i64>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Makes a group's scratch space larger; only the old SDK has it.
    pub struct ResizeContainerGroupEphemeralStorageRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// GiB beyond the 30 that are free.
        pub new_size: Option<i64>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Starts a group's containers anew.
    pub struct RestartContainerGroupRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Changes a group; lists are replaced whole.
    pub struct UpdateContainerGroupRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// `RenewUpdate` (default: all that is not given is removed) or `IncrementalUpdate`.
        pub update_type: Option<String>,
        /// `Always`, `OnFailure`, `Never`.
        pub restart_policy: Option<String>,
        /// vCPU of the group.
        pub cpu: Option<f64>,
        /// GiB of the group.
        pub memory: Option<f64>,
        /// The containers.
        pub container: Vec<ContainerSpec>,
        /// The init containers.
        pub init_container: Vec<ContainerSpec>,
        /// The volumes.
        pub volume: Vec<VolumeSpec>,
        /// Logins for registries.
        pub image_registry_credential: Vec<RegistryCredential>,
        /// Registries of the vendor that need no password.
        pub acr_registry_info: Vec<AcrRegistry>,
        /// The resolver's configuration.
        pub dns_config: Option<DnsConfigSpec>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// The tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Asks for a container's log.
    pub struct DescribeContainerLogRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// The container.
        pub container_name: String,
        /// Newest lines, default 500, at most 2000.
        pub tail: Option<i64>,
        /// Lines from this time on (RFC 3339).
        pub start_time: Option<String>,
        /// Lines of the last so many seconds.
        pub since_seconds: Option<i64>,
        /// At most so many bytes, up to 1048576.
        pub limit_bytes: Option<i64>,
        /// The run before instead.
        pub last_time: Option<bool>,
        /// A time before every line.
        pub timestamps: Option<bool>,
    }

    /// A container's log.
    pub struct DescribeContainerLogResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The container.
        pub container_name: String,
        /// The lines.
        pub content: String,
    }

    /// Runs a command in a container.
    pub struct ExecContainerCommandRequest {
        /// The region.
        pub region_id: String,
        /// The group.
        pub container_group_id: String,
        /// The container.
        pub container_name: String,
        /// Program and arguments: at most 20, each at most 256 characters.
        #[serde(with = "json_list")]
        pub command: Vec<String>,
        /// Give it a terminal.
        #[serde(rename = "TTY")]
        pub tty: Option<bool>,
        /// Send standard input, default true.
        pub stdin: Option<bool>,
        /// Wait and answer with the output.
        pub sync: Option<bool>,
    }

    /// The output, or where to connect to.
    pub struct ExecContainerCommandResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The output of a synchronous command.
        pub sync_response: Option<String>,
        /// A terminal in the browser, good for 30 seconds.
        pub http_url: Option<String>,
        /// The WebSocket, good for 30 seconds; see [`crate::exec`].
        pub web_socket_uri: Option<String>,
    }
}

action!(DeleteContainerGroupRequest => EmptyResponse, "DeleteContainerGroup", write);
action!(DeleteContainerGroupsRequest => EmptyResponse, "DeleteContainerGroups", write);
action!(ResizeContainerGroupVolumeRequest => EmptyResponse, "ResizeContainerGroupVolume", write);
action!(ResizeContainerGroupEphemeralStorageRequest => EmptyResponse, "ResizeContainerGroupEphemeralStorage", write);
action!(RestartContainerGroupRequest => EmptyResponse, "RestartContainerGroup", write);
action!(UpdateContainerGroupRequest => EmptyResponse, "UpdateContainerGroup", write);
action!(DescribeContainerLogRequest => DescribeContainerLogResponse, "DescribeContainerLog", read);

impl super::Action for ExecContainerCommandRequest {
    const NAME: &'static str = "ExecContainerCommand";
    // A command may change anything, and the interface has no token for it.
    const REPEATABLE: bool = false;
    type Response = ExecContainerCommandResponse;
}

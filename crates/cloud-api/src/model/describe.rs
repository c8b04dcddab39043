//! DescribeContainerGroups: a group as it stands, with its containers, events and volumes.

use super::status::GroupStatus;
use super::{action, json_list, wire};

wire! {
    /// A tag; the same shape in requests and answers.
    pub struct Tag {
        /// 1 to 64 characters.
        pub key: String,
        /// Up to 128 characters.
        pub value: String,
    }

    /// Asks for groups; filters are joined by and.
    pub struct DescribeContainerGroupsRequest {
        /// The region.
        pub region_id: String,
        /// Only these, at most 20.
        #[serde(with = "json_list")]
        pub container_group_ids: Vec<String>,
        /// Only this name.
        pub container_group_name: Option<String>,
        /// Only this status.
        pub status: Option<String>,
        /// Only this zone.
        pub zone_id: Option<String>,
        /// Only this vSwitch.
        pub v_switch_id: Option<String>,
        /// Only this security group.
        pub security_group_id: Option<String>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// `economy` or `general`.
        pub compute_category: Option<String>,
        /// Only groups that carry all of these tags, at most 10.
        pub tag: Vec<Tag>,
        /// Answer with events.
        pub with_event: Option<bool>,
        /// Page size, at most 20.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of groups.
    pub struct DescribeContainerGroupsResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The groups.
        pub container_groups: Vec<ContainerGroup>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching groups over all pages.
        pub total_count: u32,
    }

    /// A group as it stands.
    pub struct ContainerGroup {
        /// `eci-…`.
        pub container_group_id: String,
        /// The name given.
        pub container_group_name: String,
        /// The region.
        pub region_id: String,
        /// The zone it landed in.
        pub zone_id: String,
        /// The network.
        pub vpc_id: String,
        /// The vSwitch it landed in.
        pub v_switch_id: String,
        /// The security group.
        pub security_group_id: String,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// Where it stands.
        pub status: GroupStatus,
        /// `Always`, `OnFailure`, `Never`.
        pub restart_policy: String,
        /// The instance type, when it has one.
        pub instance_type: Option<String>,
        /// `economy`, `general`.
        pub compute_category: Option<String>,
        /// `NoSpot` and others.
        pub spot_strategy: Option<String>,
        /// The highest price per hour.
        pub spot_price_limit: Option<f64>,
        /// Hundredths of the list price that are paid.
        pub discount: Option<i64>,
        /// The role whose rights the containers have.
        pub ram_role_name: Option<String>,
        /// Its address in the network.
        pub intranet_ip: Option<String>,
        /// Its public address.
        pub internet_ip: Option<String>,
        /// Its IPv6 address.
        pub ipv6_address: Option<String>,
        /// Its network interface.
        pub eni_instance_id: Option<String>,
        /// When it was asked for.
        pub creation_time: String,
        /// When it ended well.
        pub succeeded_time: Option<String>,
        /// When it ended badly.
        pub failed_time: Option<String>,
        /// When it is taken away.
        pub expired_time: Option<String>,
        /// vCPU as billed (rounded).
        pub cpu: f64,
        /// GiB as billed (rounded).
        pub memory: f64,
        /// Extra scratch space in GiB.
        pub ephemeral_storage: Option<i64>,
        /// Its tags.
        pub tags: Vec<Tag>,
        /// The newest 50 events.
        pub events: Vec<GroupEvent>,
        /// The containers.
        pub containers: Vec<ContainerInfo>,
        /// The init containers.
        pub init_containers: Vec<InitContainerInfo>,
        /// The volumes.
        pub volumes: Vec<VolumeInfo>,
        /// Extra lines of the hosts file.
        pub host_aliases: Vec<HostAliasInfo>,
        /// The resolver's configuration.
        pub dns_config: Option<DnsConfigInfo>,
        /// Kernel settings of the group.
        pub eci_security_context: Option<EciSecurityContext>,
    }

    /// Kernel settings of a group.
    pub struct EciSecurityContext {
        /// The settings.
        pub sysctls: Vec<super::create::NameValue>,
    }

    /// User, capabilities, root file system.
    pub struct SecurityContextInfo {
        /// Capabilities.
        pub capability: Option<CapabilityInfo>,
        /// The user.
        pub run_as_user: Option<i64>,
        /// No writing to the root file system.
        pub read_only_root_filesystem: Option<bool>,
    }

    /// Capabilities.
    pub struct CapabilityInfo {
        /// Those that were added.
        pub adds: Vec<String>,
    }

    /// Something that happened to a group.
    pub struct GroupEvent {
        /// `Normal` or `Warning`.
        #[serde(rename = "Type")]
        pub event_type: String,
        /// In one word.
        pub reason: String,
        /// In a sentence.
        pub message: String,
        /// The event's name.
        pub name: String,
        /// How often.
        pub count: u32,
        /// First seen.
        pub first_timestamp: String,
        /// Last seen.
        pub last_timestamp: String,
    }

    /// A container as it stands.
    pub struct ContainerInfo {
        /// Its name.
        pub name: String,
        /// Its image.
        pub image: String,
        /// `Always`, `IfNotPresent`, `Never`.
        pub image_pull_policy: Option<String>,
        /// vCPU.
        pub cpu: f64,
        /// GiB.
        pub memory: f64,
        /// GPUs.
        pub gpu: i64,
        /// The command given.
        pub commands: Vec<String>,
        /// The arguments given.
        pub args: Vec<String>,
        /// Where the command starts.
        pub working_dir: Option<String>,
        /// Ports.
        pub ports: Vec<PortInfo>,
        /// Environment variables.
        pub environment_vars: Vec<EnvironmentVarInfo>,
        /// Where volumes appear.
        pub volume_mounts: Vec<super::create::VolumeMount>,
        /// Whether it takes requests.
        pub ready: bool,
        /// Restarts so far.
        pub restart_count: u32,
        /// Standard input is open.
        pub stdin: bool,
        /// Standard input closes after the first session.
        pub stdin_once: bool,
        /// Has a terminal.
        pub tty: bool,
        /// Now.
        pub current_state: Option<ContainerState>,
        /// The run before.
        pub previous_state: Option<ContainerState>,
        /// When it fails, the container is restarted.
        pub liveness_probe: Option<ProbeInfo>,
        /// While it fails, the container is not ready.
        pub readiness_probe: Option<ProbeInfo>,
        /// User, capabilities, root file system.
        pub security_context: Option<SecurityContextInfo>,
    }

    /// An init container; its command list has another name than a container's.
    pub struct InitContainerInfo {
        /// Its name.
        pub name: String,
        /// Its image.
        pub image: String,
        /// `Always`, `IfNotPresent`, `Never`.
        pub image_pull_policy: Option<String>,
        /// vCPU.
        pub cpu: f64,
        /// GiB.
        pub memory: f64,
        /// The command given.
        pub command: Vec<String>,
        /// The arguments given.
        pub args: Vec<String>,
        /// Where the command starts.
        pub working_dir: Option<String>,
        /// Ports.
        pub ports: Vec<PortInfo>,
        /// Environment variables.
        pub environment_vars: Vec<EnvironmentVarInfo>,
        /// Where volumes appear.
        pub volume_mounts: Vec<super::create::VolumeMount>,
        /// Whether it has ended well.
        pub ready: bool,
        /// Restarts so far.
        pub restart_count: u32,
        /// Now.
        pub current_state: Option<ContainerState>,
        /// The run before.
        pub previous_state: Option<ContainerState>,
        /// User, capabilities, root file system.
        pub security_context: Option<SecurityContextInfo>,
    }

    /// A state of a container.
    pub struct ContainerState {
        /// `Waiting`, `Running`, `Terminated`.
        pub state: String,
        /// More than the state says.
        pub detail_status: Option<String>,
        /// In one word.
        pub reason: Option<String>,
        /// In a sentence.
        pub message: Option<String>,
        /// The exit code.
        pub exit_code: Option<i64>,
        /// The signal that ended it.
        pub signal: Option<i64>,
        /// The start.
        pub start_time: Option<String>,
        /// The end.
        pub finish_time: Option<String>,
    }

    /// A port.
    pub struct PortInfo {
        /// 1 to 65535.
        pub port: u16,
        /// `TCP` or `UDP`.
        pub protocol: String,
    }

    /// An environment variable.
    pub struct EnvironmentVarInfo {
        /// Its name.
        pub key: String,
        /// Its value.
        pub value: Option<String>,
        /// Where the value comes from.
        pub value_from: Option<ValueFrom>,
    }

    /// Where a value comes from.
    pub struct ValueFrom {
        /// A property of the group.
        pub field_ref: Option<super::create::FieldRef>,
    }

    /// A check of a container.
    pub struct ProbeInfo {
        /// By HTTP.
        pub http_get: Option<super::create::HttpGetAction>,
        /// By opening a connection.
        pub tcp_socket: Option<super::create::TcpSocketAction>,
        /// By a command.
        pub execs: Vec<String>,
        /// Seconds to wait after the start.
        pub initial_delay_seconds: Option<i64>,
        /// Seconds between checks.
        pub period_seconds: Option<i64>,
        /// Seconds per check.
        pub timeout_seconds: Option<i64>,
        /// Successes in a row that count.
        pub success_threshold: Option<i64>,
        /// Failures in a row that count.
        pub failure_threshold: Option<i64>,
    }

    /// A volume; flat names.
    pub struct VolumeInfo {
        /// Its name.
        pub name: String,
        /// Its type.
        #[serde(rename = "Type")]
        pub volume_type: String,
        /// The medium of an empty directory.
        pub empty_dir_volume_medium: Option<String>,
        /// The size of an empty directory.
        pub empty_dir_volume_size_limit: Option<String>,
        /// The files of a config volume.
        pub config_file_volume_config_file_to_paths: Vec<super::create::ConfigFileToPath>,
        /// The server of a share.
        #[serde(rename = "NFSVolumeServer")]
        pub nfs_volume_server: Option<String>,
        /// The path of a share.
        #[serde(rename = "NFSVolumePath")]
        pub nfs_volume_path: Option<String>,
        /// Whether a share may not be written.
        #[serde(rename = "NFSVolumeReadOnly")]
        pub nfs_volume_read_only: Option<bool>,
        /// The driver of a volume.
        pub flex_volume_driver: Option<String>,
        /// The file system of a driver's volume.
        pub flex_volume_fs_type: Option<String>,
        /// The options of a driver's volume.
        pub flex_volume_options: Option<String>,
        /// The disk.
        pub disk_volume_disk_id: Option<String>,
        /// The disk's file system.
        pub disk_volume_fs_type: Option<String>,
    }

    /// A line of the hosts file.
    pub struct HostAliasInfo {
        /// The address.
        pub ip: String,
        /// Its names.
        pub hostnames: Vec<String>,
    }

    /// The resolver's configuration.
    pub struct DnsConfigInfo {
        /// Name servers.
        pub name_servers: Vec<String>,
        /// Search domains.
        pub searches: Vec<String>,
        /// Options.
        pub options: Vec<super::create::NameValue>,
    }
}

action!(DescribeContainerGroupsRequest => DescribeContainerGroupsResponse, "DescribeContainerGroups", read);

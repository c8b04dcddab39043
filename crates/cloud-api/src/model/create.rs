//! CreateContainerGroup: what a group is made of.

use super::describe::Tag;
use super::{action, wire};

wire! {
    /// Asks for a new group.
    pub struct CreateContainerGroupRequest {
        /// The region.
        pub region_id: String,
        /// Zones in order of preference, comma separated.
        pub zone_id: Option<String>,
        /// 2 to 128 lower-case letters, digits and dashes.
        pub container_group_name: String,
        /// Up to 10 vSwitches, comma separated.
        pub v_switch_id: Option<String>,
        /// The security group.
        pub security_group_id: Option<String>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// The RAM role whose rights the group has.
        pub ram_role_name: Option<String>,
        /// `VSwitchOrdered` or `VSwitchRandom`.
        pub schedule_strategy: Option<String>,
        /// `Always` (default), `OnFailure`, `Never`.
        pub restart_policy: Option<String>,
        /// vCPU of the group.
        pub cpu: Option<f64>,
        /// GiB of the group.
        pub memory: Option<f64>,
        /// Instance types, comma separated.
        pub instance_type: Option<String>,
        /// `AMD64` (default) or `ARM64`.
        pub cpu_architecture: Option<String>,
        /// Physical cores.
        pub cpu_options_core: Option<i64>,
        /// Threads per core.
        pub cpu_options_threads_per_core: Option<i64>,
        /// Driver of the GPUs, such as `tesla=535`.
        pub gpu_driver_version: Option<String>,
        /// `economy`, `general`.
        pub compute_category: Vec<String>,
        /// `NoSpot`, `SpotWithPriceLimit`, `SpotAsPriceGo`.
        pub spot_strategy: Option<String>,
        /// The highest price per hour.
        pub spot_price_limit: Option<f64>,
        /// Hours a spot group is protected, default 1; 0 for none.
        pub spot_duration: Option<i64>,
        /// Refuse rather than give a group that is no spot group.
        pub strict_spot: Option<bool>,
        /// Seconds after which the group is stopped.
        pub active_deadline_seconds: Option<i64>,
        /// Seconds from the stop signal to the kill.
        pub termination_grace_period_seconds: Option<i64>,
        /// GiB of scratch space beyond the 30 that are free.
        pub ephemeral_storage: Option<i64>,
        /// Only check the request.
        pub dry_run: Option<bool>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
        /// Up to 20 tags.
        pub tag: Vec<Tag>,
        /// The host name.
        pub host_name: Option<String>,
        /// Extra lines of the hosts file.
        pub host_aliase: Vec<HostAlias>,
        /// `None` or `Default`.
        pub dns_policy: Option<String>,
        /// The resolver's configuration.
        pub dns_config: Option<DnsConfigSpec>,
        /// Time servers.
        pub ntp_server: Vec<String>,
        /// Where core dumps go; must not start with a pipe sign.
        pub core_pattern: Option<String>,
        /// Whether containers see each other's processes.
        pub share_process_namespace: Option<bool>,
        /// Settings for the whole group.
        pub security_context: Option<GroupSecurityContext>,
        /// Logins for registries.
        pub image_registry_credential: Vec<RegistryCredential>,
        /// Registries with self-signed certificates, comma separated.
        pub insecure_registry: Option<String>,
        /// Registries that speak plain HTTP, comma separated.
        pub plain_http_registry: Option<String>,
        /// Registries of ACR that need no password.
        pub acr_registry_info: Vec<AcrRegistry>,
        /// An image cache to start from.
        pub image_snapshot_id: Option<String>,
        /// Look for a fitting image cache.
        pub auto_match_image_cache: Option<bool>,
        /// Bucket of data caches.
        pub data_cache_bucket: Option<String>,
        /// Performance level of the disk of data caches.
        #[serde(rename = "DataCachePL")]
        pub data_cache_pl: Option<String>,
        /// Operations per second of that disk.
        pub data_cache_provisioned_iops: Option<i64>,
        /// Whether that disk may burst.
        pub data_cache_bursting_enabled: Option<bool>,
        /// The address to take.
        pub private_ip_address: Option<String>,
        /// Keep the address after the group is gone (`true`).
        pub fixed_ip: Option<String>,
        /// Hours the address is kept, default 48.
        pub fixed_ip_retain_hour: Option<i64>,
        /// Make a public address and bind it.
        pub auto_create_eip: Option<bool>,
        /// A public address that exists.
        pub eip_instance_id: Option<String>,
        /// Mbit/s of a new public address, default 5.
        pub eip_bandwidth: Option<i64>,
        /// Line of a new public address: `BGP`, `BGP_PRO`.
        #[serde(rename = "EipISP")]
        pub eip_isp: Option<String>,
        /// Shared bandwidth a new public address joins.
        pub eip_common_bandwidth_package: Option<String>,
        /// IPv6 addresses, 0 or 1.
        pub ipv6_address_count: Option<i64>,
        /// Whether the IPv6 address reaches the internet.
        pub ipv6_gateway_bandwidth_enable: Option<bool>,
        /// Its bandwidth in Mbit/s.
        pub ipv6_gateway_bandwidth: Option<String>,
        /// Bits per second into the group.
        pub ingress_bandwidth: Option<i64>,
        /// Bits per second out of the group.
        pub egress_bandwidth: Option<i64>,
        /// 1 to 20 containers.
        pub container: Vec<ContainerSpec>,
        /// Containers that run to their end, one after the other, before the others.
        pub init_container: Vec<ContainerSpec>,
        /// Up to 20 volumes.
        pub volume: Vec<VolumeSpec>,
    }

    /// The new group.
    pub struct CreateContainerGroupResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The group's id.
        pub container_group_id: String,
    }

    /// A line of the hosts file.
    pub struct HostAlias {
        /// The address.
        pub ip: String,
        /// Its names.
        pub hostname: Vec<String>,
    }

    /// The resolver's configuration.
    pub struct DnsConfigSpec {
        /// Name servers.
        pub name_server: Vec<String>,
        /// Search domains.
        pub search: Vec<String>,
        /// Options.
        pub option: Vec<NameValue>,
    }

    /// A name, perhaps with a value.
    pub struct NameValue {
        /// The name.
        pub name: String,
        /// The value.
        pub value: Option<String>,
    }

    /// Settings for the whole group.
    pub struct GroupSecurityContext {
        /// Kernel settings of the group's namespaces.
        pub sysctl: Vec<NameValue>,
    }

    /// A login for a registry.
    pub struct RegistryCredential {
        /// The registry, without scheme.
        pub server: String,
        /// The user.
        pub user_name: String,
        /// The password.
        pub password: String,
    }

    /// A registry of ACR that needs no password.
    pub struct AcrRegistry {
        /// `cri-…`.
        pub instance_id: Option<String>,
        /// Its name.
        pub instance_name: Option<String>,
        /// Its region, when it is another one.
        pub region_id: Option<String>,
        /// Its domains; all of them when none is given.
        pub domain: Vec<String>,
        /// Role of the service, for registries of other accounts.
        pub arn_service: Option<String>,
        /// Role of the user, for registries of other accounts.
        pub arn_user: Option<String>,
    }

    /// One container.
    pub struct ContainerSpec {
        /// Unique within the group.
        pub name: String,
        /// The image.
        pub image: String,
        /// `Always`, `IfNotPresent`, `Never`.
        pub image_pull_policy: Option<String>,
        /// vCPU.
        pub cpu: Option<f64>,
        /// GiB.
        pub memory: Option<f64>,
        /// GPUs.
        pub gpu: Option<i64>,
        /// Replaces the image's entry point.
        pub command: Vec<String>,
        /// Replaces the image's arguments.
        pub arg: Vec<String>,
        /// Where the command starts.
        pub working_dir: Option<String>,
        /// Environment variables.
        pub environment_var: Vec<EnvironmentVarSpec>,
        /// Keep the values out of descriptions.
        pub environment_var_hide: Option<bool>,
        /// Ports.
        pub port: Vec<ContainerPort>,
        /// Where volumes appear.
        pub volume_mount: Vec<VolumeMount>,
        /// When it fails, the container is restarted.
        pub liveness_probe: Option<ProbeSpec>,
        /// While it fails, the container is not ready.
        pub readiness_probe: Option<ProbeSpec>,
        /// User, capabilities, root file system.
        pub security_context: Option<SecurityContextSpec>,
        /// The group to run as.
        pub security_context_run_as_group: Option<i64>,
        /// Refuse to run as root.
        pub security_context_run_as_non_root: Option<bool>,
        /// Full rights over the host; the local cloud refuses it.
        pub security_context_privileged: Option<bool>,
        /// Run right after the start.
        pub lifecycle_post_start_handler_exec: Vec<String>,
        /// Host asked right after the start; the group's own address when left out.
        pub lifecycle_post_start_handler_http_get_host: Option<String>,
        /// Path asked for right after the start.
        pub lifecycle_post_start_handler_http_get_path: Option<String>,
        /// Port asked right after the start.
        pub lifecycle_post_start_handler_http_get_port: Option<u16>,
        /// `HTTP` or `HTTPS`.
        pub lifecycle_post_start_handler_http_get_scheme: Option<String>,
        /// Headers sent right after the start.
        pub lifecycle_post_start_handler_http_get_http_header: Vec<NameValue>,
        /// Host connected to right after the start.
        pub lifecycle_post_start_handler_tcp_socket_host: Option<String>,
        /// Port connected to right after the start.
        pub lifecycle_post_start_handler_tcp_socket_port: Option<u16>,
        /// Run before the stop signal.
        pub lifecycle_pre_stop_handler_exec: Vec<String>,
        /// Host asked before the stop signal; the group's own address when left out.
        pub lifecycle_pre_stop_handler_http_get_host: Option<String>,
        /// Path asked for before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_path: Option<String>,
        /// Port asked before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_port: Option<u16>,
        /// `HTTP` or `HTTPS`.
        pub lifecycle_pre_stop_handler_http_get_scheme: Option<String>,
        /// Headers sent before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_http_header: Vec<NameValue>,
        /// Host connected to before the stop signal.
        pub lifecycle_pre_stop_handler_tcp_socket_host: Option<String>,
        /// Port connected to before the stop signal.
        pub lifecycle_pre_stop_handler_tcp_socket_port: Option<u16>,
        /// Keep standard input open.
        pub stdin: Option<bool>,
        /// Close it after the first session.
        pub stdin_once: Option<bool>,
        /// Give it a terminal.
        pub tty: Option<bool>,
        /// The file whose content becomes the message of the ended container.
        pub termination_message_path: Option<String>,
        /// `File` or `FallbackToLogsOnError`.
        pub termination_message_policy: Option<String>,
    }

    /// An environment variable.
    pub struct EnvironmentVarSpec {
        /// 1 to 128 letters, digits and underscores.
        pub key: String,
        /// The value.
        pub value: Option<String>,
        /// A property of the group instead.
        pub field_ref: Option<FieldRef>,
    }

    /// A property of the group: `status.podIP` and the like.
    pub struct FieldRef {
        /// Its path.
        pub field_path: String,
    }

    /// A port.
    pub struct ContainerPort {
        /// 1 to 65535.
        pub port: u16,
        /// `TCP` or `UDP`.
        pub protocol: Option<String>,
    }

    /// Where a volume appears.
    pub struct VolumeMount {
        /// The volume.
        pub name: String,
        /// The path in the container.
        pub mount_path: String,
        /// The path in the volume.
        pub sub_path: Option<String>,
        /// No writing.
        pub read_only: Option<bool>,
        /// `None`, `HostToCotainer` (so spelt), `Bidirectional`.
        pub mount_propagation: Option<String>,
    }

    /// A check of a container; one of the three kinds is set.
    pub struct ProbeSpec {
        /// By HTTP.
        pub http_get: Option<HttpGetAction>,
        /// By opening a connection.
        pub tcp_socket: Option<TcpSocketAction>,
        /// By a command.
        pub exec: Option<ExecAction>,
        /// Seconds to wait after the start.
        pub initial_delay_seconds: Option<i64>,
        /// Seconds between checks, default 10.
        pub period_seconds: Option<i64>,
        /// Seconds per check, default 1.
        pub timeout_seconds: Option<i64>,
        /// Must be 1.
        pub success_threshold: Option<i64>,
        /// Failures in a row that count, default 3.
        pub failure_threshold: Option<i64>,
    }

    /// An HTTP request whose answer has to be 200 to 399.
    pub struct HttpGetAction {
        /// The path.
        pub path: Option<String>,
        /// The port.
        pub port: u16,
        /// `HTTP` or `HTTPS`.
        pub scheme: Option<String>,
    }

    /// A connection that has to come about.
    pub struct TcpSocketAction {
        /// The host, usually left out.
        pub host: Option<String>,
        /// The port.
        pub port: u16,
    }

    /// A command that has to end with 0.
    pub struct ExecAction {
        /// Program and arguments.
        pub command: Vec<String>,
    }

    /// User, capabilities, root file system.
    pub struct SecurityContextSpec {
        /// The user to run as.
        pub run_as_user: Option<i64>,
        /// No writing to the root file system.
        pub read_only_root_filesystem: Option<bool>,
        /// Capabilities.
        pub capability: Option<CapabilitySpec>,
    }

    /// Capabilities.
    pub struct CapabilitySpec {
        /// To add.
        pub add: Vec<String>,
    }

    /// A volume: its type and that type's members.
    pub struct VolumeSpec {
        /// Unique within the group.
        pub name: String,
        /// `EmptyDirVolume`, `ConfigFileVolume`, `NFSVolume`, `FlexVolume`, `HostPathVolume`, `DiskVolume`.
        #[serde(rename = "Type")]
        pub volume_type: String,
        /// An empty directory.
        pub empty_dir_volume: Option<EmptyDirVolumeSpec>,
        /// Files given in the request.
        pub config_file_volume: Option<ConfigFileVolumeSpec>,
        /// A network share.
        #[serde(rename = "NFSVolume")]
        pub nfs_volume: Option<NfsVolumeSpec>,
        /// A directory of the host.
        pub host_path_volume: Option<HostPathVolumeSpec>,
    }

    /// An empty directory.
    pub struct EmptyDirVolumeSpec {
        /// Empty, or `Memory`.
        pub medium: Option<String>,
        /// Such as `256Mi`.
        pub size_limit: Option<String>,
    }

    /// Files given in the request.
    pub struct ConfigFileVolumeSpec {
        /// The mode of files without their own, as a number (420 is 0644).
        pub default_mode: Option<i64>,
        /// The files.
        pub config_file_to_path: Vec<ConfigFileToPath>,
    }

    /// One file.
    pub struct ConfigFileToPath {
        /// Relative to the mount.
        pub path: String,
        /// Base64.
        pub content: String,
        /// The mode, as a number (420 is 0644).
        pub mode: Option<i64>,
    }

    /// A network share.
    pub struct NfsVolumeSpec {
        /// The server.
        pub server: String,
        /// The path on it.
        pub path: String,
        /// No writing.
        pub read_only: Option<bool>,
    }

    /// A directory of the host.
    pub struct HostPathVolumeSpec {
        /// The path.
        pub path: String,
        /// `Directory` or `File`.
        #[serde(rename = "Type")]
        pub path_type: Option<String>,
    }
}

action!(CreateContainerGroupRequest => CreateContainerGroupResponse, "CreateContainerGroup", write);

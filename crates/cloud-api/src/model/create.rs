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
        /// `economy`, `general`.
        pub compute_category: Vec<String>,
        /// `NoSpot`, `SpotWithPriceLimit`, `SpotAsPriceGo`.
        pub spot_strategy: Option<String>,
        /// The highest price per hour.
        pub spot_price_limit: Option<f64>,
        /// Hours for which a spot group is kept, default 1; 0 for none.
        pub spot_duration: Option<i64>,
        /// Refuse rather than give a group that is no spot group.
        pub strict_spot: Option<bool>,
        /// `AMD64` or `ARM64`.
        pub cpu_architecture: Option<String>,
        /// `Linux` or `Windows`.
        pub os_type: Option<String>,
        /// Physical cores.
        pub cpu_options_core: Option<i64>,
        /// Threads of each core.
        pub cpu_options_threads_per_core: Option<i64>,
        /// The driver of GPUs.
        pub gpu_driver_version: Option<String>,
        /// The role whose rights the containers have.
        pub ram_role_name: Option<String>,
        /// Minutes that the group may be `Pending`, 10 to 1440, default 240. Not in the vendor's SDKs: the
        /// service takes it from an annotation.
        pub max_pending_minute: Option<i64>,
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
        /// Whether containers see each other's processes.
        pub share_process_namespace: Option<bool>,
        /// Time servers.
        pub ntp_server: Vec<String>,
        /// Whether containers see the group's size instead of the machine's.
        pub container_resource_view: Option<bool>,
        /// Settings for the whole group that are safe for others.
        pub security_context: Option<GroupSecurityContext>,
        /// Settings for the whole group that concern its machine.
        pub host_security_context: Option<GroupSecurityContext>,
        /// Where core dumps go.
        pub core_pattern: Option<String>,
        /// Registries of the vendor that need no password.
        pub acr_registry_info: Vec<AcrRegistry>,
        /// Logins for registries.
        pub image_registry_credential: Vec<RegistryCredential>,
        /// Registries with self-signed certificates, comma separated.
        pub insecure_registry: Option<String>,
        /// Registries that speak plain HTTP, comma separated.
        pub plain_http_registry: Option<String>,
        /// An image cache to start from.
        pub image_snapshot_id: Option<String>,
        /// Look for a fitting image cache.
        pub auto_match_image_cache: Option<bool>,
        /// `nydus`, `dadi`, `p2p`, `imc`.
        pub image_accelerate_mode: Option<String>,
        /// Where data caches are looked for.
        pub data_cache_bucket: Option<String>,
        /// The performance level of the data cache's disk.
        #[serde(rename = "DataCachePL")]
        pub data_cache_pl: Option<String>,
        /// Guaranteed operations of the data cache's disk per second.
        pub data_cache_provisioned_iops: Option<i64>,
        /// Whether the data cache's disk may burst.
        pub data_cache_bursting_enabled: Option<bool>,
        /// Make a public address for the group.
        pub auto_create_eip: Option<bool>,
        /// A public address that exists.
        pub eip_instance_id: Option<String>,
        /// Mbit/s of the public address, default 5.
        pub eip_bandwidth: Option<i64>,
        /// `BGP` or `BGP_PRO`.
        #[serde(rename = "EipISP")]
        pub eip_isp: Option<String>,
        /// A bandwidth that several public addresses share.
        pub eip_common_bandwidth_package: Option<String>,
        /// IPv6 addresses: none or 1.
        pub ipv6_address_count: Option<i64>,
        /// Whether the IPv6 address is reachable from outside.
        pub ipv6_gateway_bandwidth_enable: Option<bool>,
        /// Mbit/s of the IPv6 address.
        pub ipv6_gateway_bandwidth: Option<String>,
        /// bit/s inwards.
        pub ingress_bandwidth: Option<i64>,
        /// bit/s outwards.
        pub egress_bandwidth: Option<i64>,
        /// The address to take.
        pub private_ip_address: Option<String>,
        /// `true`: a later group of this name gets the same address.
        pub fixed_ip: Option<String>,
        /// Hours for which the address is kept after the group, default 48.
        pub fixed_ip_retain_hour: Option<i64>,
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

    /// A registry of the vendor that needs no password.
    pub struct AcrRegistry {
        /// Its id.
        pub instance_id: Option<String>,
        /// Its name.
        pub instance_name: Option<String>,
        /// Its region.
        pub region_id: Option<String>,
        /// Its addresses.
        pub domain: Vec<String>,
        /// The role of the service.
        pub arn_service: Option<String>,
        /// The role of the registry's owner.
        pub arn_user: Option<String>,
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
        /// Host asked right after the start.
        pub lifecycle_post_start_handler_http_get_host: Option<String>,
        /// Path asked for right after the start.
        pub lifecycle_post_start_handler_http_get_path: Option<String>,
        /// Port asked right after the start.
        pub lifecycle_post_start_handler_http_get_port: Option<u16>,
        /// `HTTP` or `HTTPS` right after the start.
        pub lifecycle_post_start_handler_http_get_scheme: Option<String>,
        /// Headers sent right after the start. Updates spell it in the plural.
        #[serde(alias = "LifecyclePostStartHandlerHttpGetHttpHeaders")]
        pub lifecycle_post_start_handler_http_get_http_header: Vec<NameValue>,
        /// Host connected to right after the start.
        pub lifecycle_post_start_handler_tcp_socket_host: Option<String>,
        /// Port connected to right after the start.
        pub lifecycle_post_start_handler_tcp_socket_port: Option<u16>,
        /// Run before the stop signal.
        pub lifecycle_pre_stop_handler_exec: Vec<String>,
        /// Path asked for before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_path: Option<String>,
        /// Port asked before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_port: Option<u16>,
        /// Host asked before the stop signal.
        pub lifecycle_pre_stop_handler_http_get_host: Option<String>,
        /// `HTTP` or `HTTPS` before the stop signal.
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
        /// A volume of a driver.
        pub flex_volume: Option<FlexVolumeSpec>,
        /// A cloud disk.
        pub disk_volume: Option<DiskVolumeSpec>,
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
        /// The mode of files without their own, as a number (420 is 0644). The old SDK spells it otherwise.
        #[serde(alias = "DefaultModel")]
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

    /// A volume of a driver.
    pub struct FlexVolumeSpec {
        /// Such as `alicloud/disk`.
        pub driver: String,
        /// The file system.
        pub fs_type: Option<String>,
        /// The driver's options as a JSON text.
        pub options: Option<String>,
    }

    /// A cloud disk.
    pub struct DiskVolumeSpec {
        /// The disk.
        pub disk_id: Option<String>,
        /// The file system.
        pub fs_type: Option<String>,
        /// GiB of a new disk.
        pub disk_size: Option<i64>,
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

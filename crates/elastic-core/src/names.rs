//! Labels, annotations, taints and names that users already have in their manifests, in one place.
//!
//! Only names: what they mean is decided in the modules that use them.

/// API group of the elastic kinds.
pub const AUTOSCALING_GROUP: &str = "autoscaling.alibabacloud.com";
/// API group of WorkloadSpread and UnitedDeployment, which belongs to another product.
pub const KRUISE_GROUP: &str = "apps.kruise.io";
/// API group of ResourcePolicy, which belongs to another product.
pub const SCHEDULING_GROUP: &str = "scheduling.alibabacloud.com";
/// Says who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on what we make.
pub const MANAGED_BY: &str = "springtide";

/// Names the subset of a UnitedDeployment, on the child workload and its pods.
pub const SUBSET_LABEL: &str = "apps.kruise.io/subset-name";
/// On a pod: the WorkloadSpread and the subset it was given to, as JSON.
pub const MATCHED_SPREAD_ANNOTATION: &str = "apps.kruise.io/matched-workloadspread";
/// On a pod: the ResourcePolicy and the unit it was given to, as JSON.
pub const MATCHED_POLICY_ANNOTATION: &str = "scheduling.alibabacloud.com/matched-resourcepolicy";
/// Scheduling gate of a pod that no unit of its ResourcePolicy takes now.
pub const POLICY_GATE: &str = "scheduling.alibabacloud.com/resource-policy";
/// Which pod a ReplicaSet removes first; lower goes earlier.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Pod or namespace label that sends pods to the virtual node when its value is `true`.
pub const ECI_LABEL: &str = "alibabacloud.com/eci";
/// Older form of [`ECI_LABEL`] for pods.
pub const LEGACY_ECI_LABEL: &str = "eci";
/// Older namespace label, with the value [`LEGACY_NAMESPACE_VALUE`].
pub const LEGACY_NAMESPACE_LABEL: &str = "virtual-node-affinity-injection";
/// Value of [`LEGACY_NAMESPACE_LABEL`] that switches routing on.
pub const LEGACY_NAMESPACE_VALUE: &str = "enabled";
/// Value that switches the boolean labels on.
pub const TRUE: &str = "true";

/// Pod annotation that says whether a pod may overflow to the cloud.
pub const BURST_RESOURCE: &str = "alibabacloud.com/burst-resource";
/// Value of [`BURST_RESOURCE`]: own nodes first.
pub const BURST_ECI: &str = "eci";
/// Value of [`BURST_RESOURCE`]: the cloud only.
pub const BURST_ECI_ONLY: &str = "eci_only";
/// Annotation that cannot be combined with [`BURST_RESOURCE`].
pub const FLUID_SIDECAR_TARGET: &str = "alibabacloud.com/fluid-sidecar-target";

/// Node label key that tells virtual nodes from workers.
pub const NODE_TYPE_LABEL: &str = "type";
/// Value of [`NODE_TYPE_LABEL`] on virtual nodes.
pub const NODE_TYPE_VIRTUAL: &str = "virtual-kubelet";
/// Key of the taint every virtual node carries.
pub const PROVIDER_TAINT_KEY: &str = "virtual-kubelet.io/provider";
/// Value of the taint every virtual node carries.
pub const PROVIDER_TAINT_VALUE: &str = "alibabacloud";
/// Virtual nodes are named with this prefix and their zone.
pub const VIRTUAL_NODE_PREFIX: &str = "virtual-kubelet-";
/// Set on pods that are known to run on a virtual node.
pub const ON_VIRTUAL_NODE_LABEL: &str = "serverless.alibabacloud.com/virtual-node";
/// Well-known label with a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Well-known label with a node's architecture; also the key of the taint of arm64 virtual nodes.
pub const ARCHITECTURE_LABEL: &str = "kubernetes.io/arch";
/// Taint of a virtual node whose zone is no longer in the profile.
pub const DRAINING_TAINT_KEY: &str = "virtual-kubelet.io/draining";
/// Name of the admission webhook configuration, as the closed component calls it.
pub const WEBHOOK_NAME: &str = "vk-webhook";

/// Distinguishes the pods of a unit Deployment from the source's; the value is the unit's name.
pub const UNIT_LABEL: &str = "autoscaling.alibabacloud.com/elastic-unit";
/// Names the ElasticWorkload a unit Deployment belongs to.
pub const WORKLOAD_LABEL: &str = "autoscaling.alibabacloud.com/elastic-workload";
/// Fingerprint of what a unit Deployment was last derived from.
pub const DERIVED_FROM_ANNOTATION: &str = "autoscaling.alibabacloud.com/derived-from";
/// Marks a workload whose replicas an ElasticWorkload distributes.
pub const SOURCE_LABEL: &str = "autoscaling.alibabacloud.com/elastic-source";
/// On such a workload: whose it is and what it gets back, as JSON; see [`crate::elastic_workload::SourceMark`].
pub const SOURCE_ANNOTATION: &str = "autoscaling.alibabacloud.com/elastic-source-of";
/// Moments of a pod's way to the cloud, as JSON; see [`crate::timeline::PodMoments`].
pub const POD_MOMENTS_ANNOTATION: &str = "autoscaling.alibabacloud.com/moments";

/// Annotation of an autoscaler: takes the fast path, looking this often (`1s`, `250ms`).
pub const FAST_SYNC_PERIOD: &str = "autoscaling.alibabacloud.com/fast-sync-period";
/// Annotation of an autoscaler on the fast path: `up` (default) or `both`.
pub const FAST_DIRECTION: &str = "autoscaling.alibabacloud.com/fast-direction";
/// Annotation of an autoscaler on the fast path, written by it: its last scale calls.
pub const FAST_SCALINGS: &str = "autoscaling.alibabacloud.com/fast-scalings";

/// Prefix of the annotations of container instances.
pub const ECI_ANNOTATION_PREFIX: &str = "k8s.aliyun.com/";
/// Ordered list of sizes, which beats requests and limits.
pub const USE_SPECS: &str = "k8s.aliyun.com/eci-use-specs";
/// Older annotation with the vCPU of the whole pod.
pub const ECI_CPU: &str = "k8s.aliyun.com/eci-cpu";
/// Older annotation with the memory of the whole pod.
pub const ECI_MEMORY: &str = "k8s.aliyun.com/eci-memory";
/// Comma-separated vSwitches, replaces the node's list.
pub const ECI_VSWITCH: &str = "k8s.aliyun.com/eci-vswitch";
/// `VSwitchOrdered` or `VSwitchRandom`.
pub const ECI_SCHEDULE_STRATEGY: &str = "k8s.aliyun.com/eci-schedule-strategy";
/// Security group of the instance.
pub const ECI_SECURITY_GROUP: &str = "k8s.aliyun.com/eci-security-group";
/// Resource group of the instance.
pub const ECI_RESOURCE_GROUP: &str = "k8s.aliyun.com/eci-resource-group-id";
/// `SpotAsPriceGo` or `SpotWithPriceLimit`.
pub const ECI_SPOT_STRATEGY: &str = "k8s.aliyun.com/eci-spot-strategy";
/// Highest price per hour, with `SpotWithPriceLimit`.
pub const ECI_SPOT_PRICE_LIMIT: &str = "k8s.aliyun.com/eci-spot-price-limit";
/// Hours a spot instance is protected.
pub const ECI_SPOT_DURATION: &str = "k8s.aliyun.com/eci-spot-duration";
/// `fail-back` (default), `fail-over` or `fail-fast`.
pub const ECI_FAIL_STRATEGY: &str = "k8s.aliyun.com/eci-fail-strategy";
/// Up to three extra tags, `key:value,…`.
pub const ECI_CUSTOM_TAGS: &str = "k8s.aliyun.com/eci-custom-tags";
/// RAM role the instance assumes.
pub const ECI_RAM_ROLE: &str = "k8s.aliyun.com/eci-ram-role-name";
/// Ordered list of `economy` and `general`.
pub const ECI_COMPUTE_CATEGORY: &str = "k8s.aliyun.com/eci-compute-category";
/// Registries spoken to without TLS.
pub const PLAIN_HTTP_REGISTRY: &str = "k8s.aliyun.com/plain-http-registry";
/// Registries whose certificates are not verified.
pub const INSECURE_REGISTRY: &str = "k8s.aliyun.com/insecure-registry";

/// Container variable that names its part in the group.
pub const SIDECAR_VARIABLE: &str = "ECI_CONTAINER_TYPE";
/// Value of [`SIDECAR_VARIABLE`] for a container that is ended when the others have ended.
pub const SIDECAR_VALUE: &str = "sidecar";
/// Container variable that takes its exit code out of the pod's outcome.
pub const IGNORE_EXIT_CODE_VARIABLE: &str = "ECI_CONTAINER_IGNORE_EXIT_CODE";

/// Written on pods of virtual nodes: the images their group runs, to notice an update in place.
pub const APPLIED_IMAGES_ANNOTATION: &str = "autoscaling.alibabacloud.com/applied-images";
/// Written on pods of virtual nodes: `<begin>/<end>` of the life of the service account tokens in their files.
pub const TOKEN_LIFE_ANNOTATION: &str = "autoscaling.alibabacloud.com/token-life";
/// On the ConfigMap of the profile: the data that was accepted last.
pub const ACCEPTED_PROFILE_ANNOTATION: &str = "autoscaling.alibabacloud.com/accepted-profile";

/// Written back: the container group's id.
pub const INSTANCE_ID: &str = "k8s.aliyun.com/eci-instance-id";
/// Written back: the billed size, `2.0-4.0Gi`.
pub const INSTANCE_SPEC: &str = "k8s.aliyun.com/eci-instance-spec";
/// Written back: billed vCPU.
pub const INSTANCE_CPU: &str = "k8s.aliyun.com/eci-instance-cpu";
/// Written back: billed memory in GiB.
pub const INSTANCE_MEMORY: &str = "k8s.aliyun.com/eci-instance-mem";
/// Written back: the zone that took the instance.
pub const INSTANCE_ZONE: &str = "k8s.aliyun.com/eci-instance-zone";
/// Written back: the client token of the creation.
pub const CLIENT_TOKEN: &str = "k8s.aliyun.com/eci-client-token";
/// Written back: the request id of the creation.
pub const REQUEST_ID: &str = "k8s.aliyun.com/eci-request-id";

/// Written back: the network.
pub const INSTANCE_VPC: &str = "k8s.aliyun.com/eci-vpc";
/// Written back: the network interface.
pub const ENI_INSTANCE_ID: &str = "k8s.aliyun.com/eni-instance-id";
/// Written back: `economy` or `general`.
pub const INSTANCE_COMPUTE_CATEGORY: &str = "k8s.aliyun.com/eci-instance-compute-category";
/// Written back: the image cache the group was started from.
pub const MATCHED_IMAGE_CACHE: &str = "k8s.aliyun.com/eci-matched-image-cache";
/// Written back: whether Services are reached by ClusterIP.
pub const KUBE_PROXY_ENABLED: &str = "k8s.aliyun.com/eci-kube-proxy-enabled";
/// Written back: `finished` when the group has its place.
pub const SCHEDULE_RESULT: &str = "k8s.aliyun.com/eci-schedule-result";
/// Written back: the public address.
pub const ALLOCATED_EIP_ADDRESS: &str = "k8s.aliyun.com/allocated-eipAddress";
/// Written back: the IPv6 address.
pub const ALLOCATED_IPV6_ADDRESS: &str = "k8s.aliyun.com/allocated-ipv6Address";
/// Written back: the cluster's name servers.
pub const POD_CLUSTER_DNS: &str = "k8s.aliyun.com/cluster-dns";
/// Written back: the cluster's domain.
pub const POD_CLUSTER_DOMAIN: &str = "k8s.aliyun.com/cluster-domain";
/// Written back: the virtual node's version.
pub const VK_VERSION: &str = "k8s.aliyun.com/vk-version";

/// Tags that every container group carries, so that the cloud's list can be compared with the cluster's.
pub mod tags {
    /// The cluster's id.
    pub const CLUSTER: &str = "springtide/cluster";
    /// The node's name.
    pub const NODE: &str = "springtide/node";
    /// The pod's namespace.
    pub const NAMESPACE: &str = "springtide/namespace";
    /// The pod's name.
    pub const POD: &str = "springtide/pod";
    /// The pod's UID.
    pub const UID: &str = "springtide/uid";
    /// `false` on a group that is to reach no Service by its ClusterIP; a cloud that knows the tag sees to it.
    pub const SERVICE_ADDRESSES: &str = "springtide/service-addresses";
}

/// Whether `labels` holds `key` with the value `wanted`.
pub fn has_label(
    labels: Option<&std::collections::BTreeMap<String, String>>,
    key: &str,
    wanted: &str,
) -> bool {
    labels
        .and_then(|labels| labels.get(key))
        .is_some_and(|value| value == wanted)
}

//! Names of the add-on's objects, as users of the closed component know them where it has such objects.

/// The add-on.
pub const ADDON: &str = "ack-virtual-node";
/// Where all its namespaced objects live.
pub const NAMESPACE: &str = "kube-system";
/// Deployment and Lease of the controller.
pub const CONTROLLER: &str = "ack-virtual-node-controller";
/// ServiceAccount, ClusterRole and bindings.
pub const SERVICE_ACCOUNT: &str = "virtual-kubelet";
/// Service in front of the admission webhook; the configuration has the same name.
pub const WEBHOOK: &str = elastic_core::names::WEBHOOK_NAME;
/// Service in front of the metrics APIs.
pub const METRICS: &str = "elastic-metrics";
/// ConfigMap with the rules of those APIs, in its key `config.yaml`; users make it.
pub const METRICS_CONFIG: &str = "elastic-metrics";
/// The APIServices that the controller makes when those APIs are wanted.
pub const METRICS_API_SERVICES: [&str; 5] = [
    "v1.pushed.autoscaling.alibabacloud.com",
    "v1beta1.custom.metrics.k8s.io",
    "v1beta1.external.metrics.k8s.io",
    "v1beta1.metrics.k8s.io",
    "v1beta2.custom.metrics.k8s.io",
];
/// Secret with the webhook's authority and certificate.
pub const WEBHOOK_SECRET: &str = "vk-webhook-certificate";
/// ConfigMap that users edit.
pub const PROFILE: &str = "eci-profile";
/// Secret with the access key.
pub const CREDENTIALS: &str = "alibaba-addon-secret";
/// Its keys.
pub const ACCESS_KEY_ID: &str = "access-key-id";
/// Its keys.
pub const ACCESS_KEY_SECRET: &str = "access-key-secret";
/// On the Lease while the add-on is being removed: whoever leads stops, lets go and does not come back.
pub const UNINSTALLING: &str = "springtide.io/uninstalling";
/// On all objects of the add-on.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// On all objects of the add-on: the version that wrote them.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// On the ServiceAccount: `in-cluster` or `managed`.
pub const MODE_ANNOTATION: &str = "springtide.io/mode";
/// ConfigMap of a cluster whose server runs the elastic parts itself.
pub const BUILT_IN: &str = "springtide-built-in";
/// Where nodes keep their leases.
pub const NODE_LEASES: &str = "kube-node-lease";
/// Version of this program, which is the add-on's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

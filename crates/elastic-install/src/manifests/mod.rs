//! What the add-on consists of, as data: the one source of `addon install`, of the printed manifests and of the chart.

pub mod older;
mod rights;

use std::collections::BTreeMap;

use elastic_controllers::WebhookAddress;
use elastic_controllers::admission::webhook_configuration;
use elastic_core::definitions;
use elastic_core::eci_profile::EciProfile;
use serde_json::{Value, json};

use crate::names::{
    ADDON, CONTROLLER, METRICS, MODE_ANNOTATION, NAME_LABEL, NAMESPACE, PROFILE, SERVICE_ACCOUNT,
    VERSION, VERSION_LABEL, WEBHOOK,
};

/// The image that a release is published as.
pub const DEFAULT_IMAGE: &str =
    concat!("ghcr.io/springtide/springtide:", env!("CARGO_PKG_VERSION"));
/// As the image has it.
const USER: i64 = 65_532;
const WEBHOOK_PORT: u16 = 9443;
const METRICS_PORT: u16 = 4443;
const HEALTH_PORT: u16 = 8080;
const KUBELET_PORT: u16 = 10_250;
/// Longer than the leader needs to end actions under way and to let go of the Lease.
const GRACE_SECONDS: i64 = 30;

/// Where the controller runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As a Deployment.
    #[default]
    InCluster,
    /// Outside, with a kubeconfig; it registers its webhook itself.
    Managed,
}

impl Mode {
    /// As it is written down.
    pub fn name(self) -> &'static str {
        match self {
            Self::InCluster => "in-cluster",
            Self::Managed => "managed",
        }
    }
}

/// What differs from cluster to cluster. Texts, so that a chart can put its own in their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the controller runs.
    pub mode: Mode,
    /// The controller's image.
    pub image: String,
    /// How many replicas.
    pub replicas: String,
    /// Variables of the controller; empty ones are written too, because that is where people edit them.
    pub environment: BTreeMap<String, String>,
}

/// Variables that the Deployment always names.
pub const VARIABLES: [&str; 13] = [
    "ALIYUN_CLUSTERID",
    "CLUSTER_DOMAIN",
    "ECI_KUBE_PROXY",
    "ECI_REGION",
    "ECI_SECURITY_GROUP",
    "ECI_VSWITCH",
    "KUBERNETES_APISERVER_HOST",
    "KUBERNETES_APISERVER_PORT",
    "METRICS_APIS",
    "PROMETHEUS_URL",
    "SPRINGTIDE_LOG",
    "SPRINGTIDE_LOG_FORMAT",
    "TZ",
];

/// Variables that Kubernetes fills in for each pod.
pub const POD_VARIABLES: [(&str, &str); 2] =
    [("POD_NAME", "metadata.name"), ("POD_IP", "status.podIP")];

impl Default for Options {
    fn default() -> Self {
        let mut environment: BTreeMap<String, String> = VARIABLES
            .iter()
            .map(|name| ((*name).to_owned(), String::new()))
            .collect();
        for (name, value) in [
            ("ECI_KUBE_PROXY", "true"),
            ("SPRINGTIDE_LOG", "info"),
            ("SPRINGTIDE_LOG_FORMAT", "json"),
            // What CronHPA's own manifests have always set; schedules that name no zone were written for it.
            ("TZ", "Asia/Shanghai"),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
        }
        Self {
            mode: Mode::InCluster,
            image: DEFAULT_IMAGE.to_owned(),
            replicas: "2".to_owned(),
            environment,
        }
    }
}

/// All objects, in the order in which they are applied.
pub fn objects(options: &Options) -> Vec<Value> {
    let mut objects = definitions();
    objects.push(service_account(options.mode));
    objects.extend(rights::objects());
    objects.push(profile());
    if options.mode == Mode::InCluster {
        objects.push(service(WEBHOOK, "webhook", WEBHOOK_PORT));
        objects.push(service(METRICS, "metrics", METRICS_PORT));
        objects.push(webhook());
        objects.push(disruption_budget());
        objects.push(deployment(options));
    }
    for object in &mut objects {
        let labels = &mut object["metadata"]["labels"];
        labels[NAME_LABEL] = json!(ADDON);
        labels[VERSION_LABEL] = json!(VERSION);
        labels["app.kubernetes.io/managed-by"] = json!("springtide");
    }
    objects
}

/// Objects that users edit; they are made once and then left alone.
pub fn is_users(object: &Value) -> bool {
    object["kind"] == "ConfigMap" && object["metadata"]["name"] == PROFILE
}

/// All objects as one YAML stream.
pub fn yaml(objects: &[Value]) -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(object)?);
    }
    Ok(text)
}

/// What is printed for `kubectl apply`, with a comment at its head. `kubectl` would overwrite a definition that another product
/// installed, so kinds of other products' groups are left out unless they are asked for.
pub fn stream(options: &Options, with_foreign_kinds: bool) -> Result<String, serde_yaml::Error> {
    let (foreign, own): (Vec<Value>, Vec<Value>) =
        objects(options).into_iter().partition(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["kind"] == "CustomResourceDefinition" && definitions::is_foreign(name)
        });
    let names: Vec<&str> = foreign
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    let names = names.join(", ");
    if with_foreign_kinds {
        let head = format!(
            "# With {names}: do not apply this where OpenKruise or the vendor's scheduler has installed them.\n"
        );
        return Ok(head + &yaml(&objects(options))?);
    }
    let head = format!(
        "# Without {names}, which belong to other products; where none of these is installed, --with-foreign-kinds adds them.\n"
    );
    Ok(head + &yaml(&own)?)
}

fn definitions() -> Vec<Value> {
    let made = definitions::definitions().into_iter().map(|definition| {
        let mut object = json!(definition);
        if let Some(members) = object.as_object_mut() {
            members.remove("status");
        }
        typed(
            object,
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
        )
    });
    made.collect()
}

fn typed(mut object: Value, api_version: &str, kind: &str) -> Value {
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    object
}

fn service_account(mode: Mode) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "name": SERVICE_ACCOUNT, "namespace": NAMESPACE,
            "annotations": {MODE_ANNOTATION: mode.name()}
        }
    })
}

/// Empty: the environment's values hold until somebody writes others here.
fn profile() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": PROFILE, "namespace": NAMESPACE},
        "data": {
            "enableClusterIp": "",
            "enableLinuxArm64Node": "false",
            "featureGates": "WaitForFirstConsumer=false",
            "resourceGroupId": "",
            "securityGroupId": "",
            "selectors": "",
            "vSwitchIds": "",
            "vpcId": ""
        }
    })
}

fn service(name: &str, port_name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app": CONTROLLER},
            "ports": [{"name": port_name, "port": 443, "protocol": "TCP", "targetPort": port}]
        }
    })
}

/// Without the authority: the controller makes it and puts it in, with the profile's rules.
fn webhook() -> Value {
    let address = WebhookAddress::Service {
        namespace: NAMESPACE.to_owned(),
        name: WEBHOOK.to_owned(),
        port: 443,
    };
    let mut object = json!(webhook_configuration(&address, "", &EciProfile::default()));
    for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
        if let Some(config) = webhook["clientConfig"].as_object_mut() {
            config.remove("caBundle");
        }
    }
    typed(
        object,
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
    )
}

fn disruption_budget() -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": CONTROLLER, "namespace": NAMESPACE},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": CONTROLLER}}}
    })
}

fn deployment(options: &Options) -> Value {
    let replicas = match options.replicas.parse::<u32>() {
        Ok(number) => json!(number),
        Err(_) => json!(options.replicas),
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": CONTROLLER, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": CONTROLLER}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": {"app": CONTROLLER},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": HEALTH_PORT.to_string()}
                },
                "spec": pod(options)
            }
        }
    })
}

fn pod(options: &Options) -> Value {
    // A controller on one of its own nodes could never start the first of them.
    let no_virtual_node = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}
    ]}});
    let apart = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"app": CONTROLLER}}, "topologyKey": "kubernetes.io/hostname"
    }}]});
    json!({
        "serviceAccountName": SERVICE_ACCOUNT,
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "affinity": {"nodeAffinity": no_virtual_node, "podAntiAffinity": apart},
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"}
        },
        "containers": [container(options)]
    })
}

fn container(options: &Options) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment: Vec<Value> = POD_VARIABLES
        .iter()
        .map(|(name, path)| field(name, path))
        .collect();
    let given = options.environment.iter();
    // The server drops empty values, and kubectl would find a difference at every apply.
    environment.extend(given.map(|(name, value)| match value.as_str() {
        "" => json!({"name": name}),
        value => json!({"name": name, "value": value}),
    }));
    let probe = |path: &str, period: i64| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": period, "timeoutSeconds": 3});
    json!({
        "name": "controller",
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["virtual-node", "run"],
        "env": environment,
        "ports": [
            {"name": "kubelet", "containerPort": KUBELET_PORT},
            {"name": "webhook", "containerPort": WEBHOOK_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "health", "containerPort": HEALTH_PORT}
        ],
        "livenessProbe": probe("/healthz", 10),
        "readinessProbe": probe("/readyz", 5),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_confined_and_two_replicas_are_kept_apart() {
        let objects = objects(&Options::default());
        let deployment = objects.last().unwrap();
        assert_eq!(deployment["spec"]["replicas"], 2);
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["capabilities"]["drop"][0], "ALL");
    }

    #[test]
    fn a_webhook_that_is_down_blocks_nobody() {
        let objects = objects(&Options::default());
        let webhook = objects
            .iter()
            .find(|object| object["kind"] == "MutatingWebhookConfiguration")
            .unwrap();
        for webhook in webhook["webhooks"].as_array().unwrap() {
            assert_eq!(webhook["failurePolicy"], "Ignore");
            assert!((2..=5).contains(&webhook["timeoutSeconds"].as_i64().unwrap()));
            assert!(webhook["clientConfig"].get("caBundle").is_none());
        }
    }

    #[test]
    fn managed_mode_installs_no_workload() {
        let options = Options {
            mode: Mode::Managed,
            ..Options::default()
        };
        let kinds: Vec<String> = objects(&options)
            .iter()
            .map(|object| object["kind"].as_str().unwrap().to_owned())
            .collect();
        for kind in ["Deployment", "Service", "MutatingWebhookConfiguration"] {
            assert!(!kinds.contains(&kind.to_owned()), "{kinds:?}");
        }
        assert!(kinds.contains(&"CustomResourceDefinition".to_owned()));
    }
}

//! What the controller may do in the cluster, and nothing more. A test runs it with exactly these rights.

use elastic_core::definitions::definitions;
use elastic_core::names::{AUTOSCALING_GROUP, KRUISE_GROUP, SCHEDULING_GROUP};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::names::{
    CONTROLLER, METRICS_API_SERVICES, NAMESPACE, NODE_LEASES, PROFILE, SERVICE_ACCOUNT, WEBHOOK,
    WEBHOOK_SECRET,
};

const ANY: &str = "*";
const ANY_SCALE: &str = "*/scale";
const CUSTOM_METRICS: &str = "custom.metrics.k8s.io";
const EXTERNAL_METRICS: &str = "external.metrics.k8s.io";
const PUSHED_METRICS: &str = "pushed.autoscaling.alibabacloud.com";
const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn objects() -> Vec<Value> {
    vec![
        role("ClusterRole", None, cluster()),
        binding("ClusterRole", None),
        role("Role", Some(NAMESPACE), own_namespace()),
        binding("Role", Some(NAMESPACE)),
        role("Role", Some(NODE_LEASES), node_leases()),
        binding("Role", Some(NODE_LEASES)),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "resourceNames": names, "verbs": verbs})
}

fn cluster() -> Vec<Value> {
    let mut rules = pods_and_nodes();
    rules.extend(controllers());
    rules.extend(set_up());
    rules.extend(schedules());
    rules.extend(metrics());
    rules.extend(fast_path());
    rules
}

fn pods_and_nodes() -> Vec<Value> {
    vec![
        // Pods of the virtual nodes may be in any namespace, and so may what they refer to.
        rule("", &["pods"], &["get", "list", "watch", "patch", "delete"]),
        rule("", &["pods/status"], &["patch", "update"]),
        rule("", &["configmaps", "secrets", "serviceaccounts"], &["get"]),
        rule(
            "",
            &["persistentvolumeclaims", "persistentvolumes"],
            &["get"],
        ),
        rule("", &["serviceaccounts/token"], &["create"]),
        rule("", &["namespaces", "services"], &["get", "list", "watch"]),
        rule("", &["events"], &["create", "patch"]),
        rule(
            "",
            &["nodes"],
            &[
                "get", "list", "watch", "create", "patch", "update", "delete",
            ],
        ),
        rule("", &["nodes/status"], &["patch", "update"]),
    ]
}

fn controllers() -> Vec<Value> {
    vec![
        // Sources and units of ElasticWorkloads.
        rule(
            "apps",
            &["deployments", "statefulsets"],
            &[
                "get", "list", "watch", "create", "patch", "update", "delete",
            ],
        ),
        rule(
            "batch",
            &["jobs"],
            &[
                "get", "list", "watch", "create", "patch", "update", "delete",
            ],
        ),
        rule(
            AUTOSCALING_GROUP,
            &["elasticworkloads"],
            &["get", "list", "watch", "patch", "update"],
        ),
        rule(
            AUTOSCALING_GROUP,
            &["elasticforecasts"],
            &["get", "list", "watch"],
        ),
        rule(AUTOSCALING_GROUP, &["elasticforecasts/status"], &["patch"]),
        rule(
            AUTOSCALING_GROUP,
            &["elasticworkloads/status"],
            &["patch", "update"],
        ),
        rule(
            KRUISE_GROUP,
            &["uniteddeployments", "workloadspreads"],
            &["get", "list", "watch"],
        ),
        rule(
            KRUISE_GROUP,
            &["uniteddeployments/status", "workloadspreads/status"],
            &["patch", "update"],
        ),
        rule(
            SCHEDULING_GROUP,
            &["resourcepolicies"],
            &["get", "list", "watch"],
        ),
        rule(
            SCHEDULING_GROUP,
            &["resourcepolicies/status"],
            &["patch", "update"],
        ),
        // Whose pods are spread.
        rule("apps", &["replicasets"], &["get", "list"]),
    ]
}

/// What it sets up for itself: its kinds, its webhook, its nodes' certificates, and who may ask its nodes.
fn set_up() -> Vec<Value> {
    let definitions: Vec<String> = definitions().iter().map(ResourceExt::name_any).collect();
    let definitions: Vec<&str> = definitions.iter().map(String::as_str).collect();
    vec![
        named(
            "apiextensions.k8s.io",
            &["customresourcedefinitions"],
            &definitions,
            &["get", "update"],
        ),
        named(
            "admissionregistration.k8s.io",
            &["mutatingwebhookconfigurations"],
            &[WEBHOOK],
            &["get", "update"],
        ),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests"],
            &["create", "get", "delete"],
        ),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests/approval"],
            &["patch", "update"],
        ),
        named(
            "certificates.k8s.io",
            &["signers"],
            &["kubernetes.io/kubelet-serving"],
            &["approve"],
        ),
        // Who asks the kubelet API, and whether they may.
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule(
            "authorization.k8s.io",
            &["subjectaccessreviews"],
            &["create"],
        ),
    ]
}

/// CronHPA scales whatever its manifests name: as the cluster's own autoscaler, it may change every scale and nothing else.
fn schedules() -> Vec<Value> {
    vec![
        rule(
            AUTOSCALING_GROUP,
            &["cronhorizontalpodautoscalers"],
            &["get", "list", "watch"],
        ),
        rule(
            AUTOSCALING_GROUP,
            &["cronhorizontalpodautoscalers/status"],
            &["update"],
        ),
        rule(
            "autoscaling",
            &["horizontalpodautoscalers"],
            &["get", "list", "watch", "patch"],
        ),
        rule(ANY, &[ANY_SCALE], &["get", "update"]),
    ]
}

/// The metrics APIs and what they read.
fn metrics() -> Vec<Value> {
    vec![
        rule(
            AUTOSCALING_GROUP,
            &["elasticmetrics"],
            &["get", "list", "watch"],
        ),
        rule(AUTOSCALING_GROUP, &["elasticmetrics/status"], &["patch"]),
        rule("discovery.k8s.io", &["endpointslices"], &["list"]),
        named(
            "apiregistration.k8s.io",
            &["apiservices"],
            &METRICS_API_SERVICES,
            &["get", "update"],
        ),
        // A name cannot be asked for when something is made.
        rule("apiregistration.k8s.io", &["apiservices"], &["create"]),
        // What kubelets ask about whoever reads their metrics.
        rule("", &["nodes/metrics"], &["get"]),
    ]
}

/// What an autoscaler reads. Metrics are resources of their own, whose names nobody knows beforehand.
fn fast_path() -> Vec<Value> {
    vec![
        rule("metrics.k8s.io", &["pods"], &["get", "list"]),
        rule(CUSTOM_METRICS, &[ANY], &["get", "list"]),
        rule(EXTERNAL_METRICS, &[ANY], &["get", "list"]),
        // Replicas tell each other what was pushed.
        rule(PUSHED_METRICS, &["pushedmetrics"], &["create"]),
    ]
}

fn own_namespace() -> Vec<Value> {
    let leases = "coordination.k8s.io";
    vec![
        named(
            "",
            &["configmaps"],
            &[PROFILE],
            &["get", "list", "watch", "patch"],
        ),
        named("", &["secrets"], &[WEBHOOK_SECRET], &["get", "update"]),
        // A name cannot be asked for when something is made.
        rule("", &["secrets"], &["create"]),
        named(
            leases,
            &["leases"],
            &[CONTROLLER],
            &["get", "list", "watch", "update"],
        ),
        rule(leases, &["leases"], &["create"]),
    ]
}

fn node_leases() -> Vec<Value> {
    vec![rule(
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "patch", "update", "delete"],
    )]
}

fn metadata(namespace: Option<&str>) -> Value {
    match namespace {
        Some(namespace) => json!({"name": SERVICE_ACCOUNT, "namespace": namespace}),
        None => json!({"name": SERVICE_ACCOUNT}),
    }
}

fn role(kind: &str, namespace: Option<&str>, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": metadata(namespace), "rules": rules
    })
}

fn binding(role: &str, namespace: Option<&str>) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": format!("{role}Binding"), "metadata": metadata(namespace),
        "roleRef": {"apiGroup": RBAC, "kind": role, "name": SERVICE_ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_scales_and_reading_metrics_is_allowed_wholesale() {
        let scales = rule(ANY, &[ANY_SCALE], &["get", "update"]);
        let custom = rule(CUSTOM_METRICS, &[ANY], &["get", "list"]);
        let external = rule(EXTERNAL_METRICS, &[ANY], &["get", "list"]);
        for object in objects() {
            let mut text = object.to_string();
            for known in [&scales, &custom, &external] {
                text = text.replace(&known.to_string(), "");
            }
            assert!(!text.contains('*'), "{text}");
        }
    }
}

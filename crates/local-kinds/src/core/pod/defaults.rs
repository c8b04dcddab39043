//! What upstream fills into a pod spec that says nothing.

use serde_json::{Map, Value, json};

use crate::check::resources::canonicalize;
use crate::tree::{child_mut, fill, fill_zero, is_empty, list_mut, object_mut, text, truth};

/// Read permission for everybody, write for the owner.
const FILE_MODE: i64 = 0o644;
/// How long a projected token lives.
const TOKEN_SECONDS: i64 = 3600;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a pod spec, in pods and in templates.
pub fn default_spec(spec: &mut Value) {
    fill_zero(spec, "restartPolicy", "Always");
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_zero(spec, "schedulerName", "default-scheduler");
    object_mut(spec, "securityContext");
    both_service_account_names(spec);
    for key in CONTAINER_LISTS {
        for container in list_mut(spec, key) {
            default_container(container);
        }
    }
    for volume in list_mut(spec, "volumes") {
        default_volume(volume);
    }
    if truth(spec, "hostNetwork") {
        host_ports(spec);
    }
    canonicalize(spec, "overhead");
    canonical_requirements(spec);
}

/// Defaults that real pods get but templates do not.
pub fn default_pod_only(spec: &mut Value) {
    fill(spec, "enableServiceLinks", true);
    for key in ["containers", "initContainers"] {
        for container in list_mut(spec, key) {
            requests_from_limits(container);
        }
    }
}

/// `podIP` is the first of `podIPs`; the single field wins.
pub fn agree_addresses(status: &mut Value) {
    let single = text(status, "podIP").to_string();
    let first = text(&status["podIPs"][0], "ip").to_string();
    if single.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    } else if !single.is_empty() && first != single {
        status["podIPs"] = json!([{"ip": single}]);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn both_service_account_names(spec: &mut Value) {
    let name = text(spec, "serviceAccountName").to_string();
    let name = if name.is_empty() {
        text(spec, "serviceAccount").to_string()
    } else {
        name
    };
    if !name.is_empty() {
        spec["serviceAccountName"] = name.clone().into();
        spec["serviceAccount"] = name.into();
    }
}

fn default_container(container: &mut Value) {
    let policy = if tag_is_latest(text(container, "image")) {
        "Always"
    } else {
        "IfNotPresent"
    };
    fill_zero(container, "imagePullPolicy", policy);
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "ports") {
        fill_zero(port, "protocol", "TCP");
    }
    for variable in list_mut(container, "env") {
        if let Some(source) = child_mut(variable, "valueFrom") {
            default_source(source);
        }
    }
    canonical_requirements(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_mut(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = child_mut(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = child_mut(lifecycle, hook) {
                default_handler(hook);
            }
        }
    }
}

fn canonical_requirements(owner: &mut Value) {
    if let Some(resources) = child_mut(owner, "resources") {
        canonicalize(resources, "limits");
        canonicalize(resources, "requests");
    }
}

/// An image without tag and digest means the newest one.
fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn default_probe(probe: &mut Value) {
    fill_zero(probe, "timeoutSeconds", 1);
    fill_zero(probe, "periodSeconds", 10);
    fill_zero(probe, "successThreshold", 1);
    fill_zero(probe, "failureThreshold", 3);
    default_handler(probe);
}

fn default_handler(handler: &mut Value) {
    if let Some(request) = child_mut(handler, "httpGet") {
        fill_zero(request, "path", "/");
        fill_zero(request, "scheme", "HTTP");
    }
    if let Some(call) = child_mut(handler, "grpc") {
        fill(call, "service", "");
    }
}

/// References to the pod's own fields, in variables and in downward volumes.
fn default_source(source: &mut Value) {
    if let Some(reference) = child_mut(source, "fieldRef") {
        fill_zero(reference, "apiVersion", "v1");
    }
    if let Some(reference) = child_mut(source, "resourceFieldRef") {
        fill(reference, "divisor", "0");
    }
}

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| {
        fields
            .iter()
            .any(|(key, value)| key != "name" && !value.is_null())
    });
    if !has_source {
        volume["emptyDir"] = Value::Object(Map::new());
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child_mut(volume, key) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = child_mut(volume, "downwardAPI") {
        list_mut(source, "items").for_each(default_source);
    }
    if let Some(source) = child_mut(volume, "projected") {
        list_mut(source, "sources").for_each(default_projection);
    }
    if let Some(source) = child_mut(volume, "hostPath") {
        fill(source, "type", "");
    }
    if let Some(source) = child_mut(volume, "iscsi") {
        fill_zero(source, "iscsiInterface", "default");
    }
    let image = text(&volume["image"], "reference").to_string();
    if let Some(source) = child_mut(volume, "image") {
        let latest = tag_is_latest(&image);
        fill_zero(
            source,
            "pullPolicy",
            if latest { "Always" } else { "IfNotPresent" },
        );
    }
    if let Some(source) = child_mut(volume, "ephemeral")
        && let Some(template) = child_mut(source, "volumeClaimTemplate")
    {
        object_mut(template, "metadata");
        default_claim_spec(object_mut(template, "spec"));
    }
}

fn default_projection(source: &mut Value) {
    if let Some(token) = child_mut(source, "serviceAccountToken") {
        fill(token, "expirationSeconds", TOKEN_SECONDS);
    }
    if let Some(downward) = child_mut(source, "downwardAPI") {
        list_mut(downward, "items").for_each(default_source);
    }
}

/// Defaults of a volume claim's spec.
pub fn default_claim_spec(spec: &mut Value) {
    fill(spec, "volumeMode", "Filesystem");
    canonical_requirements(spec);
}

/// With the host's network a container's port is the host's port.
fn host_ports(spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        for container in list_mut(spec, key) {
            for port in list_mut(container, "ports") {
                let own = port["containerPort"].clone();
                if !own.is_null() {
                    fill_zero(port, "hostPort", own);
                }
            }
        }
    }
}

/// A limit without a request asks for as much as the limit.
fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"]["limits"].clone();
    let Some(limits) = limits.as_object().filter(|map| !map.is_empty()) else {
        return;
    };
    let resources = object_mut(container, "resources");
    if is_empty(&resources["requests"]) {
        resources["requests"] = json!({});
    }
    for (name, amount) in limits {
        fill(&mut resources["requests"], name, amount.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("host:5000/nginx", true),
            ("host:5000/nginx:2", false),
            ("nginx@sha256:00", false),
        ] {
            assert_eq!(tag_is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn requests_follow_limits_but_never_overwrite() {
        let mut container = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}});
        requests_from_limits(&mut container);
        assert_eq!(
            container["resources"]["requests"],
            json!({"cpu": "100m", "memory": "1Gi"})
        );
    }
}

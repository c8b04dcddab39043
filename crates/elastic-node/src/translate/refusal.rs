//! What a virtual node cannot run, said before anything is created or billed.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe, Volume};
use kube::ResourceExt;

use super::gpu;

/// A pod that asks for something virtual nodes do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refusal {
    /// Path in the pod.
    pub field: String,
    /// Why, and what to do instead.
    pub reason: String,
}

/// Checks everything that does not depend on other objects.
pub fn refuse(pod: &Pod) -> Result<(), Refusal> {
    let refusal = |field: String, reason: &str| {
        Err(Refusal {
            field,
            reason: reason.to_owned(),
        })
    };
    if is_daemon(pod) {
        return refusal(
            "metadata.ownerReferences".into(),
            "DaemonSet pods do not run on virtual nodes; keep them off by a required node affinity `type NotIn virtual-kubelet`",
        );
    }
    let Some(spec) = &pod.spec else { return Ok(()) };
    if let Some(field) = host_namespace(spec) {
        return refusal(
            format!("spec.{field}"),
            "virtual nodes have no host to share; run the pod on a worker",
        );
    }
    if let Some(volume) = spec.volumes.iter().flatten().find_map(unsupported_volume) {
        return Err(volume);
    }
    if spec
        .ephemeral_containers
        .as_ref()
        .is_some_and(|containers| !containers.is_empty())
    {
        return refusal(
            "spec.ephemeralContainers".into(),
            "a container group cannot get containers later; use exec",
        );
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return refusal(
            "spec.resourceClaims".into(),
            "container groups know no claims of devices; ask for GPUs by the limit nvidia.com/gpu",
        );
    }
    let groups = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    for (list, containers) in groups {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            if let Some((field, reason)) = unsupported(container) {
                return refusal(format!("spec.{list}[{index}].{field}"), reason);
            }
        }
    }
    gpu::refuse(pod, spec)
}

/// Whether a DaemonSet made the pod.
pub fn is_daemon(pod: &Pod) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true))
}

fn host_namespace(spec: &PodSpec) -> Option<&'static str> {
    [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ]
    .into_iter()
    .find_map(|(field, value)| (value == Some(true)).then_some(field))
}

fn unsupported_volume(volume: &Volume) -> Option<Refusal> {
    let supported = volume.empty_dir.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.nfs.is_some()
        || volume.flex_volume.is_some()
        || volume.persistent_volume_claim.is_some();
    let reason = if volume.host_path.is_some() {
        "hostPath needs a worker; use emptyDir, configMap, secret or nfs"
    } else if supported {
        return None;
    } else {
        "this kind of volume is not supported on virtual nodes; use emptyDir, configMap, secret, downwardAPI, projected, nfs or a claim bound to an NFS volume"
    };
    Some(Refusal {
        field: format!("spec.volumes[{}]", volume.name),
        reason: reason.to_owned(),
    })
}

fn unsupported(container: &Container) -> Option<(&'static str, &'static str)> {
    let security = container.security_context.as_ref();
    if security.is_some_and(|security| security.privileged == Some(true)) {
        return Some((
            "securityContext.privileged",
            "privileged containers need a worker; add single capabilities instead",
        ));
    }
    if container
        .ports
        .iter()
        .flatten()
        .any(|port| port.host_port.is_some_and(|port| port != 0))
    {
        return Some((
            "ports",
            "hostPort needs a worker; reach the pod by its own address or a Service",
        ));
    }
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Some((
            "volumeDevices",
            "block devices are not supported on virtual nodes",
        ));
    }
    let probes = [
        &container.liveness_probe,
        &container.readiness_probe,
        &container.startup_probe,
    ];
    if probes
        .into_iter()
        .flatten()
        .any(|probe| probe.grpc.is_some())
    {
        return Some((
            "probes",
            "gRPC probes are not supported by container groups; use httpGet, tcpSocket or exec",
        ));
    }
    let odd_http = |probe: &&Probe| {
        let http = probe.http_get.as_ref();
        http.is_some_and(|http| {
            http.host.is_some()
                || http
                    .http_headers
                    .as_ref()
                    .is_some_and(|all| !all.is_empty())
        })
    };
    if probes.into_iter().flatten().any(|probe| odd_http(&probe)) {
        return Some((
            "probes",
            "httpGet probes of container groups have neither host nor headers; leave them out or use exec",
        ));
    }
    None
}

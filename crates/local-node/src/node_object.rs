//! The Node object and its lease.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;

/// Upstream's lease clock: 40 s long, renewed every quarter of it.
const LEASE_SECONDS: i32 = 40;
const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// Full node status at least this often.
const STATUS_PERIOD_RENEWALS: u32 = 30;
const FIELD_MANAGER: &str = "springtide-worker";

/// The node as it registers itself. `boot_id` tells restarts apart.
pub(crate) fn node(config: &WorkerConfig, system: &SystemFacts) -> serde_json::Value {
    let labels = BTreeMap::from([
        ("beta.kubernetes.io/arch", system.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &system.architecture),
        ("kubernetes.io/hostname", &config.name),
        ("kubernetes.io/os", "linux"),
        ("node-role.kubernetes.io/worker", ""),
        ("topology.kubernetes.io/region", &config.region),
        ("topology.kubernetes.io/zone", &config.zone),
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.name, "labels": labels},
        "spec": {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]},
    })
}

/// The node's status; `ready_since` stays while the node does.
pub(crate) fn status(
    config: &WorkerConfig,
    system: &SystemFacts,
    ready_since: Timestamp,
    now: Timestamp,
) -> serde_json::Value {
    let resources = json!({
        "cpu": format!("{}m", config.capacity.cpu_milli),
        "memory": config.capacity.memory_bytes.to_string(),
        "pods": config.capacity.pods.to_string(),
        "ephemeral-storage": "100Gi",
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now),
            "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ready_since),
        })
    };
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": config.address.to_string()},
            {"type": "Hostname", "address": config.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": {
            "architecture": system.architecture,
            "bootID": system.boot_id,
            "containerRuntimeVersion": concat!("springtide://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": system.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": system.os_image,
            "systemUUID": "",
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
    })
}

/// The API version workers speak, as `kubectl get nodes` shows it.
const KUBELET_VERSION: &str = concat!("v1.34.0+springtide-", env!("CARGO_PKG_VERSION"));

/// Facts about this machine.
pub(crate) struct SystemFacts {
    architecture: String,
    kernel: String,
    os_image: String,
    boot_id: String,
}

impl SystemFacts {
    /// Reads them; what cannot be read stays empty.
    pub(crate) fn read() -> Self {
        let file = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_string()
        };
        let os_release = file("/etc/os-release");
        let pretty = os_release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            architecture: architecture.to_string(),
            kernel: file("/proc/sys/kernel/osrelease"),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_string(),
            boot_id: file("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// Creates or updates the Node with its status, then its lease.
pub(crate) async fn register(
    client: &Client,
    config: &WorkerConfig,
    system: &SystemFacts,
    ready_since: Timestamp,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    nodes
        .patch(
            &config.name,
            &parameters,
            &Patch::Apply(node(config, system)),
        )
        .await?;
    write_status(client, config, system, ready_since).await?;
    renew(client, config).await
}

async fn write_status(
    client: &Client,
    config: &WorkerConfig,
    system: &SystemFacts,
    ready_since: Timestamp,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let status = json!({"status": status(config, system, ready_since, Timestamp::now())});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_string()),
        ..PatchParams::default()
    };
    nodes
        .patch_status(&config.name, &parameters, &Patch::Strategic(status))
        .await?;
    Ok(())
}

async fn renew(client: &Client, config: &WorkerConfig) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": config.name},
        "spec": {
            "holderIdentity": config.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now()),
        },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    leases
        .patch(&config.name, &parameters, &Patch::Apply(lease))
        .await?;
    Ok(())
}

/// Renews the lease every ten seconds and the status every five minutes, until `shutdown`.
pub(crate) async fn keep_alive(
    client: Client,
    config: WorkerConfig,
    system: SystemFacts,
    ready_since: Timestamp,
    shutdown: CancellationToken,
) {
    let mut renewals: u32 = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RENEW_PERIOD) => {}
        }
        renewals = renewals.wrapping_add(1);
        let mut result = renew(&client, &config).await;
        if result.is_ok() && renewals.is_multiple_of(STATUS_PERIOD_RENEWALS) {
            result = write_status(&client, &config, &system, ready_since).await;
        }
        if let Err(error) = result {
            tracing::warn!(node = config.name, %error, "lease was not renewed, trying again");
        }
    }
}

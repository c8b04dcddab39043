//! What pods use, as data; a backend measures, and the texts that scrapers read are made here for both kinds of node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// Processor time and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start.
    pub cpu_nanos: u64,
    /// Billionths of a core over the last moments, when that is measured.
    pub cpu_nano_cores: Option<u64>,
    /// All memory charged, caches too.
    pub memory_bytes: u64,
    /// Without caches that can be given back.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// Left until the limit, when there is one.
    pub available_bytes: Option<u64>,
}

/// Usage of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its name in the pod.
    pub name: String,
    /// Its id, without the runtime before it.
    pub id: String,
    /// Its image.
    pub image: String,
    /// What it used.
    pub usage: Usage,
}

/// Traffic of one network interface since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name in the pod.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// One direction of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with an error.
    pub errors: u64,
    /// Packets that were dropped.
    pub drops: u64,
}

/// Room of a pod's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// The device or the file system's name.
    pub device: String,
    /// Bytes in all.
    pub capacity_bytes: u64,
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes left.
    pub available_bytes: u64,
}

/// Usage of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When this was measured.
    pub at: Timestamp,
    /// Of all containers together.
    pub total: Usage,
    /// Container by container.
    pub containers: Vec<ContainerUsage>,
    /// Interface by interface, without the loopback.
    pub interfaces: Vec<InterfaceUsage>,
    /// Where its containers write, when that is known.
    pub filesystems: Vec<FilesystemUsage>,
}

impl PodUsage {
    /// An entry for `pod` that has used nothing yet.
    #[must_use]
    pub fn of(pod: &Pod, at: Timestamp) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            at,
            ..Self::default()
        }
    }
}

impl ContainerUsage {
    /// The usage of the container `name`, with the image and id that its pod knows.
    #[must_use]
    pub fn of(pod: &Pod, name: &str, usage: Usage) -> Self {
        let spec = pod.spec.iter().flat_map(|spec| {
            let init = spec.init_containers.iter().flatten();
            spec.containers.iter().chain(init)
        });
        let mut named = spec.filter(|one| one.name == name);
        let image = named.next().and_then(|one| one.image.clone());
        let status = pod.status.iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            status.container_statuses.iter().flatten().chain(init)
        });
        let mut named = status.filter(|one| one.name == name);
        let id = named.next().and_then(|one| one.container_id.clone());
        let id = id.unwrap_or_default();
        Self {
            name: name.to_string(),
            id: id.rsplit("//").next().unwrap_or_default().to_string(),
            image: image.unwrap_or_default(),
            usage,
        }
    }
}

/// What a node's pods use together.
pub(crate) fn total(pods: &[PodUsage]) -> Usage {
    let mut total = Usage::default();
    for usage in pods.iter().map(|pod| &pod.total) {
        total.cpu_nanos = total.cpu_nanos.saturating_add(usage.cpu_nanos);
        total.memory_bytes = total.memory_bytes.saturating_add(usage.memory_bytes);
        total.working_set_bytes = total
            .working_set_bytes
            .saturating_add(usage.working_set_bytes);
        total.rss_bytes = total.rss_bytes.saturating_add(usage.rss_bytes);
        if let Some(rate) = usage.cpu_nano_cores {
            let sum = total.cpu_nano_cores.unwrap_or_default();
            total.cpu_nano_cores = Some(sum.saturating_add(rate));
        }
    }
    total
}

/// Upstream's `stats/v1alpha1` `Summary`, as far as anything is measured.
pub(crate) fn summary(node: &str, pods: &[PodUsage]) -> Value {
    let newest = pods.iter().map(|pod| pod.at).max();
    let all = total(pods);
    let mut node = json!({"nodeName": node});
    if let Some(at) = newest {
        node["cpu"] = cpu(&all, at);
        node["memory"] = memory(&all, at);
    }
    json!({"node": node, "pods": pods.iter().map(pod_summary).collect::<Vec<_>>()})
}

fn pod_summary(pod: &PodUsage) -> Value {
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "cpu": cpu(&one.usage, pod.at), "memory": memory(&one.usage, pod.at),
            })
        })
        .collect();
    let mut entry = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "cpu": cpu(&pod.total, pod.at), "memory": memory(&pod.total, pod.at),
        "containers": containers,
    });
    let interfaces: Vec<Value> = pod
        .interfaces
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "rxBytes": one.received.bytes, "rxErrors": one.received.errors,
                "txBytes": one.sent.bytes, "txErrors": one.sent.errors,
            })
        })
        .collect();
    if let Some(first) = interfaces.first() {
        let mut network = first.clone();
        network["time"] = pod.at.to_string().into();
        network["interfaces"] = interfaces.into();
        entry["network"] = network;
    }
    if let Some(filesystem) = pod.filesystems.first() {
        entry["ephemeral-storage"] = json!({
            "time": pod.at.to_string(), "capacityBytes": filesystem.capacity_bytes,
            "usedBytes": filesystem.used_bytes, "availableBytes": filesystem.available_bytes,
        });
    }
    entry
}

fn cpu(usage: &Usage, at: Timestamp) -> Value {
    let mut cpu = json!({"time": at.to_string(), "usageCoreNanoSeconds": usage.cpu_nanos});
    if let Some(rate) = usage.cpu_nano_cores {
        cpu["usageNanoCores"] = rate.into();
    }
    cpu
}

fn memory(usage: &Usage, at: Timestamp) -> Value {
    let mut memory = json!({
        "time": at.to_string(), "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes, "rssBytes": usage.rss_bytes,
    });
    if let Some(available) = usage.available_bytes {
        memory["availableBytes"] = available.into();
    }
    memory
}

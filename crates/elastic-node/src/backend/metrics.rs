//! CPU and memory of the node's pods, asked of the cloud at most once per interval however many ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloud_api::model::metrics::{
    CpuMetric, DescribeMultiContainerGroupMetricRequest, MemoryMetric, MetricRecord,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_api::{ContainerUsage, FilesystemUsage, InterfaceUsage, PodUsage, Traffic, Usage};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::Shared;

/// Groups in one question.
const IDS_PER_CALL: usize = 20;
/// Questions under way at the same time.
const CALLS: usize = 8;
/// Figures are this fresh for each [`GROUPS_PER_INTERVAL`] groups.
const INTERVAL: Duration = Duration::from_millis(900);
const GROUPS_PER_INTERVAL: usize = 200;

#[derive(Default)]
pub(super) struct MetricsCache {
    samples: Mutex<(Option<Instant>, Vec<PodUsage>)>,
}

impl MetricsCache {
    /// The newest figures; a question to the cloud that fails leaves out its pods.
    pub(super) async fn read(&self, shared: &Shared, node: usize) -> Vec<PodUsage> {
        let mut cached = self.samples.lock().await;
        let groups = groups(shared, node);
        let intervals = u32::try_from(groups.len().div_ceil(GROUPS_PER_INTERVAL))
            .unwrap_or(u32::MAX)
            .max(1);
        if cached
            .0
            .is_none_or(|at| at.elapsed() >= INTERVAL * intervals)
        {
            *cached = (Some(Instant::now()), ask(shared, groups).await);
        }
        cached.1.clone()
    }
}

/// Running groups of the node's pods.
fn groups(shared: &Shared, node: usize) -> HashMap<String, Arc<Pod>> {
    let state = shared.state();
    let own = state.pods.iter().filter(|(_, record)| record.node == node);
    own.filter_map(|(uid, record)| {
        let (id, group) = state.shown_group(uid)?;
        let running = group
            .entry
            .as_ref()
            .is_some_and(|entry| entry.status == cloud_api::GroupStatus::Running);
        running.then(|| (id.clone(), record.pod()))
    })
    .collect()
}

async fn ask(shared: &Shared, groups: HashMap<String, Arc<Pod>>) -> Vec<PodUsage> {
    use futures::StreamExt;
    let ids: Vec<String> = groups.keys().cloned().collect();
    let chunks: Vec<Vec<String>> = ids.chunks(IDS_PER_CALL).map(<[String]>::to_vec).collect();
    let calls = chunks.into_iter().map(|ids| async move {
        let request = DescribeMultiContainerGroupMetricRequest {
            container_group_ids: ids,
            metric_type: Some("summary".to_owned()),
            ..DescribeMultiContainerGroupMetricRequest::default()
        };
        shared.cloud.call(&request).await
    });
    let answers: Vec<_> = futures::stream::iter(calls)
        .buffer_unordered(CALLS)
        .collect()
        .await;
    let mut samples = Vec::with_capacity(groups.len());
    for answer in answers {
        match answer {
            Ok(answer) => samples.extend(answer.monitor_datas.into_iter().filter_map(|data| {
                let record = data.records.into_iter().next_back()?;
                Some(pod_usage(groups.get(&data.container_group_id)?, &record))
            })),
            Err(error) => {
                tracing::debug!(%error, "metrics of some container groups could not be read")
            }
        }
    }
    samples.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    samples
}

fn pod_usage(pod: &Pod, record: &MetricRecord) -> PodUsage {
    let at = record.timestamp.parse::<Timestamp>();
    let mut entry = PodUsage::of(pod, at.unwrap_or_default());
    entry.total = usage(&record.cpu, &record.memory);
    let containers = record.containers.iter();
    entry.containers = containers
        .map(|one| ContainerUsage::of(pod, &one.name, usage(&one.cpu, &one.memory)))
        .collect();
    let interfaces = record.network.interfaces.iter();
    entry.interfaces = interfaces
        .map(|one| InterfaceUsage {
            name: one.name.clone(),
            received: Traffic {
                bytes: one.rx_bytes,
                packets: one.rx_packets,
                errors: one.rx_errors,
                drops: one.rx_drops,
            },
            sent: Traffic {
                bytes: one.tx_bytes,
                packets: one.tx_packets,
                errors: one.tx_errors,
                drops: one.tx_drops,
            },
        })
        .collect();
    let filesystems = record.filesystem.iter();
    entry.filesystems = filesystems
        .map(|one| FilesystemUsage {
            device: one.fs_name.clone(),
            capacity_bytes: one.capacity,
            used_bytes: one.usage,
            available_bytes: one.available,
        })
        .collect();
    entry
}

fn usage(cpu: &CpuMetric, memory: &MemoryMetric) -> Usage {
    Usage {
        cpu_nanos: cpu.usage_core_nano_seconds,
        cpu_nano_cores: Some(cpu.usage_nano_cores),
        memory_bytes: memory.usage_bytes,
        working_set_bytes: memory.working_set,
        rss_bytes: memory.rss,
        available_bytes: Some(memory.available_bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_of_the_cloud_become_the_usage_of_the_pod() {
        let record: MetricRecord = serde_json::from_value(json!({
            "Timestamp": "2026-01-01T00:00:00Z",
            "CPU": {"UsageCoreNanoSeconds": 2_500_000_000u64}, "Memory": {"WorkingSet": 7},
            "Network": {"Interfaces": [{"Name": "eth0", "RxBytes": 3, "TxDrops": 4}]},
            "Filesystem": [{"FsName": "root", "Capacity": 10, "Usage": 4, "Available": 6}],
            "Containers": [{"Name": "web", "CPU": {"UsageCoreNanoSeconds": 1_000_000_001u64}, "Memory": {"WorkingSet": 5}}]
        }))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u"},
            "spec": {"containers": [{"name": "web", "image": "shop:1"}]},
        }))
        .unwrap();
        let usage = pod_usage(&pod, &record);
        assert_eq!(
            (usage.namespace.as_str(), usage.uid.as_str()),
            ("shop", "u")
        );
        assert_eq!(usage.at.as_millisecond(), 1_767_225_600_000);
        assert_eq!(
            (usage.total.cpu_nanos, usage.total.working_set_bytes),
            (2_500_000_000, 7)
        );
        assert_eq!(usage.containers[0].image, "shop:1");
        assert_eq!(usage.containers[0].usage.cpu_nanos, 1_000_000_001);
        assert_eq!(
            (
                usage.interfaces[0].received.bytes,
                usage.interfaces[0].sent.drops
            ),
            (3, 4)
        );
        assert_eq!(usage.filesystems[0].used_bytes, 4);
    }
}

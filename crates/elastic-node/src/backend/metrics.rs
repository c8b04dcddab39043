//! CPU and memory of the node's pods, asked of the cloud at most once per interval however many ask.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use cloud_api::model::metrics::{DescribeMultiContainerGroupMetricRequest, MetricRecord};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::engine::Shared;

/// Groups in one question.
const IDS_PER_CALL: usize = 20;
/// Questions under way at the same time.
const CALLS: usize = 8;
/// Figures are this fresh for each [`GROUPS_PER_INTERVAL`] groups.
const INTERVAL: Duration = Duration::from_millis(900);
const GROUPS_PER_INTERVAL: usize = 200;

/// The newest figures of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodSample {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) record: MetricRecord,
}

#[derive(Default)]
pub(super) struct MetricsCache {
    samples: Mutex<(Option<Instant>, Vec<PodSample>)>,
}

impl MetricsCache {
    /// The newest figures; a question to the cloud that fails leaves out its pods.
    pub(super) async fn read(&self, shared: &Shared, node: usize) -> Vec<PodSample> {
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
fn groups(shared: &Shared, node: usize) -> HashMap<String, PodSample> {
    let state = shared.state();
    let own = state.pods.iter().filter(|(_, record)| record.node == node);
    own.filter_map(|(uid, record)| {
        let (id, group) = state.shown_group(uid)?;
        let running = group
            .entry
            .as_ref()
            .is_some_and(|entry| entry.status == cloud_api::GroupStatus::Running);
        let sample = PodSample {
            namespace: record.pod.namespace().unwrap_or_default(),
            name: record.pod.name_any(),
            uid: uid.clone(),
            record: MetricRecord::default(),
        };
        running.then(|| (id.clone(), sample))
    })
    .collect()
}

async fn ask(shared: &Shared, groups: HashMap<String, PodSample>) -> Vec<PodSample> {
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
                Some(PodSample {
                    record,
                    ..groups.get(&data.container_group_id)?.clone()
                })
            })),
            Err(error) => {
                tracing::debug!(%error, "metrics of some container groups could not be read")
            }
        }
    }
    samples.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    samples
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Prometheus text with the series that metrics-server reads, each with the time of its sample.
pub(super) fn resource_text(samples: &[PodSample]) -> String {
    let mut cpu = String::new();
    let mut memory = String::new();
    let mut pod_cpu = String::new();
    let mut pod_memory = String::new();
    let (mut node_cpu, mut node_memory) = (0u64, 0u64);
    // Writing into a String cannot fail.
    for sample in samples {
        let (namespace, pod) = (&sample.namespace, &sample.name);
        let at = sample
            .record
            .timestamp
            .parse::<Timestamp>()
            .map(|time| format!(" {}", time.as_millisecond()));
        let at = at.unwrap_or_default();
        for container in &sample.record.containers {
            let labels = format!(
                "{{container=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"}}",
                container.name
            );
            let used = seconds(container.cpu.usage_core_nano_seconds);
            let _ = writeln!(cpu, "container_cpu_usage_seconds_total{labels} {used}{at}");
            let working_set = container.memory.working_set;
            let _ = writeln!(
                memory,
                "container_memory_working_set_bytes{labels} {working_set}{at}"
            );
        }
        let labels = format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}}");
        let used = sample.record.cpu.usage_core_nano_seconds;
        let _ = writeln!(
            pod_cpu,
            "pod_cpu_usage_seconds_total{labels} {}{at}",
            seconds(used)
        );
        let _ = writeln!(
            pod_memory,
            "pod_memory_working_set_bytes{labels} {}{at}",
            sample.record.memory.working_set
        );
        node_cpu = node_cpu.saturating_add(used);
        node_memory = node_memory.saturating_add(sample.record.memory.working_set);
    }
    let counter = |name: &str, lines: &str| format!("# TYPE {name} counter\n{lines}");
    let gauge = |name: &str, lines: &str| format!("# TYPE {name} gauge\n{lines}");
    [
        counter("container_cpu_usage_seconds_total", &cpu),
        gauge("container_memory_working_set_bytes", &memory),
        counter("pod_cpu_usage_seconds_total", &pod_cpu),
        gauge("pod_memory_working_set_bytes", &pod_memory),
        counter(
            "node_cpu_usage_seconds_total",
            &format!("node_cpu_usage_seconds_total {}\n", seconds(node_cpu)),
        ),
        gauge(
            "node_memory_working_set_bytes",
            &format!("node_memory_working_set_bytes {node_memory}\n"),
        ),
    ]
    .concat()
}

/// The kubelet's summary, as far as the cloud says anything.
pub(super) fn summary(node: &str, samples: &[PodSample]) -> Value {
    let cpu = |cpu: &cloud_api::model::metrics::CpuMetric, time: &str| json!({"time": time, "usageNanoCores": cpu.usage_nano_cores, "usageCoreNanoSeconds": cpu.usage_core_nano_seconds});
    let memory = |memory: &cloud_api::model::metrics::MemoryMetric, time: &str| {
        json!({
            "time": time, "availableBytes": memory.available_bytes, "usageBytes": memory.usage_bytes,
            "workingSetBytes": memory.working_set, "rssBytes": memory.rss
        })
    };
    let pods: Vec<Value> = samples
        .iter()
        .map(|sample| {
            let time = &sample.record.timestamp;
            let containers = sample.record.containers.iter();
            let containers: Vec<Value> = containers
                .map(|container| {
                    json!({
                        "name": container.name,
                        "cpu": cpu(&container.cpu, time), "memory": memory(&container.memory, time)
                    })
                })
                .collect();
            json!({
                "podRef": {"name": sample.name, "namespace": sample.namespace, "uid": sample.uid},
                "cpu": cpu(&sample.record.cpu, time), "memory": memory(&sample.record.memory, time),
                "containers": containers
            })
        })
        .collect();
    json!({"node": {"nodeName": node}, "pods": pods})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_out_in_the_names_metrics_server_reads() {
        let record: MetricRecord = serde_json::from_value(json!({
            "Timestamp": "2026-01-01T00:00:00Z",
            "CPU": {"UsageCoreNanoSeconds": 2_500_000_000u64}, "Memory": {"WorkingSet": 7},
            "Containers": [{"Name": "web", "CPU": {"UsageCoreNanoSeconds": 1_000_000_001u64}, "Memory": {"WorkingSet": 5}}]
        }))
        .unwrap();
        let sample = PodSample {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: "u".into(),
            record,
        };
        let text = resource_text(std::slice::from_ref(&sample));
        let wanted = [
            "container_cpu_usage_seconds_total{container=\"web\",namespace=\"shop\",pod=\"web-1\"} 1.000000001 1767225600000",
            "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web-1\"} 7 1767225600000",
            "node_cpu_usage_seconds_total 2.500000000",
        ];
        for line in wanted {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(
            summary("n", &[sample])["pods"][0]["containers"][0]["memory"]["workingSetBytes"],
            5
        );
    }
}

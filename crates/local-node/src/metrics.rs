//! `/metrics/resource` in the series names that metrics-server reads, and `/stats/summary` from the same numbers.

use std::fmt::Write;

use local_runtime::SandboxUsage;

/// Usage of one pod.
pub(crate) struct PodUsage {
    pub namespace: String,
    pub pod: String,
    pub usage: SandboxUsage,
}

/// Prometheus text with the time of each sample in milliseconds.
pub(crate) fn resource_text(pods: &[PodUsage]) -> String {
    let mut cpu = String::new();
    let mut memory = String::new();
    let mut pod_cpu = String::new();
    let mut pod_memory = String::new();
    let (mut node_cpu_nanos, mut node_memory, mut newest) = (0u64, 0u64, 0i64);
    for pod in pods {
        let at = pod.usage.timestamp.as_millisecond();
        newest = newest.max(at);
        let who = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.pod);
        let (mut nanos, mut bytes) = (0u64, 0u64);
        for container in &pod.usage.containers {
            let labels = format!("container=\"{}\",{who}", container.name);
            // Writing to a String cannot fail.
            let _ = writeln!(
                cpu,
                "container_cpu_usage_seconds_total{{{labels}}} {} {at}",
                seconds(container.cpu_usage_nanos)
            );
            let _ = writeln!(
                memory,
                "container_memory_working_set_bytes{{{labels}}} {} {at}",
                container.memory_working_set_bytes
            );
            nanos += container.cpu_usage_nanos;
            bytes += container.memory_working_set_bytes;
        }
        let _ = writeln!(
            pod_cpu,
            "pod_cpu_usage_seconds_total{{{who}}} {} {at}",
            seconds(nanos)
        );
        let _ = writeln!(
            pod_memory,
            "pod_memory_working_set_bytes{{{who}}} {bytes} {at}"
        );
        node_cpu_nanos += nanos;
        node_memory += bytes;
    }
    let node = format!(
        "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {} {newest}\n# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {node_memory} {newest}\n",
        seconds(node_cpu_nanos)
    );
    format!(
        "# TYPE container_cpu_usage_seconds_total counter\n{cpu}# TYPE container_memory_working_set_bytes gauge\n{memory}{node}# TYPE pod_cpu_usage_seconds_total counter\n{pod_cpu}# TYPE pod_memory_working_set_bytes gauge\n{pod_memory}# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n"
    )
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Upstream's `Summary`, the parts that come from usage.
pub(crate) fn summary(node: &str, pods: &[PodUsage]) -> serde_json::Value {
    let entries: Vec<_> = pods
        .iter()
        .map(|pod| {
            let time = pod.usage.timestamp.to_string();
            let containers: Vec<_> = pod
                .usage
                .containers
                .iter()
                .map(|one| {
                    serde_json::json!({
                        "name": one.name,
                        "cpu": {"time": time, "usageCoreNanoSeconds": one.cpu_usage_nanos},
                        "memory": {
                            "time": time,
                            "usageBytes": one.memory_usage_bytes,
                            "workingSetBytes": one.memory_working_set_bytes,
                            "rssBytes": one.memory_rss_bytes,
                        },
                    })
                })
                .collect();
            serde_json::json!({
                "podRef": {"name": pod.pod, "namespace": pod.namespace},
                "containers": containers,
            })
        })
        .collect();
    serde_json::json!({"node": {"nodeName": node}, "pods": entries})
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use local_runtime::ContainerUsage;

    #[test]
    fn containers_add_up_to_their_pod_and_node() {
        let container = |name: &str, nanos, bytes| ContainerUsage {
            name: name.to_string(),
            cpu_usage_nanos: nanos,
            memory_working_set_bytes: bytes,
            memory_usage_bytes: bytes,
            memory_rss_bytes: bytes,
        };
        let usage = SandboxUsage {
            timestamp: Timestamp::from_millisecond(1_000_500).unwrap(),
            containers: vec![
                container("a", 1_500_000_000, 10),
                container("b", 500_000_000, 5),
            ],
        };
        let text = resource_text(&[PodUsage {
            namespace: "n".to_string(),
            pod: "p".to_string(),
            usage,
        }]);
        for line in [
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1.500000000 1000500",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 2.000000000 1000500",
            "node_memory_working_set_bytes 15 1000500",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
    }
}

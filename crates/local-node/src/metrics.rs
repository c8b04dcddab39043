//! What a worker's pods use: CPU and memory from the runtime, traffic from the kernel.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kubelet_api::{ContainerUsage, InterfaceUsage, PodUsage, Traffic, Usage};
use local_runtime::SandboxUsage;

/// Usage of one pod; `devices` is `/proc/<pid>/net/dev` of one of its processes.
pub(crate) fn pod_usage(pod: &Pod, sandbox: &SandboxUsage, devices: &str) -> PodUsage {
    let mut entry = PodUsage::of(pod, sandbox.timestamp);
    for one in &sandbox.containers {
        let usage = Usage {
            cpu_nanos: one.cpu_usage_nanos,
            memory_bytes: one.memory_usage_bytes,
            working_set_bytes: one.memory_working_set_bytes,
            rss_bytes: one.memory_rss_bytes,
            ..Usage::default()
        };
        let total = &mut entry.total;
        total.cpu_nanos += usage.cpu_nanos;
        total.memory_bytes += usage.memory_bytes;
        total.working_set_bytes += usage.working_set_bytes;
        total.rss_bytes += usage.rss_bytes;
        entry
            .containers
            .push(ContainerUsage::of(pod, &one.name, usage));
    }
    entry.interfaces = interfaces(devices);
    entry
}

/// The kernel's table of network devices as a process sees it; empty when the process has just ended.
pub(crate) async fn devices(pid: Option<i32>) -> String {
    let Some(pid) = pid else {
        return String::new();
    };
    let path = Path::new("/proc").join(pid.to_string()).join("net/dev");
    tokio::fs::read_to_string(path).await.unwrap_or_default()
}

/// Interfaces but the loopback. Each line is a name and sixteen counters, eight for each direction.
fn interfaces(table: &str) -> Vec<InterfaceUsage> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let name = name.trim();
        let numbers: Vec<u64> = rest
            .split_whitespace()
            .map_while(|one| one.parse().ok())
            .collect();
        let (received, sent) = (numbers.get(..4)?, numbers.get(8..12)?);
        let traffic = |counters: &[u64]| Traffic {
            bytes: counters[0],
            packets: counters[1],
            errors: counters[2],
            drops: counters[3],
        };
        (name != "lo").then(|| InterfaceUsage {
            name: name.to_string(),
            received: traffic(received),
            sent: traffic(sent),
        })
    };
    table.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const TABLE: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    4096      12    1    2    0     0          0         0     2048       9    3    4    0     0       0          0
";

    #[test]
    fn traffic_is_read_of_every_interface_but_the_loopback() {
        let found = interfaces(TABLE);
        let traffic = |bytes, packets, errors, drops| Traffic {
            bytes,
            packets,
            errors,
            drops,
        };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].received, traffic(4096, 12, 1, 2));
        assert_eq!(found[0].sent, traffic(2048, 9, 3, 4));
        assert!(interfaces("eth0: 1 2 3").is_empty() && interfaces("").is_empty());
    }

    #[test]
    fn containers_add_up_to_their_pod() {
        let container = |name: &str, nanos, bytes| local_runtime::ContainerUsage {
            name: name.to_string(),
            cpu_usage_nanos: nanos,
            memory_working_set_bytes: bytes,
            memory_usage_bytes: bytes,
            memory_rss_bytes: bytes,
        };
        let sandbox = SandboxUsage {
            timestamp: Timestamp::from_millisecond(1_000_500).unwrap(),
            containers: vec![container("a", 1_500, 10), container("b", 500, 5)],
        };
        let usage = pod_usage(&Pod::default(), &sandbox, TABLE);
        assert_eq!(
            (usage.total.cpu_nanos, usage.total.working_set_bytes),
            (2_000, 15)
        );
        assert_eq!(usage.containers.len(), 2);
        assert_eq!(usage.interfaces[0].name, "eth0");
    }
}

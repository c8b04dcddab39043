//! Usage as Prometheus text: the series metrics-server reads, and those that dashboards know from cAdvisor.

use std::fmt::Write;

use crate::usage::{PodUsage, Usage, total};

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric with its samples.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    lines: String,
}

impl Family {
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, "counter")
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, "gauge")
    }

    fn new(name: &'static str, help: &'static str, kind: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            lines: String::new(),
        }
    }

    fn add(&mut self, labels: &str, value: impl std::fmt::Display, at_ms: i64) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.lines, "{}{labels} {value} {at_ms}", self.name);
    }
}

fn text(families: &[Family]) -> String {
    let with_samples = families.iter().filter(|one| !one.lines.is_empty());
    with_samples
        .map(|one| {
            format!(
                "# HELP {name} {}\n# TYPE {name} {}\n{}",
                one.help,
                one.kind,
                one.lines,
                name = one.name
            )
        })
        .collect()
}

/// `{name="value",…}` with values escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in pairs.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// `/metrics/resource`, each sample with its time: metrics-server computes rates from these.
pub(crate) fn resource(pods: &[PodUsage]) -> String {
    let mut cpu = Family::counter(
        "container_cpu_usage_seconds_total",
        "Processor time of the container in seconds.",
    );
    let mut memory = Family::gauge(
        "container_memory_working_set_bytes",
        "Working set of the container in bytes.",
    );
    let mut pod_cpu = Family::counter(
        "pod_cpu_usage_seconds_total",
        "Processor time of the pod in seconds.",
    );
    let mut pod_memory = Family::gauge(
        "pod_memory_working_set_bytes",
        "Working set of the pod in bytes.",
    );
    for pod in pods {
        let at = pod.at.as_millisecond();
        let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
        for one in &pod.containers {
            let labels = labels(&[
                ("container", &one.name),
                ("namespace", namespace),
                ("pod", name),
            ]);
            cpu.add(&labels, seconds(one.usage.cpu_nanos), at);
            memory.add(&labels, one.usage.working_set_bytes, at);
        }
        let labels = labels(&[("namespace", namespace), ("pod", name)]);
        pod_cpu.add(&labels, seconds(pod.total.cpu_nanos), at);
        pod_memory.add(&labels, pod.total.working_set_bytes, at);
    }
    let mut families = vec![cpu, memory, pod_cpu, pod_memory];
    let mut text = text(&families);
    families.clear();
    let all = total(pods);
    let at = pods.iter().map(|pod| pod.at).max();
    let at = at.map(|at| format!(" {}", at.as_millisecond()));
    let at = at.unwrap_or_default();
    // There on an empty node too: metrics-server takes a node without them for a broken one.
    let _ = write!(
        text,
        "# HELP node_cpu_usage_seconds_total Processor time of the node's pods in seconds.\n# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {}{at}\n\
         # HELP node_memory_working_set_bytes Working set of the node's pods in bytes.\n# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {}{at}\n\
         # HELP resource_scrape_error 1 when usage could not be read.\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n",
        seconds(all.cpu_nanos),
        all.working_set_bytes
    );
    text
}

/// `/metrics/cadvisor`. A pod's own series have an empty container, as on any kubelet.
pub(crate) fn cadvisor(pods: &[PodUsage]) -> String {
    let mut usage = UsageFamilies::new();
    let mut network = network_families();
    let mut room = room_families();
    for pod in pods {
        let at = pod.at.as_millisecond();
        let group = format!("/kubepods/pod{}", pod.uid);
        let place = [
            ("namespace", pod.namespace.as_str()),
            ("pod", pod.name.as_str()),
        ];
        usage.add(&identity("", &group, "", "", place), &pod.total, at);
        for one in &pod.containers {
            let id = format!("{group}/{}", one.id);
            let pairs = identity(&one.name, &id, &one.image, &one.id, place);
            usage.add(&pairs, &one.usage, at);
        }
        for one in &pod.interfaces {
            let mut pairs = identity("", &group, "", "", place);
            // Of the whole pod, so without a container.
            pairs[0] = ("interface", &one.name);
            let labels = labels(&pairs);
            let (received, sent) = (&one.received, &one.sent);
            let values = [
                received.bytes,
                received.packets,
                received.errors,
                received.drops,
                sent.bytes,
                sent.packets,
                sent.errors,
                sent.drops,
            ];
            for (family, value) in network.iter_mut().zip(values) {
                family.add(&labels, value, at);
            }
        }
        for one in &pod.filesystems {
            let mut pairs = identity("", &group, "", "", place);
            pairs.push(("device", &one.device));
            let labels = labels(&pairs);
            for (family, value) in room.iter_mut().zip([one.capacity_bytes, one.used_bytes]) {
                family.add(&labels, value, at);
            }
        }
    }
    let mut families = usage.into_families();
    families.extend(network);
    families.extend(room);
    text(&families)
}

/// The labels that say what a series is about.
fn identity<'a>(
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    place: [(&'static str, &'a str); 2],
) -> Vec<(&'static str, &'a str)> {
    let own = [
        ("container", container),
        ("id", id),
        ("image", image),
        ("name", name),
    ];
    [&own[..], &place].concat()
}

fn room_families() -> [Family; 2] {
    [
        Family::gauge(
            "container_fs_limit_bytes",
            "Bytes that can be written to the file system.",
        ),
        Family::gauge("container_fs_usage_bytes", "Bytes used of the file system."),
    ]
}

/// The series of a container or pod.
struct UsageFamilies {
    cpu: Family,
    memory: Family,
    working_set: Family,
    rss: Family,
    last_seen: Family,
}

impl UsageFamilies {
    fn new() -> Self {
        Self {
            cpu: Family::counter(
                "container_cpu_usage_seconds_total",
                "Processor time used in seconds.",
            ),
            memory: Family::gauge(
                "container_memory_usage_bytes",
                "Memory used in bytes, caches too.",
            ),
            working_set: Family::gauge(
                "container_memory_working_set_bytes",
                "Memory used in bytes, without caches that can be given back.",
            ),
            rss: Family::gauge("container_memory_rss", "Anonymous memory in bytes."),
            last_seen: Family::gauge(
                "container_last_seen",
                "When this was measured, in seconds since 1970.",
            ),
        }
    }

    fn add(&mut self, pairs: &[(&str, &str)], usage: &Usage, at_ms: i64) {
        let mut with_cpu = pairs.to_vec();
        with_cpu.insert(1, ("cpu", "total"));
        let cpu = seconds(usage.cpu_nanos);
        self.cpu.add(&labels(&with_cpu), cpu, at_ms);
        let labels = labels(pairs);
        self.memory.add(&labels, usage.memory_bytes, at_ms);
        self.working_set
            .add(&labels, usage.working_set_bytes, at_ms);
        self.rss.add(&labels, usage.rss_bytes, at_ms);
        self.last_seen.add(&labels, at_ms / 1000, at_ms);
    }

    fn into_families(self) -> Vec<Family> {
        vec![
            self.cpu,
            self.memory,
            self.working_set,
            self.rss,
            self.last_seen,
        ]
    }
}

fn network_families() -> [Family; 8] {
    let counter = Family::counter;
    [
        counter("container_network_receive_bytes_total", "Bytes received."),
        counter(
            "container_network_receive_packets_total",
            "Packets received.",
        ),
        counter(
            "container_network_receive_errors_total",
            "Packets received with an error.",
        ),
        counter(
            "container_network_receive_packets_dropped_total",
            "Packets received and dropped.",
        ),
        counter("container_network_transmit_bytes_total", "Bytes sent."),
        counter("container_network_transmit_packets_total", "Packets sent."),
        counter(
            "container_network_transmit_errors_total",
            "Packets not sent for an error.",
        ),
        counter(
            "container_network_transmit_packets_dropped_total",
            "Packets dropped before they were sent.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::usage::{ContainerUsage, FilesystemUsage, InterfaceUsage, Traffic, summary};

    fn pod() -> PodUsage {
        let usage = |cpu_nanos, working_set_bytes| Usage {
            cpu_nanos,
            working_set_bytes,
            memory_bytes: working_set_bytes + 1,
            ..Usage::default()
        };
        let container = |name: &str, usage| ContainerUsage {
            name: name.to_string(),
            id: format!("{name}-id"),
            image: "shop:1".to_string(),
            usage,
        };
        PodUsage {
            namespace: "n".to_string(),
            name: "p".to_string(),
            uid: "u".to_string(),
            at: Timestamp::from_millisecond(1_000_500).unwrap(),
            total: usage(2_000_000_001, 15),
            containers: vec![
                container("a", usage(1_500_000_001, 10)),
                container("b", usage(500_000_000, 5)),
            ],
            interfaces: vec![InterfaceUsage {
                name: "eth0".to_string(),
                received: Traffic {
                    bytes: 7,
                    ..Traffic::default()
                },
                sent: Traffic {
                    drops: 3,
                    ..Traffic::default()
                },
            }],
            filesystems: vec![FilesystemUsage {
                device: "vda".to_string(),
                capacity_bytes: 100,
                used_bytes: 40,
                available_bytes: 60,
            }],
        }
    }

    fn has_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|one| one == *line), "{line} in\n{text}");
        }
    }

    #[test]
    fn resource_metrics_have_the_names_that_metrics_server_reads() {
        has_lines(
            &resource(&[pod()]),
            &[
                "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1.500000001 1000500",
                "container_memory_working_set_bytes{container=\"b\",namespace=\"n\",pod=\"p\"} 5 1000500",
                "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 2.000000001 1000500",
                "node_memory_working_set_bytes 15 1000500",
            ],
        );
    }

    #[test]
    fn a_node_without_pods_still_has_its_own_figures() {
        has_lines(
            &resource(&[]),
            &["node_cpu_usage_seconds_total 0.000000000"],
        );
        assert_eq!(cadvisor(&[]), "");
    }

    #[test]
    fn cadvisor_series_have_its_names_and_labels() {
        has_lines(
            &cadvisor(&[pod()]),
            &[
                "# TYPE container_cpu_usage_seconds_total counter",
                "container_cpu_usage_seconds_total{container=\"a\",cpu=\"total\",id=\"/kubepods/podu/a-id\",image=\"shop:1\",name=\"a-id\",namespace=\"n\",pod=\"p\"} 1.500000001 1000500",
                "container_memory_working_set_bytes{container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"} 15 1000500",
                "container_network_receive_bytes_total{interface=\"eth0\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"} 7 1000500",
                "container_network_transmit_packets_dropped_total{interface=\"eth0\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"} 3 1000500",
                "container_fs_usage_bytes{container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\",device=\"vda\"} 40 1000500",
            ],
        );
    }

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(labels(&[("a", "x\"y\\z\n")]), "{a=\"x\\\"y\\\\z\\n\"}");
    }

    #[test]
    fn the_summary_tells_the_same_figures() {
        let summary = summary("node", &[pod()]);
        assert_eq!(
            summary["node"]["cpu"]["usageCoreNanoSeconds"],
            2_000_000_001u64
        );
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"]["uid"], "u");
        assert_eq!(pod["containers"][1]["memory"]["workingSetBytes"], 5);
        assert_eq!(pod["network"]["rxBytes"], 7);
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 40);
    }
}

//! The newest samples and the rates between them. Time comes in with the samples.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{PoisonError, RwLock};

use elastic_core::timeline::SampleMoments;
use jiff::Timestamp;

use crate::exposition;

/// A counter's value at a time, in seconds of CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    at: Timestamp,
    cpu_seconds: f64,
}

/// What is known of one node or container.
#[derive(Clone, Debug, Default, PartialEq)]
struct Series {
    last: Option<Reading>,
    memory_bytes: Option<f64>,
    usage: Option<Usage>,
    started: Option<f64>,
    recent: VecDeque<SampleMoments>,
}

/// Use of CPU and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Billionths of a core, on average over `window_seconds` up to `at`.
    pub(crate) cpu_nanos: u64,
    /// The working set.
    pub(crate) memory_bytes: u64,
    pub(crate) at: Timestamp,
    pub(crate) window_seconds: f64,
}

/// Samples whose moments are remembered, so that what made an autoscaler act can be told a moment later.
const RECENT: usize = 4;
/// Two samples closer than this give no useful rate.
const LEAST_WINDOW_SECONDS: f64 = 0.2;

impl Series {
    fn read(
        &mut self,
        cpu: Option<Reading>,
        memory: Option<f64>,
        started: Option<f64>,
        reported: Timestamp,
    ) {
        self.memory_bytes = memory.or(self.memory_bytes);
        self.started = started.or(self.started);
        let Some(now) = cpu else { return };
        let from = match self.last {
            Some(last) if now.at <= last.at => return,
            // The counter began anew: the container was restarted.
            Some(last) if now.cpu_seconds < last.cpu_seconds => None,
            Some(last) => Some(last),
            None => self.started.and_then(|at| since_start(at, now.at)),
        };
        if let Some(from) = from {
            let window_seconds =
                (now.at.as_millisecond() - from.at.as_millisecond()) as f64 / 1_000.0;
            if window_seconds < LEAST_WINDOW_SECONDS {
                return;
            }
            let rate = (now.cpu_seconds - from.cpu_seconds).max(0.0) / window_seconds;
            let memory_bytes = self.memory_bytes.unwrap_or(0.0).max(0.0) as u64;
            let cpu_nanos = (rate * 1e9).round() as u64;
            self.usage = Some(Usage {
                cpu_nanos,
                memory_bytes,
                at: now.at,
                window_seconds,
            });
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(SampleMoments {
                sampled: now.at,
                reported,
            });
        }
        self.last = Some(now);
    }
}

/// A young container's first sample is its use since the start.
fn since_start(started: f64, now: Timestamp) -> Option<Reading> {
    const YOUNG_SECONDS: f64 = 30.0;
    let age = now.as_millisecond() as f64 / 1_000.0 - started;
    let at = Timestamp::from_millisecond((started * 1_000.0) as i64).ok()?;
    (LEAST_WINDOW_SECONDS..YOUNG_SECONDS)
        .contains(&age)
        .then_some(Reading {
            at,
            cpu_seconds: 0.0,
        })
}

/// `namespace` and `name`.
pub(crate) type PodKey = (String, String);

#[derive(Default)]
struct NodeSamples {
    node: Series,
    pods: BTreeMap<PodKey, BTreeMap<String, Series>>,
}

/// Labels of objects, for selectors and answers.
pub(crate) type Labels = BTreeMap<String, String>;

/// All samples; shared between the collector and the server.
#[derive(Default)]
pub(crate) struct Board {
    nodes: RwLock<HashMap<String, NodeSamples>>,
    pod_labels: RwLock<HashMap<PodKey, Labels>>,
    node_labels: RwLock<HashMap<String, Labels>>,
}

/// A pod's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodUsage {
    pub(crate) key: PodKey,
    pub(crate) labels: Labels,
    pub(crate) containers: Vec<(String, Usage)>,
    /// Of the last samples, oldest first.
    pub(crate) moments: Vec<SampleMoments>,
}

/// A node's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeUsage {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) usage: Usage,
}

impl Board {
    /// Takes in what a node said at `now`. Pods it no longer names are dropped.
    pub(crate) fn take(&self, node: &str, text: &str, now: Timestamp) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let samples = nodes.entry(node.to_owned()).or_default();
        let mut found: HashMap<(PodKey, String), [Option<exposition::Line<'_>>; 3]> =
            HashMap::new();
        let mut of_node: [Option<exposition::Line<'_>>; 3] = [None, None, None];
        for line in exposition::lines(text) {
            let (slot, is_node) = match line.name {
                "node_cpu_usage_seconds_total" => (0, true),
                "node_memory_working_set_bytes" => (1, true),
                "container_cpu_usage_seconds_total" => (0, false),
                "container_memory_working_set_bytes" => (1, false),
                "container_start_time_seconds" => (2, false),
                _ => continue,
            };
            if is_node {
                of_node[slot] = Some(line);
            } else if let (Some(namespace), Some(pod), Some(container)) = (
                line.label("namespace"),
                line.label("pod"),
                line.label("container"),
            ) {
                let key = ((namespace.to_owned(), pod.to_owned()), container.to_owned());
                found.entry(key).or_default()[slot] = Some(line);
            }
        }
        read(&mut samples.node, of_node, now);
        let mut pods: BTreeMap<PodKey, BTreeMap<String, Series>> = BTreeMap::new();
        for ((pod, container), lines) in found {
            let known = samples
                .pods
                .get_mut(&pod)
                .and_then(|containers| containers.remove(&container));
            let mut series = known.unwrap_or_default();
            read(&mut series, lines, now);
            pods.entry(pod).or_default().insert(container, series);
        }
        samples.pods = pods;
    }

    /// Forgets nodes that are gone.
    pub(crate) fn keep_nodes(&self, labels: HashMap<String, Labels>) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|name, _| labels.contains_key(name));
        *self
            .node_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner) = labels;
    }

    pub(crate) fn put_pod(&self, key: PodKey, labels: Labels) {
        self.pod_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, labels);
    }

    pub(crate) fn remove_pod(&self, key: &PodKey) {
        self.pod_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    pub(crate) fn keep_pods(&self, present: HashMap<PodKey, Labels>) {
        *self
            .pod_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner) = present;
    }

    /// Takes in what somebody else averaged: all pods of a namespace. Those that are not named are dropped. A container
    /// without a usage keeps its pod from being shown.
    pub(crate) fn replace_pods(
        &self,
        namespace: &str,
        found: BTreeMap<PodKey, BTreeMap<String, Option<Usage>>>,
    ) {
        let series = |(name, usage)| {
            let series = Series {
                usage,
                ..Series::default()
            };
            (name, series)
        };
        let pods = found.into_iter();
        let pods =
            pods.map(|(key, containers)| (key, containers.into_iter().map(series).collect()));
        let samples = NodeSamples {
            node: Series::default(),
            pods: pods.collect(),
        };
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(origin(namespace), samples);
    }

    /// Takes in what somebody else averaged: all nodes.
    pub(crate) fn replace_nodes(&self, found: Vec<(String, Usage)>) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        for samples in nodes.values_mut() {
            samples.node = Series::default();
        }
        for (name, usage) in found {
            nodes.entry(name).or_default().node.usage = Some(usage);
        }
    }

    /// Puts the labels of all nodes, whatever is known of their usage.
    pub(crate) fn keep_node_labels(&self, labels: HashMap<String, Labels>) {
        *self
            .node_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner) = labels;
    }

    /// Namespaces that have pods.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        let pods = self
            .pod_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        pods.keys()
            .map(|(namespace, _)| namespace.clone())
            .collect()
    }

    /// Pods whose samples are not older than `oldest`, in order of their names. A pod is shown only when every container
    /// that is known of it has a usage, because a sum over some of them would mislead.
    pub(crate) fn pods(
        &self,
        wanted: impl Fn(&PodKey, &Labels) -> bool,
        oldest: Timestamp,
    ) -> Vec<PodUsage> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let labels = self
            .pod_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<PodUsage> = nodes
            .values()
            .flat_map(|node| &node.pods)
            .filter_map(|(key, containers)| {
                let labels = labels.get(key)?;
                if !wanted(key, labels) {
                    return None;
                }
                let recent = containers.values().map(|series| &series.recent);
                // The containers of a pod are sampled together; the youngest one limits what the pod has shown.
                let recent = recent.min_by_key(|recent| recent.len());
                let moments = recent.into_iter().flatten().copied().collect();
                let usage =
                    |(name, series): (&String, &Series)| Some((name.clone(), series.usage?));
                let containers = containers.iter().map(usage).collect::<Option<Vec<_>>>()?;
                let fresh = containers.iter().all(|(_, usage)| usage.at >= oldest);
                fresh.then(|| PodUsage {
                    key: key.clone(),
                    labels: labels.clone(),
                    containers,
                    moments,
                })
            })
            .collect();
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }

    /// Nodes whose samples are not older than `oldest`, in order of their names.
    pub(crate) fn nodes(
        &self,
        wanted: impl Fn(&str, &Labels) -> bool,
        oldest: Timestamp,
    ) -> Vec<NodeUsage> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let labels = self
            .node_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<NodeUsage> = nodes
            .iter()
            .filter_map(|(name, samples)| {
                let usage = samples.node.usage.filter(|usage| usage.at >= oldest)?;
                let labels = labels.get(name).cloned().unwrap_or_default();
                wanted(name, &labels).then(|| NodeUsage {
                    name: name.clone(),
                    labels,
                    usage,
                })
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

/// Where a namespace's pods are kept; no node has such a name.
fn origin(namespace: &str) -> String {
    format!("namespace/{namespace}")
}

fn read(series: &mut Series, lines: [Option<exposition::Line<'_>>; 3], now: Timestamp) {
    let [cpu, memory, started] = lines;
    let cpu = cpu.map(|line| Reading {
        at: line
            .time
            .and_then(|time| Timestamp::from_millisecond(time).ok())
            .unwrap_or(now),
        cpu_seconds: line.value,
    });
    series.read(
        cpu,
        memory.map(|line| line.value),
        started.map(|line| line.value),
        now,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
    }

    fn text(cpu: f64, memory: u64) -> String {
        let labels = "{container=\"web\",namespace=\"shop\",pod=\"web-1\"}";
        format!(
            "container_cpu_usage_seconds_total{labels} {cpu}\ncontainer_memory_working_set_bytes{labels} {memory}\n\
             node_cpu_usage_seconds_total {cpu}\nnode_memory_working_set_bytes {memory}\n"
        )
    }

    fn board() -> Board {
        let board = Board::default();
        board.put_pod(
            ("shop".into(), "web-1".into()),
            Labels::from([("app".into(), "web".into())]),
        );
        board.keep_nodes(HashMap::from([("n".into(), Labels::new())]));
        board
    }

    fn usage(board: &Board) -> Option<Usage> {
        board
            .pods(|_, _| true, at(-10_000))
            .first()
            .map(|pod| pod.containers[0].1)
    }

    #[test]
    fn a_rate_needs_two_samples_and_follows_the_newest() {
        let board = board();
        board.take("n", &text(10.0, 100), at(0));
        assert_eq!(usage(&board), None);
        board.take("n", &text(10.25, 200), at(1_000));
        let first = usage(&board).unwrap();
        assert_eq!(
            (first.cpu_nanos, first.memory_bytes, first.window_seconds),
            (250_000_000, 200, 1.0)
        );
        board.take("n", &text(11.25, 200), at(2_000));
        assert_eq!(usage(&board).unwrap().cpu_nanos, 1_000_000_000);
        assert_eq!(
            board.nodes(|_, _| true, at(0))[0].usage.cpu_nanos,
            1_000_000_000
        );
    }

    #[test]
    fn the_same_sample_again_changes_nothing() {
        let board = board();
        let labels = "{container=\"web\",namespace=\"shop\",pod=\"web-1\"}";
        let stamped = |cpu: f64, time: i64| {
            format!(
                "container_cpu_usage_seconds_total{labels} {cpu} {}",
                at(time).as_millisecond()
            )
        };
        board.take("n", &stamped(1.0, 0), at(5));
        board.take("n", &stamped(2.0, 1_000), at(1_005));
        let before = usage(&board);
        board.take("n", &stamped(2.0, 1_000), at(2_005));
        assert_eq!(usage(&board), before);
    }

    #[test]
    fn the_moments_of_the_last_samples_are_told_and_no_more() {
        let board = board();
        for second in 0..10 {
            let now = at(i64::from(second) * 1_000);
            board.take("n", &text(f64::from(second), 1), now);
        }
        let pods = board.pods(|_, _| true, at(0));
        let reported: Vec<Timestamp> = pods[0].moments.iter().map(|one| one.reported).collect();
        assert_eq!(reported, [at(6_000), at(7_000), at(8_000), at(9_000)]);
    }

    #[test]
    fn a_restarted_container_gives_no_wild_rate() {
        let board = board();
        board.take("n", &text(100.0, 1), at(0));
        board.take("n", &text(101.0, 1), at(1_000));
        board.take("n", &text(0.5, 1), at(2_000));
        assert_eq!(usage(&board).unwrap().cpu_nanos, 1_000_000_000);
        board.take("n", &text(1.0, 1), at(3_000));
        assert_eq!(usage(&board).unwrap().cpu_nanos, 500_000_000);
    }

    #[test]
    fn a_young_container_is_shown_with_its_first_sample() {
        let board = board();
        let started = at(0).as_millisecond() as f64 / 1_000.0;
        let labels = "{container=\"web\",namespace=\"shop\",pod=\"web-1\"}";
        let text = format!(
            "{}container_start_time_seconds{labels} {started}\n",
            text(1.0, 1)
        );
        board.take("n", &text, at(2_000));
        assert_eq!(usage(&board).unwrap().cpu_nanos, 500_000_000);
    }

    #[test]
    fn pods_and_nodes_that_are_gone_or_silent_are_not_shown() {
        let board = board();
        board.take("n", &text(1.0, 1), at(0));
        board.take("n", &text(2.0, 1), at(1_000));
        assert_eq!(
            board.pods(|_, labels| labels["app"] == "web", at(0)).len(),
            1
        );
        assert_eq!(board.pods(|_, _| true, at(1_001)), []);
        board.remove_pod(&("shop".into(), "web-1".into()));
        assert_eq!(usage(&board), None);
        board.keep_nodes(HashMap::new());
        assert_eq!(board.nodes(|_, _| true, at(0)), []);
    }
}

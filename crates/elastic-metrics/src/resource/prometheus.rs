//! CPU and memory from Prometheus by `resourceRules`. A namespace is asked for when somebody asks about it, all its pods at
//! once, and the answer serves everybody for a second.
//!
//! What Prometheus does not know is not shown, and a Prometheus that fails is an error: an autoscaler keeps its size at both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use super::samples::{Board, PodKey, Usage};
use crate::adapter::{Kinds, LabelledQuery, ResourceRule, ResourceRules};
use crate::custom::source::Source;
use crate::prometheus::Sample;

/// An answer is used again for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Namespaces asked for at the same time.
const CALLS: usize = 8;
/// Kubernetes' name for a pod's own sandbox in series of older kubelets.
const SANDBOX: &str = "POD";

/// What is asked for at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// All nodes.
    Nodes,
    /// All pods of a namespace.
    Namespace(String),
}

/// When a scope was asked for; held while it is, so that nobody asks for the same beside it.
type Asked = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// See the module.
pub(crate) struct PrometheusUsage {
    source: Arc<Source>,
    rules: ResourceRules,
    board: Arc<Board>,
    asked: Mutex<HashMap<Scope, Asked>>,
}

impl PrometheusUsage {
    pub(crate) fn new(source: Arc<Source>, rules: ResourceRules, board: Arc<Board>) -> Self {
        Self {
            source,
            rules,
            board,
            asked: Mutex::default(),
        }
    }

    /// Brings the board up to date about nodes, or about a namespace, or about all of them.
    pub(crate) async fn refresh(&self, wanted: &super::api::About<'_>) -> Result<(), String> {
        let known = self.board.namespaces();
        let scopes: Vec<Scope> = match wanted {
            super::api::About::Nodes => vec![Scope::Nodes],
            super::api::About::Pods(None) => known.iter().cloned().map(Scope::Namespace).collect(),
            // A namespace without pods has nothing to ask for; whoever makes names up costs Prometheus nothing.
            super::api::About::Pods(Some(namespace)) => {
                let found = known.get(*namespace).cloned();
                found.map(Scope::Namespace).into_iter().collect()
            }
        };
        self.forget_others(&known);
        futures::stream::iter(scopes)
            .map(|scope| self.refresh_one(scope))
            .buffer_unordered(CALLS)
            .try_collect::<()>()
            .await
    }

    async fn refresh_one(&self, scope: Scope) -> Result<(), String> {
        let asked = self.lock().entry(scope.clone()).or_default().clone();
        let mut at = asked.lock().await;
        if at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        match &scope {
            Scope::Nodes => self.ask_nodes().await?,
            Scope::Namespace(namespace) => self.ask_namespace(namespace).await?,
        }
        *at = Some(Instant::now());
        Ok(())
    }

    fn forget_others(&self, known: &BTreeSet<String>) {
        self.lock().retain(|scope, _| match scope {
            Scope::Nodes => true,
            Scope::Namespace(namespace) => known.contains(namespace),
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_namespace(&self, namespace: &str) -> Result<(), String> {
        let query = |rule: &ResourceRule, kinds: &Kinds| rule.container_query(namespace, kinds);
        let (cpu, memory) = self.ask_both(query).await?;
        let found = pods(namespace, &self.rules, &cpu, &memory);
        self.board.replace_pods(namespace, found);
        Ok(())
    }

    async fn ask_nodes(&self) -> Result<(), String> {
        let (cpu, memory) = self.ask_both(|rule, kinds| rule.node_query(kinds)).await?;
        let found = nodes(&self.rules, &cpu, &memory);
        self.board.replace_nodes(found);
        Ok(())
    }

    /// The series of CPU and of memory.
    async fn ask_both(
        &self,
        query: impl Fn(&ResourceRule, &Kinds) -> Result<LabelledQuery, crate::adapter::QueryError>,
    ) -> Result<(Labelled, Labelled), String> {
        let kinds = self.source.kinds();
        let query = |rule: &ResourceRule| query(rule, &kinds).map_err(|error| error.to_string());
        let (cpu, memory) = (query(&self.rules.cpu)?, query(&self.rules.memory)?);
        tokio::try_join!(self.ask(cpu), self.ask(memory))
    }

    async fn ask(&self, query: LabelledQuery) -> Result<Labelled, String> {
        let prometheus = self
            .source
            .prometheus()
            .ok_or("resourceRules need a Prometheus; give its address")?;
        let answered = prometheus.query(&query.text, None).await;
        let samples = answered.map_err(|error| error.to_string())?;
        Ok(Labelled {
            label: query.label,
            samples,
        })
    }
}

/// Series, and the label that names their objects.
struct Labelled {
    label: String,
    samples: Vec<Sample>,
}

impl Labelled {
    /// What one series says, by the object's name.
    fn named(&self) -> impl Iterator<Item = (&str, &Sample)> {
        let named = |sample| Some((name(sample, &self.label)?, sample));
        self.samples.iter().filter_map(named)
    }
}

fn name<'s>(sample: &'s Sample, label: &str) -> Option<&'s str> {
    let name = sample.labels.get(label)?.as_str();
    (!name.is_empty()).then_some(name)
}

/// What is known of one thing before both halves are there.
#[derive(Clone, Copy, Default)]
struct Halves<'s> {
    cpu: Option<&'s Sample>,
    memory: Option<&'s Sample>,
}

impl Halves<'_> {
    /// None when a half is missing or is no amount.
    fn usage(self, window_seconds: f64) -> Option<Usage> {
        let amount = |sample: &Sample| {
            (sample.value.is_finite() && sample.value >= 0.0).then_some(sample.value)
        };
        let (cpu, memory) = (self.cpu?, self.memory?);
        Some(Usage {
            cpu_nanos: (amount(cpu)? * 1e9).round() as u64,
            memory_bytes: amount(memory)? as u64,
            // The older half limits what the pair is worth.
            at: Timestamp::from_millisecond(cpu.at_ms.min(memory.at_ms)).ok()?,
            window_seconds,
        })
    }
}

fn pods(
    namespace: &str,
    rules: &ResourceRules,
    cpu: &Labelled,
    memory: &Labelled,
) -> BTreeMap<PodKey, BTreeMap<String, Option<Usage>>> {
    let mut halves: BTreeMap<(&str, &str), Halves<'_>> = BTreeMap::new();
    for (pod, sample) in cpu.named() {
        if let Some(container) = container(sample, &rules.cpu) {
            halves.entry((pod, container)).or_default().cpu = Some(sample);
        }
    }
    for (pod, sample) in memory.named() {
        if let Some(container) = container(sample, &rules.memory) {
            halves.entry((pod, container)).or_default().memory = Some(sample);
        }
    }
    let mut pods: BTreeMap<PodKey, BTreeMap<String, Option<Usage>>> = BTreeMap::new();
    for ((pod, container), halves) in halves {
        let key = (namespace.to_owned(), pod.to_owned());
        let usage = halves.usage(rules.window_seconds);
        pods.entry(key)
            .or_default()
            .insert(container.to_owned(), usage);
    }
    pods
}

/// Series of the pod as a whole, and of its sandbox, name no container.
fn container<'s>(sample: &'s Sample, rule: &ResourceRule) -> Option<&'s str> {
    name(sample, &rule.container_label).filter(|name| *name != SANDBOX)
}

fn nodes(rules: &ResourceRules, cpu: &Labelled, memory: &Labelled) -> Vec<(String, Usage)> {
    let mut halves: BTreeMap<&str, Halves<'_>> = BTreeMap::new();
    for (node, sample) in cpu.named() {
        halves.entry(node).or_default().cpu = Some(sample);
    }
    for (node, sample) in memory.named() {
        halves.entry(node).or_default().memory = Some(sample);
    }
    let usage = |(node, halves): (&str, Halves<'_>)| {
        Some((node.to_owned(), halves.usage(rules.window_seconds)?))
    };
    halves.into_iter().filter_map(usage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterConfig;

    fn rules() -> ResourceRules {
        let config = AdapterConfig::parse(include_str!("../adapter/sample.yaml")).unwrap();
        config.resource_rules.unwrap()
    }

    fn series(label: &str, values: &[(&[(&str, &str)], f64)]) -> Labelled {
        let sample = |(labels, value): &(&[(&str, &str)], f64)| Sample {
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            value: *value,
            at_ms: 1_700_000_000_000,
        };
        Labelled {
            label: label.to_owned(),
            samples: values.iter().map(sample).collect(),
        }
    }

    #[test]
    fn a_container_has_a_usage_when_both_halves_are_amounts() {
        let of =
            |pod: &'static str, container: &'static str| [("pod", pod), ("container", container)];
        let (web, log, nan, sandbox) = (
            of("web-1", "web"),
            of("web-1", "log"),
            of("web-2", "web"),
            of("web-1", "POD"),
        );
        let whole = [("pod", "web-1")];
        let cpu = series(
            "pod",
            &[
                (&web, 0.25),
                (&log, 0.5),
                (&nan, f64::NAN),
                (&sandbox, 1.0),
                (&whole, 3.0),
            ],
        );
        let memory = series("pod", &[(&web, 2048.0), (&nan, 1.0)]);
        let found = pods("shop", &rules(), &cpu, &memory);
        let pod = |name: &str| &found[&("shop".to_owned(), name.to_owned())];
        let usage = pod("web-1")["web"].unwrap();
        assert_eq!(
            (usage.cpu_nanos, usage.memory_bytes, usage.window_seconds),
            (250_000_000, 2048, 180.0)
        );
        assert_eq!(pod("web-1")["log"], None, "no memory is known");
        assert_eq!(pod("web-2")["web"], None, "its CPU is no number");
        assert_eq!(
            pod("web-1").len(),
            2,
            "the sandbox and the pod as a whole are no containers"
        );
    }

    #[test]
    fn pods_are_shown_whole_or_not_at_all_and_go_with_their_namespace() {
        let board = Board::default();
        for name in ["web-1", "web-2"] {
            board.put_pod(("shop".into(), name.into()), BTreeMap::new());
        }
        let usage = Usage {
            cpu_nanos: 1,
            memory_bytes: 1,
            at: Timestamp::UNIX_EPOCH,
            window_seconds: 60.0,
        };
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let containers =
            |second| BTreeMap::from([("a".to_owned(), Some(usage)), ("b".to_owned(), second)]);
        board.replace_pods(
            "shop",
            BTreeMap::from([
                (key("web-1"), containers(Some(usage))),
                (key("web-2"), containers(None)),
            ]),
        );
        let shown = |board: &Board| {
            let pods = board.pods(|_, _| true, Timestamp::UNIX_EPOCH);
            pods.into_iter().map(|pod| pod.key.1).collect::<Vec<_>>()
        };
        assert_eq!(shown(&board), ["web-1"]);
        board.replace_pods("shop", BTreeMap::new());
        assert_eq!(shown(&board), [""; 0]);
    }

    #[test]
    fn nodes_that_are_no_longer_named_are_not_shown() {
        let board = Board::default();
        let (one, two) = ([("node", "one")], [("node", "two")]);
        let both = series("node", &[(&one, 1.5), (&two, 2.0)]);
        board.replace_nodes(nodes(&rules(), &both, &both));
        assert_eq!(board.nodes(|_, _| true, Timestamp::UNIX_EPOCH).len(), 2);
        let less = series("node", &[(&one, 1.5)]);
        board.replace_nodes(nodes(&rules(), &both, &less));
        let left = board.nodes(|_, _| true, Timestamp::UNIX_EPOCH);
        assert_eq!(left.len(), 1);
        assert_eq!(
            (left[0].name.as_str(), left[0].usage.cpu_nanos),
            ("one", 1_500_000_000)
        );
    }
}

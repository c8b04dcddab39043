//! Affinity to nodes and to other pods.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorTerm, Pod, PodAffinityTerm, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::board::{Board, NodeInfo};
use crate::shared::objects::namespace;
use crate::shared::selector::{self, matches_requirement};

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_ref()
}

/// Whether a node carries what the pod's node selector and required node affinity ask for.
pub fn node_matches(pod: &Pod, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.labels();
    if !spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value))
    {
        return false;
    }
    let required = affinity(pod)
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, node))
    })
}

/// The sum of the weights of the preferred node terms that match.
pub fn preferred_node_weight(pod: &Pod, node: &NodeInfo) -> i64 {
    let preferred = affinity(pod)
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let terms = preferred.into_iter().flatten();
    terms
        .filter(|term| term_matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let values = |values: &Option<Vec<String>>| values.clone().unwrap_or_default();
    expressions.iter().all(|requirement| {
        let actual = node.labels().get(&requirement.key).map(String::as_str);
        matches_requirement(&requirement.operator, &values(&requirement.values), actual)
    }) && fields.iter().all(|requirement| {
        let actual = (requirement.key == "metadata.name").then(|| node.name());
        matches_requirement(&requirement.operator, &values(&requirement.values), actual)
    })
}

fn required_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let terms = affinity(pod).and_then(|affinity| affinity.pod_affinity.as_ref());
    terms
        .and_then(|terms| {
            terms
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn required_anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let terms = affinity(pod).and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    terms
        .and_then(|terms| {
            terms
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn preferred_terms(pod: &Pod) -> impl Iterator<Item = (&WeightedPodAffinityTerm, i64)> {
    let affinity = affinity(pod);
    let near = affinity
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|terms| {
            terms
                .preferred_during_scheduling_ignored_during_execution
                .as_deref()
        });
    let far = affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|terms| {
            terms
                .preferred_during_scheduling_ignored_during_execution
                .as_deref()
        });
    let near = near
        .unwrap_or_default()
        .iter()
        .map(|term| (term, i64::from(term.weight)));
    near.chain(
        far.unwrap_or_default()
            .iter()
            .map(|term| (term, -i64::from(term.weight))),
    )
}

/// Whether a pod forbids neighbours.
pub fn has_required_anti_affinity(pod: &Pod) -> bool {
    !required_anti_affinity(pod).is_empty()
}

/// Whether it matters to a pod which others are where.
pub fn minds_neighbours(pod: &Pod) -> bool {
    let has_spread = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.topology_spread_constraints.as_ref())
        .is_some_and(|constraints| !constraints.is_empty());
    has_spread
        || affinity(pod).is_some_and(|affinity| {
            affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some()
        })
}

/// Why a node does not suit a pod's neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The pod wants neighbours that are not there.
    Affinity,
    /// The pod does not want neighbours that are there.
    AntiAffinity,
    /// A neighbour does not want the pod.
    Existing,
}

type Domain = (String, String);

/// What the pods on the board mean for one incoming pod, by topology domain.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// For each required affinity term: its topology key and the domains that have a matching pod.
    wanted: Vec<(String, HashMap<String, usize>, bool)>,
    unwanted: HashMap<Domain, usize>,
    refusing: HashMap<Domain, usize>,
    preferred: HashMap<Domain, i64>,
}

/// Reads the board for one pod. Cheap when neither it nor any placed pod has such terms.
pub fn neighbours(board: &Board, pod: &Pod) -> Neighbours {
    let mut found = Neighbours::default();
    for term in required_affinity(pod) {
        let domains = domains(board, pod, term);
        found.wanted.push((
            term.topology_key.clone(),
            domains,
            term_selects(board, term, pod, pod),
        ));
    }
    for term in required_anti_affinity(pod) {
        for (value, count) in domains(board, pod, term) {
            *found
                .unwanted
                .entry((term.topology_key.clone(), value))
                .or_default() += count;
        }
    }
    for (term, weight) in preferred_terms(pod) {
        let term = &term.pod_affinity_term;
        for (value, count) in domains(board, pod, term) {
            let weight = weight * i64::try_from(count).unwrap_or(i64::MAX);
            *found
                .preferred
                .entry((term.topology_key.clone(), value))
                .or_default() += weight;
        }
    }
    for (node, other) in board.repelling.iter().filter_map(|uid| board.placed(uid)) {
        for term in required_anti_affinity(other) {
            if let Some(value) = node.labels().get(&term.topology_key)
                && term_selects(board, term, other, pod)
            {
                *found
                    .refusing
                    .entry((term.topology_key.clone(), value.clone()))
                    .or_default() += 1;
            }
        }
    }
    found
}

impl Neighbours {
    /// Whether the neighbours in a node's domains allow the pod there.
    pub fn check(&self, node: &NodeInfo) -> Option<Conflict> {
        let labels = node.labels();
        for (key, domains, selects_itself) in &self.wanted {
            // The first of a group that wants to be together may go anywhere.
            let is_first = *selects_itself && domains.is_empty();
            let has_neighbour = labels
                .get(key)
                .is_some_and(|value| is_first || domains.contains_key(value));
            if !has_neighbour {
                return Some(Conflict::Affinity);
            }
        }
        let is_in = |domains: &HashMap<Domain, usize>| {
            domains
                .keys()
                .any(|(key, value)| labels.get(key) == Some(value))
        };
        if is_in(&self.unwanted) {
            return Some(Conflict::AntiAffinity);
        }
        is_in(&self.refusing).then_some(Conflict::Existing)
    }

    /// The preferred terms' weight on a node.
    pub fn preference(&self, node: &NodeInfo) -> i64 {
        let labels = node.labels();
        let matching = self
            .preferred
            .iter()
            .filter(|((key, value), _)| labels.get(key) == Some(value));
        matching.map(|(_, weight)| *weight).sum()
    }
}

/// How many placed pods a term selects, by the value of its topology key.
fn domains(board: &Board, pod: &Pod, term: &PodAffinityTerm) -> HashMap<String, usize> {
    let mut domains = HashMap::new();
    for node in board.nodes.values() {
        let Some(value) = node.labels().get(&term.topology_key) else {
            continue;
        };
        let count = node
            .pods
            .values()
            .filter(|placed| term_selects(board, term, pod, &placed.pod))
            .count();
        if count > 0 {
            *domains.entry(value.clone()).or_default() += count;
        }
    }
    domains
}

/// Whether a term of `holder` selects `other`.
fn term_selects(board: &Board, term: &PodAffinityTerm, holder: &Pod, other: &Pod) -> bool {
    let other_namespace = namespace(&other.metadata);
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if listed.is_empty() => other_namespace == namespace(&holder.metadata),
        Some(by_labels) if selector::matches(by_labels, board.namespaces.get(other_namespace)) => {
            true
        }
        _ => listed.iter().any(|name| name == other_namespace),
    };
    let Some(by_labels) = &term.label_selector else {
        return false;
    };
    in_namespace
        && selector::matches(by_labels, other.metadata.labels.as_ref())
        && keys_agree(term.match_label_keys.as_deref(), holder, other, by_labels)
}

/// `matchLabelKeys`: the values of the holder's own labels count too.
fn keys_agree(
    keys: Option<&[String]>,
    holder: &Pod,
    other: &Pod,
    _selector: &LabelSelector,
) -> bool {
    let value = |pod: &Pod, key: &str| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels: &BTreeMap<_, _>| labels.get(key).cloned())
    };
    keys.unwrap_or_default()
        .iter()
        .all(|key| match value(holder, key) {
            Some(own) => value(other, key) == Some(own),
            None => true,
        })
}

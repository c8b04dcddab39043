//! Topology spread constraints: how evenly pods lie over zones or nodes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use super::affinity::node_matches;
use super::board::{Board, NodeInfo};
use super::filters::tolerates_all;
use crate::shared::objects::namespace;
use crate::shared::selector;

/// Why a node would make it uneven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unevenness {
    /// The node's domain has too many already.
    Skew,
    /// The node does not carry the topology key.
    MissingLabel,
}

#[derive(Debug)]
struct Constraint {
    key: String,
    max_skew: i64,
    is_required: bool,
    selects_itself: bool,
    counts: HashMap<String, i64>,
    least: i64,
}

/// The constraints of one incoming pod with the counts on the board.
#[derive(Debug, Default)]
pub struct Spread {
    constraints: Vec<Constraint>,
}

/// Reads the board for one pod.
pub fn spread(board: &Board, pod: &Pod) -> Spread {
    let given = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.topology_spread_constraints.as_deref());
    let constraints = given
        .unwrap_or_default()
        .iter()
        .map(|constraint| count(board, pod, constraint))
        .collect();
    Spread { constraints }
}

fn count(board: &Board, pod: &Pod, constraint: &TopologySpreadConstraint) -> Constraint {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in board
        .nodes
        .values()
        .filter(|node| is_eligible(node, pod, constraint))
    {
        let Some(value) = node.labels().get(&constraint.topology_key) else {
            continue;
        };
        let placed = node
            .pods
            .values()
            .filter(|placed| selects(constraint, pod, &placed.pod))
            .count();
        *counts.entry(value.clone()).or_default() += i64::try_from(placed).unwrap_or(i64::MAX);
    }
    let has_too_few = constraint
        .min_domains
        .is_some_and(|min| counts.len() < usize::try_from(min).unwrap_or(0));
    let least = if has_too_few {
        0
    } else {
        counts.values().copied().min().unwrap_or(0)
    };
    Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        is_required: constraint.when_unsatisfiable == "DoNotSchedule",
        selects_itself: selects(constraint, pod, pod),
        counts,
        least,
    }
}

fn is_eligible(node: &NodeInfo, pod: &Pod, constraint: &TopologySpreadConstraint) -> bool {
    let honours_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honours_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    (!honours_affinity || node_matches(pod, node)) && (!honours_taints || tolerates_all(pod, node))
}

fn selects(constraint: &TopologySpreadConstraint, pod: &Pod, other: &Pod) -> bool {
    let Some(by_labels) = &constraint.label_selector else {
        return false;
    };
    let label = |pod: &Pod, key: &String| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key).cloned())
    };
    let same_keys = constraint
        .match_label_keys
        .iter()
        .flatten()
        .all(|key| label(pod, key).is_none_or(|own| label(other, key) == Some(own)));
    other.metadata.deletion_timestamp.is_none()
        && namespace(&pod.metadata) == namespace(&other.metadata)
        && selector::matches(by_labels, other.metadata.labels.as_ref())
        && same_keys
}

impl Spread {
    /// Whether a required constraint speaks against a node.
    pub fn check(&self, node: &NodeInfo) -> Option<Unevenness> {
        for constraint in self
            .constraints
            .iter()
            .filter(|constraint| constraint.is_required)
        {
            let Some(value) = node.labels().get(&constraint.key) else {
                return Some(Unevenness::MissingLabel);
            };
            let count = constraint.counts.get(value).copied().unwrap_or(0)
                + i64::from(constraint.selects_itself);
            if count - constraint.least > constraint.max_skew {
                return Some(Unevenness::Skew);
            }
        }
        None
    }

    /// How many selected pods the preferred constraints find around a node; fewer is better. `None` without any.
    pub fn crowding(&self, node: &NodeInfo) -> Option<i64> {
        let preferred = self
            .constraints
            .iter()
            .filter(|constraint| !constraint.is_required);
        let counts = preferred.map(|constraint| {
            let value = node.labels().get(&constraint.key);
            value
                .and_then(|value| constraint.counts.get(value))
                .copied()
                .unwrap_or(0)
        });
        counts.reduce(|sum, count| sum + count)
    }
}

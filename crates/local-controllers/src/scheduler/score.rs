//! Which of the nodes that do is best. Upstream's scorers with their weights, except that a virtual node's emptiness
//! earns nothing: worker nodes get a bonus instead, so that owned capacity fills first. A pod that prefers the
//! virtual node by its own affinity is believed.

use super::affinity::preferred_node_weight;
use super::board::NodeInfo;
use super::filters::{Incoming, discouragements};

const SCORE_MAX: i64 = 100;
const TAINT_WEIGHT: i64 = 3;
const NODE_AFFINITY_WEIGHT: i64 = 2;
const NEIGHBOUR_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
/// As much as all other scores together can give, except what the pod itself asks for.
const WORKER_BONUS: i64 = SCORE_MAX * (TAINT_WEIGHT + SPREAD_WEIGHT);

/// The best node's name.
pub fn best<'a>(incoming: &Incoming<'_>, nodes: &[&'a NodeInfo]) -> Option<&'a str> {
    if let [only] = nodes {
        return Some(only.name());
    }
    let column = |score: &dyn Fn(&NodeInfo) -> i64| -> Vec<i64> {
        nodes.iter().map(|node| score(node)).collect()
    };
    let pod = incoming.pod;
    let taints = reversed(&column(&|node| discouragements(pod, node)));
    let affinity_raw = column(&|node| preferred_node_weight(pod, node));
    let affinity = scaled(&affinity_raw);
    let neighbours = stretched(&column(&|node| incoming.neighbours.preference(node)));
    let spread = reversed(&column(&|node| incoming.spread.crowding(node).unwrap_or(0)));
    let preferred = affinity_raw.iter().copied().max().unwrap_or(0);
    let total = |index: usize| {
        let node = nodes[index];
        // What a pod prefers by its own affinity is not outweighed by who owns the node.
        let is_chosen_kind = preferred > 0 && affinity_raw[index] == preferred;
        let capacity = if node.is_virtual() {
            if is_chosen_kind {
                WORKER_BONUS + 2 * SCORE_MAX
            } else {
                0
            }
        } else {
            WORKER_BONUS + least_allocated(incoming, node) + balanced(incoming, node)
        };
        TAINT_WEIGHT * taints[index]
            + NODE_AFFINITY_WEIGHT * affinity[index]
            + NEIGHBOUR_WEIGHT * neighbours[index]
            + SPREAD_WEIGHT * spread[index]
            + capacity
    };
    let rank = |index: usize| {
        (
            total(index),
            std::cmp::Reverse(nodes[index].pods.len()),
            std::cmp::Reverse(index),
        )
    };
    (0..nodes.len())
        .max_by_key(|index| rank(*index))
        .map(|index| nodes[index].name())
}

fn least_allocated(incoming: &Incoming<'_>, node: &NodeInfo) -> i64 {
    let free = |wanted: i64, used: i64, has: i64| {
        let left = has - used - wanted;
        if has <= 0 || left < 0 {
            0
        } else {
            left.saturating_mul(SCORE_MAX) / has
        }
    };
    let (request, has) = (&incoming.request, &node.allocatable);
    let cpu = free(
        request.scored_cpu_millis,
        node.scored_cpu_millis,
        has.cpu_millis,
    );
    let memory = free(
        request.scored_memory_bytes,
        node.scored_memory_bytes,
        has.memory_bytes,
    );
    (cpu + memory) / 2
}

fn balanced(incoming: &Incoming<'_>, node: &NodeInfo) -> i64 {
    let share = |wanted: i64, used: i64, has: i64| {
        if has <= 0 {
            1.0
        } else {
            ((wanted + used) as f64 / has as f64).min(1.0)
        }
    };
    let (request, used, has) = (&incoming.request.required, &node.used, &node.allocatable);
    let cpu = share(request.cpu_millis, used.cpu_millis, has.cpu_millis);
    let memory = share(request.memory_bytes, used.memory_bytes, has.memory_bytes);
    ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
}

/// The most gets the full score, in proportion.
fn scaled(values: &[i64]) -> Vec<i64> {
    let most = values.iter().copied().max().unwrap_or(0);
    values
        .iter()
        .map(|value| {
            if most > 0 {
                value * SCORE_MAX / most
            } else {
                0
            }
        })
        .collect()
}

/// The least gets the full score, in proportion.
fn reversed(values: &[i64]) -> Vec<i64> {
    let most = values.iter().copied().max().unwrap_or(0);
    values
        .iter()
        .map(|value| {
            if most > 0 {
                SCORE_MAX - value * SCORE_MAX / most
            } else {
                SCORE_MAX
            }
        })
        .collect()
}

/// The range between the least and the most is stretched over the scores.
fn stretched(values: &[i64]) -> Vec<i64> {
    let (least, most) = (
        values.iter().copied().min().unwrap_or(0),
        values.iter().copied().max().unwrap_or(0),
    );
    let width = most - least;
    values
        .iter()
        .map(|value| {
            if width > 0 {
                (value - least) * SCORE_MAX / width
            } else {
                0
            }
        })
        .collect()
}

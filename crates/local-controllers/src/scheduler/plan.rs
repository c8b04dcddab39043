//! The decision: a node for a pod, or why there is none.

use k8s_openapi::api::core::v1::Pod;

use super::board::Board;
use super::filters::{Incoming, refuse};
use super::fit_error::FitError;
use super::score::best;

/// Finds the node for a pod.
///
/// # Errors
/// Why no node does.
pub fn choose(board: &Board, pod: &Pod) -> Result<String, FitError> {
    let incoming = Incoming::new(board, pod);
    let never_preempts = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.preemption_policy.as_deref())
        == Some("Never");
    let mut error = FitError::new(never_preempts);
    let mut fitting = Vec::new();
    for node in board.nodes.values() {
        match refuse(&incoming, node) {
            None => fitting.push(node),
            Some(refusal) => error.add(refusal),
        }
    }
    best(&incoming, &fitting).map(str::to_owned).ok_or(error)
}

#[cfg(test)]
mod tests;

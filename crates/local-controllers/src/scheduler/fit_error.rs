//! The sentence that says why no node does, in upstream's words.

use std::collections::BTreeMap;

use super::filters::Refusal;

/// Collects the refusals of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    resolvable: usize,
    never_preempts: bool,
}

impl FitError {
    /// An error of a pod that may not push others away.
    pub fn new(never_preempts: bool) -> Self {
        FitError {
            never_preempts,
            ..FitError::default()
        }
    }

    /// Adds a node's refusal.
    pub fn add(&mut self, refusal: Refusal) {
        self.nodes += 1;
        self.resolvable += usize::from(refusal.is_resolvable);
        for reason in refusal.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

impl std::fmt::Display for FitError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return formatter.write_str("no nodes available to schedule pods");
        }
        let available = format!("0/{} nodes are available:", self.nodes);
        write!(
            formatter,
            "{available} {}.",
            join(
                self.reasons
                    .iter()
                    .map(|(reason, count)| (*count, reason.as_str()))
            )
        )?;
        if self.never_preempts {
            return formatter.write_str(" preemption: not eligible due to preemptionPolicy=Never.");
        }
        let outcome = [
            (
                self.resolvable,
                "No preemption victims found for incoming pod",
            ),
            (
                self.nodes - self.resolvable,
                "Preemption is not helpful for scheduling",
            ),
        ];
        let outcome = join(outcome.into_iter().filter(|(count, _)| *count > 0));
        write!(
            formatter,
            " no new claims to deallocate, preemption: {available} {outcome}."
        )
    }
}

fn join<'a>(counted: impl Iterator<Item = (usize, &'a str)>) -> String {
    let mut parts: Vec<String> = counted
        .map(|(count, reason)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    parts.join(", ")
}

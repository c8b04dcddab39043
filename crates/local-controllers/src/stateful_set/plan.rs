//! What a stateful set does next: which numbers to make, which pods to remove, in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{first_ordinal, ordinal, revision};
use super::status::available_in;
use crate::shared::objects::{is_finished, name, phase};

/// What the decision looks at.
pub struct State<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// The revision of pods that are not to be updated yet.
    pub current: &'a str,
    /// The revision of the set's template.
    pub update: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make the pod with that number from that revision.
    Create(i32, String),
    /// Remove a pod; it comes again if its number is wanted.
    Delete(Arc<Pod>),
    /// Remove a pod that has ended, to make it again.
    Replace(Arc<Pod>),
}

/// The steps, and the pods whose numbers are not wanted any more.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Highest number first.
    pub condemned: Vec<Arc<Pod>>,
}

/// Whether updates are rolled out by the controller.
pub fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// Pods below this number, counted from the first, keep the current revision.
fn partition(set: &StatefulSet) -> i32 {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
}

/// Decides.
pub fn plan(state: &State<'_>) -> Plan {
    let spec = state.set.spec.as_ref();
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
    let first = first_ordinal(state.set);
    let wanted = first..first.saturating_add(replicas);
    let mut by_number: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    let mut condemned = BTreeMap::new();
    for pod in state.pods {
        let Some(number) = ordinal(state.set, name(&pod.metadata)) else {
            continue;
        };
        if wanted.contains(&number) {
            by_number.insert(number, pod);
        } else {
            condemned.insert(number, pod);
        }
    }
    let mut plan = Plan {
        steps: Vec::new(),
        condemned: condemned
            .values()
            .rev()
            .map(|pod| Arc::clone(pod))
            .collect(),
    };
    if state.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let is_parallel =
        spec.and_then(|spec| spec.pod_management_policy.as_deref()) == Some("Parallel");
    let first_unhealthy = by_number
        .values()
        .chain(condemned.values())
        .find(|pod| !is_healthy(pod))
        .map(|pod| name(&pod.metadata).to_owned());
    let is_done = fill(state, wanted, &by_number, is_parallel, &mut plan.steps)
        && shrink(state, first_unhealthy.as_deref(), is_parallel, &mut plan);
    if is_done && is_rolling(state.set) {
        plan.steps.extend(roll(state, &by_number, first));
    }
    plan
}

/// Makes missing pods. Returns whether the next part may go on.
fn fill(
    state: &State<'_>,
    wanted: std::ops::Range<i32>,
    by_number: &BTreeMap<i32, &Arc<Pod>>,
    is_parallel: bool,
    steps: &mut Vec<Step>,
) -> bool {
    let first = wanted.start;
    for number in wanted {
        let Some(pod) = by_number.get(&number) else {
            steps.push(Step::Create(number, revision_for(state, number - first)));
            if !is_parallel {
                return false;
            }
            continue;
        };
        if is_finished(pod) {
            if !is_going(pod) {
                steps.push(Step::Replace(Arc::clone(pod)));
            }
            if !is_parallel {
                return false;
            }
            continue;
        }
        let is_available =
            available_in(state.set, pod, state.now).is_some_and(|left| left == Duration::ZERO);
        if !is_parallel && (is_going(pod) || !is_available) {
            return false;
        }
    }
    true
}

/// Removes pods whose numbers are not wanted, highest first. Returns whether the next part may go on.
fn shrink(
    state: &State<'_>,
    first_unhealthy: Option<&str>,
    is_parallel: bool,
    plan: &mut Plan,
) -> bool {
    for pod in &plan.condemned {
        if is_going(pod) {
            if !is_parallel {
                return false;
            }
            continue;
        }
        let is_available =
            available_in(state.set, pod, state.now).is_some_and(|left| left == Duration::ZERO);
        if !is_parallel && !is_available && first_unhealthy != Some(name(&pod.metadata)) {
            return false;
        }
        plan.steps.push(Step::Delete(Arc::clone(pod)));
        if !is_parallel {
            return false;
        }
    }
    true
}

/// Removes the highest pod that is of an old revision, once all above it are healthy.
fn roll(state: &State<'_>, by_number: &BTreeMap<i32, &Arc<Pod>>, first: i32) -> Option<Step> {
    for (number, pod) in by_number.iter().rev() {
        if number - first < partition(state.set) {
            return None;
        }
        if revision(pod) != state.update && !is_going(pod) {
            return Some(Step::Delete(Arc::clone(pod)));
        }
        let is_available =
            available_in(state.set, pod, state.now).is_some_and(|left| left == Duration::ZERO);
        if is_going(pod) || !is_available {
            return None;
        }
    }
    None
}

fn revision_for(state: &State<'_>, position: i32) -> String {
    let keeps_current = is_rolling(state.set) && position < partition(state.set);
    if keeps_current {
        state.current
    } else {
        state.update
    }
    .to_owned()
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_healthy(pod: &Pod) -> bool {
    phase(pod) == "Running" && crate::shared::objects::is_ready(pod) && !is_going(pod)
}

#[cfg(test)]
mod tests;

//! How many pods each set of a deployment should have next.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::sets::{available, revision, size, sized_for_max, sort_by_age, sum};
use crate::shared::objects::name;

type Sets = Vec<Arc<ReplicaSet>>;

/// A deployment's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The wanted replicas.
    pub replicas: i32,
    /// How many more there may be meanwhile.
    pub surge: i32,
    /// How many fewer may be available meanwhile.
    pub unavailable: i32,
    /// Whether the sets are rolled over, not recreated.
    pub is_rolling: bool,
}

/// A set's new size.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The set.
    pub set: Arc<ReplicaSet>,
    /// Its new size; the same when only its annotations are behind.
    pub to: i32,
}

impl Bounds {
    /// Reads a deployment.
    pub fn of(deployment: &Deployment) -> Self {
        let Some(spec) = &deployment.spec else {
            return Bounds {
                replicas: 0,
                surge: 0,
                unavailable: 0,
                is_rolling: true,
            };
        };
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let is_rolling =
            strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        if !is_rolling {
            return Bounds {
                replicas,
                surge: 0,
                unavailable: 0,
                is_rolling,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling
            .and_then(|rolling| rolling.max_surge.as_ref())
            .unwrap_or(&quarter);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .unwrap_or(&quarter);
        let surge = resolve(surge, replicas, true);
        let mut unavailable = resolve(unavailable, replicas, false);
        if surge == 0 && unavailable == 0 {
            // Both rounded away: something must be able to move.
            unavailable = 1;
        }
        Bounds {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
            is_rolling,
        }
    }
}

fn resolve(value: &IntOrString, total: i32, rounds_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent * i64::from(total);
            let rounded = if rounds_up {
                (hundredths + 99).div_euclid(100)
            } else {
                hundredths.div_euclid(100)
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

fn active(sets: impl IntoIterator<Item = Arc<ReplicaSet>>) -> Sets {
    sets.into_iter().filter(|set| size(set) > 0).collect()
}

/// What the new set of a rollout may have, given everything that runs.
pub fn new_set_size(bounds: Bounds, current: i32, all: i32) -> i32 {
    if !bounds.is_rolling {
        return bounds.replicas;
    }
    let room = bounds.replicas + bounds.surge - all;
    if room <= 0 {
        return current;
    }
    current + room.min(bounds.replicas - current)
}

/// The next step of a rolling update: first the new set up, then old ones down. Empty when nothing can move.
pub fn roll(bounds: Bounds, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let all = size(new) + sum(old, size);
    let wanted = if size(new) > bounds.replicas {
        bounds.replicas
    } else {
        new_set_size(bounds, size(new), all)
    };
    if wanted != size(new) {
        return vec![Resize {
            set: Arc::clone(new),
            to: wanted,
        }];
    }
    shrink_old(bounds, new, old)
}

fn shrink_old(bounds: Bounds, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let mut old = active(old.iter().cloned());
    if old.is_empty() {
        return Vec::new();
    }
    sort_by_age(&mut old);
    let min_available = bounds.replicas - bounds.unavailable;
    let all = size(new) + sum(&old, size);
    let new_unavailable = size(new) - available(new);
    let cleanup_max = all - min_available - new_unavailable;
    if cleanup_max <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|set| size(set)).collect();
    // Unhealthy old pods serve nobody and go first.
    let mut cleaned = 0;
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).max(0);
        let less = unhealthy.min(cleanup_max - cleaned);
        *size -= less;
        cleaned += less;
    }
    let mut spare = available(new) + sum(&old, available) - min_available;
    for size in &mut sizes {
        let less = (*size).min(spare.max(0));
        *size -= less;
        spare -= less;
    }
    resizes(old, &sizes)
}

fn resizes(sets: Sets, sizes: &[i32]) -> Vec<Resize> {
    let pairs = sets.into_iter().zip(sizes);
    pairs
        .filter(|(set, to)| size(set) != **to)
        .map(|(set, to)| Resize { set, to: *to })
        .collect()
}

/// Empties every old set.
pub fn empty_old(old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    active(old.iter().cloned())
        .into_iter()
        .map(|set| Resize { set, to: 0 })
        .collect()
}

/// Follows a change of the deployment's replicas, outside of a rollout's steps.
pub fn scale(
    bounds: Bounds,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<Resize> {
    if let Some(only) = active_or_latest(new, old) {
        return vec![Resize {
            set: only,
            to: bounds.replicas,
        }];
    }
    let is_saturated =
        new.is_some_and(|new| size(new) == bounds.replicas && available(new) == bounds.replicas);
    if is_saturated {
        return empty_old(old);
    }
    if bounds.is_rolling {
        proportionally(bounds, new, old)
    } else {
        Vec::new()
    }
}

/// The only set with pods, or the latest when none has any.
fn active_or_latest(
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Option<Arc<ReplicaSet>> {
    let with_pods = active(new.cloned().into_iter().chain(old.iter().cloned()));
    match with_pods.as_slice() {
        [] => new
            .or_else(|| {
                old.iter()
                    .max_by_key(|set| set.metadata.creation_timestamp.as_ref())
            })
            .cloned(),
        [only] => Some(Arc::clone(only)),
        _ => None,
    }
}

fn proportionally(
    bounds: Bounds,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<Resize> {
    let mut sets = active(new.cloned().into_iter().chain(old.iter().cloned()));
    let allowed = if bounds.replicas > 0 {
        bounds.replicas + bounds.surge
    } else {
        0
    };
    let to_add = allowed - sum(&sets, size);
    // Growing prefers the newer of equal sets, shrinking the older.
    sets.sort_by(|one, other| {
        let by_age = one
            .metadata
            .creation_timestamp
            .cmp(&other.metadata.creation_timestamp);
        size(other)
            .cmp(&size(one))
            .then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = share(bounds, set, to_add, added);
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    sets.into_iter()
        .zip(sizes)
        .map(|(set, to)| Resize { set, to })
        .collect()
}

fn share(bounds: Bounds, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = if bounds.replicas == 0 {
        -size(set)
    } else {
        let before = sized_for_max(set)
            .filter(|max| *max > 0)
            .unwrap_or(bounds.replicas + bounds.surge);
        let scaled =
            f64::from(size(set)) * f64::from(bounds.replicas + bounds.surge) / f64::from(before);
        scaled.round() as i32 - size(set)
    };
    let left = to_add - added;
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// The old sets beyond the history's limit that can go.
pub fn surplus_history(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> Sets {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let mut sets: Sets = old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .cloned()
        .collect();
    let surplus = sets
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    sets.sort_by(|one, other| {
        revision(one)
            .cmp(&revision(other))
            .then_with(|| name(&one.metadata).cmp(name(&other.metadata)))
    });
    sets.truncate(surplus);
    sets.retain(|set| {
        let status = set.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        size(set) == 0
            && status.is_none_or(|status| status.replicas == 0)
            && observed >= set.metadata.generation
    });
    sets
}

#[cfg(test)]
mod tests;

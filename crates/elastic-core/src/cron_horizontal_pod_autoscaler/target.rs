//! What a run does to its target, and the sentences it is told with.

use super::TargetNumbers;

/// Targets of this kind are not scaled themselves, their bounds are.
pub const HPA_KIND: &str = "HorizontalPodAutoscaler";

/// The group of an `apiVersion`. One without a slash is a version of the core group.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// A HorizontalPodAutoscaler before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaSize {
    /// `spec.minReplicas`.
    pub min: i32,
    /// `spec.maxReplicas`.
    pub max: i32,
    /// Replicas asked of the workload it scales.
    pub current: i32,
}

/// What a run does to a HorizontalPodAutoscaler and to the workload it scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaStep {
    /// `spec.minReplicas` afterwards.
    pub min: i32,
    /// `spec.maxReplicas` afterwards.
    pub max: i32,
    /// Replicas to ask of the workload; none: there are enough, the autoscaler lowers them when it can.
    pub replicas: Option<i32>,
}

/// The rules of the original, with two holes closed: a minimum below the current count is raised when the count happens to
/// be the target already, and 0 means 0 although an autoscaler's minimum is at least 1 (it rests while its workload is at 0).
pub fn decide_hpa(target: i32, hpa: HpaSize) -> HpaStep {
    let HpaSize { min, max, current } = hpa;
    if target == 0 && min > 0 {
        return HpaStep {
            min,
            max,
            replicas: (current > 0).then_some(0),
        };
    }
    let lowered_or_raised = target < min || current <= target;
    HpaStep {
        min: if lowered_or_raised { target } else { min },
        max: max.max(target),
        replicas: (current < target).then_some(target),
    }
}

/// What was done.
pub fn scaled_message(old: i32, new: i32) -> String {
    format!("current replicas:{old}, desired replicas:{new}.")
}

/// What was not done, because the autoscaler has enough.
pub fn skipped_for_hpa(name: &str, namespace: &str, current: i32, desired: i32) -> String {
    format!(
        "Skip scale replicas because HPA {name} in namespace {namespace} current replicas:{current} >= desired replicas:{desired}."
    )
}

/// What a window gave back.
pub fn restored_message(numbers: TargetNumbers) -> String {
    let parts = [
        ("replicas", numbers.replicas),
        ("minReplicas", numbers.min_replicas),
        ("maxReplicas", numbers.max_replicas),
    ];
    let given: Vec<String> = (parts.iter())
        .filter_map(|(name, number)| Some(format!("{name}:{}", (*number)?)))
        .collect();
    if given.is_empty() {
        return "there was nothing to restore.".to_owned();
    }
    format!("restored {}.", given.join(", "))
}

/// Why a run was given up.
pub fn retries_exhausted(
    kind: &str,
    name: &str,
    namespace: &str,
    size: i32,
    retries: u32,
    error: &str,
) -> String {
    format!(
        "failed to scale {kind} {name} in {namespace} namespace to {size} after retrying {retries} times and exit,because of {error}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds before, target, current; bounds and replicas after.
    type Row = ((i32, i32), i32, i32, (i32, i32), i32);

    const TABLE: [Row; 7] = [
        // The original leaves 1/10 here: issue 87, "at least 5 from now" was meant.
        ((1, 10), 5, 5, (5, 10), 5),
        ((1, 10), 4, 5, (1, 10), 5),
        ((1, 10), 6, 5, (6, 10), 6),
        ((5, 10), 5, 5, (5, 10), 5),
        ((5, 10), 4, 5, (4, 10), 5),
        ((5, 10), 6, 5, (6, 10), 6),
        ((5, 10), 11, 5, (11, 11), 11),
    ];

    #[test]
    fn the_documented_table_holds() {
        for ((min, max), target, current, bounds, replicas) in TABLE {
            let step = decide_hpa(target, HpaSize { min, max, current });
            let after = ((step.min, step.max), step.replicas.unwrap_or(current));
            assert_eq!(
                after,
                (bounds, replicas),
                "{min}/{max} to {target} at {current}"
            );
        }
    }

    #[test]
    fn the_minimum_follows_when_the_count_is_the_target_already() {
        let hpa = HpaSize {
            min: 2,
            max: 10,
            current: 3,
        };
        let step = decide_hpa(3, hpa);
        assert_eq!((step.min, step.replicas), (3, None));
    }

    #[test]
    fn nought_is_nought_and_leaves_the_bounds() {
        let hpa = HpaSize {
            min: 2,
            max: 10,
            current: 3,
        };
        let expected = HpaStep {
            min: 2,
            max: 10,
            replicas: Some(0),
        };
        assert_eq!(decide_hpa(0, hpa), expected);
        let asleep = HpaSize { current: 0, ..hpa };
        let awake = decide_hpa(4, asleep);
        assert_eq!((awake.min, awake.replicas), (4, Some(4)));
    }

    #[test]
    fn an_api_version_without_a_slash_is_of_the_core_group() {
        assert_eq!(group_of("v1"), "");
        assert_eq!(group_of("apps/v1"), "apps");
        assert_eq!(group_of("/"), "");
        assert_eq!(group_of(""), "");
    }
}

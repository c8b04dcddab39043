//! The order in which pods go: each one's deletion cost.

use crate::elastic_workload::Bounds;

/// A pod of one revision of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadPod {
    /// Its subset, if it has one.
    pub subset: Option<usize>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it has a node.
    pub bound: bool,
    /// Seconds since the epoch.
    pub created: i64,
    /// Decides between pods that are alike.
    pub name: String,
}

const STEP: i32 = 100;

/// The cost of each pod: those within a subset's maximum 100 × (subsets − index), surplus ones −100 × (index + 1), and those
/// of no subset less than all. Lower costs go first: surplus, then the last subset, then the ones before it.
pub fn deletion_costs(bounds: &[Bounds], pods: &[SpreadPod]) -> Vec<i32> {
    let subsets = i32::try_from(bounds.len()).unwrap_or(i32::MAX / STEP - 1);
    let mut costs = vec![-STEP * (subsets + 1); pods.len()];
    for (index, bounds) in bounds.iter().enumerate() {
        let number = i32::try_from(index).unwrap_or(subsets);
        let mut here: Vec<usize> = (0..pods.len())
            .filter(|pod| pods[*pod].subset == Some(index))
            .collect();
        // Those that serve stay, older ones before younger ones.
        here.sort_by_key(|pod| {
            let pod = &pods[*pod];
            (!pod.ready, !pod.bound, pod.created, pod.name.clone())
        });
        let kept = bounds
            .max
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        for (place, pod) in here.into_iter().enumerate() {
            costs[pod] = if place < kept {
                STEP * (subsets - number)
            } else {
                -STEP * (number + 1)
            };
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(subset: Option<usize>, ready: bool, created: i64) -> SpreadPod {
        SpreadPod {
            subset,
            ready,
            bound: true,
            created,
            name: format!("p{created}"),
        }
    }

    #[test]
    fn costs_are_those_of_the_reference() {
        let bounds = [
            Bounds {
                min: 0,
                max: Some(2),
            },
            Bounds {
                min: 0,
                max: Some(1),
            },
            Bounds { min: 0, max: None },
        ];
        let pods = [
            pod(Some(0), true, 1),
            pod(Some(0), false, 2),
            pod(Some(0), true, 3),
            pod(Some(1), true, 4),
            pod(Some(1), true, 5),
            pod(Some(2), true, 6),
            pod(None, true, 7),
        ];
        let costs = deletion_costs(&bounds, &pods);
        assert_eq!(costs, [300, -100, 300, 200, -200, 100, -400]);
    }

    proptest! {
        #[test]
        fn surplus_goes_before_all_others_and_later_subsets_before_earlier_ones(
            pods in proptest::collection::vec((0usize..3, any::<bool>(), 0i64..50), 0..30), max in 0u32..6
        ) {
            let bounds = [Bounds { min: 0, max: Some(max) }, Bounds { min: 0, max: Some(max) }, Bounds { min: 0, max: None }];
            let pods: Vec<SpreadPod> =
                pods.into_iter().map(|(subset, ready, created)| pod(Some(subset), ready, created)).collect();
            let costs = deletion_costs(&bounds, &pods);
            for (subset, limit) in [(0, max), (1, max)] {
                let kept = (0..pods.len()).filter(|index| pods[*index].subset == Some(subset) && costs[*index] > 0).count();
                let all = pods.iter().filter(|pod| pod.subset == Some(subset)).count();
                prop_assert_eq!(kept, all.min(usize::try_from(limit).unwrap()));
            }
            for (one, cost) in pods.iter().zip(&costs) {
                for (other, other_cost) in pods.iter().zip(&costs) {
                    if *cost > 0 && *other_cost > 0 {
                        prop_assert!((cost > other_cost) == (one.subset < other.subset));
                    }
                }
            }
        }
    }
}

//! Who is asked to change now, so that the shares are reached in the right order.
//!
//! On the way up everybody gets their share at once. On the way down the units go first, and the source is lowered only
//! after the pods the units no longer want are really gone: a replica on an owned node is never removed while a
//! serverless one that could go instead still lives.

use super::Distribution;

/// What is known about one child Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildState {
    /// `spec.replicas` as it stands.
    pub wanted: u32,
    /// Pods that exist, also the ones that are being removed.
    pub pods: u32,
}

/// The source and the units, in the order of the spec. A unit that has no Deployment yet counts as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleState {
    /// The source.
    pub source: ChildState,
    /// The units.
    pub units: Vec<ChildState>,
    /// Pods of units that are no longer in the spec.
    pub removed_unit_pods: u32,
}

/// One write of `spec.replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildAction {
    /// Ask the source for this many.
    SetSource(u32),
    /// Ask the unit at this index for this many.
    SetUnit(usize, u32),
}

/// Why the source still has more than its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldReason {
    /// Serverless pods that must be gone first.
    pub serverless_pods: u32,
}

/// What to write now, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalePlan {
    /// Writes, units before the source on the way down.
    pub actions: Vec<ChildAction>,
    /// Present when the source is to be lowered later.
    pub hold: Option<HoldReason>,
}

/// Compares shares and state. Applying the result again and again, with pods coming and going in between, reaches the shares.
pub fn plan_scale(shares: &Distribution, state: &ScaleState) -> ScalePlan {
    let mut plan = ScalePlan::default();
    if shares.source > state.source.wanted {
        plan.actions.push(ChildAction::SetSource(shares.source));
    }
    for (index, (share, unit)) in shares.units.iter().zip(&state.units).enumerate() {
        if share > &unit.wanted {
            plan.actions.push(ChildAction::SetUnit(index, *share));
        }
    }
    for (index, (share, unit)) in shares.units.iter().zip(&state.units).enumerate().rev() {
        if share < &unit.wanted {
            plan.actions.push(ChildAction::SetUnit(index, *share));
        }
    }
    if shares.source < state.source.wanted {
        let surplus: u32 = shares
            .units
            .iter()
            .zip(&state.units)
            .map(|(share, unit)| {
                unit.pods
                    .saturating_sub(*share)
                    .max(unit.wanted.saturating_sub(*share))
            })
            .sum::<u32>()
            + state.removed_unit_pods;
        if surplus == 0 {
            plan.actions.push(ChildAction::SetSource(shares.source));
        } else {
            plan.hold = Some(HoldReason {
                serverless_pods: surplus,
            });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bounds, distribute};
    use super::*;

    fn child(wanted: u32, pods: u32) -> ChildState {
        ChildState { wanted, pods }
    }

    #[test]
    fn a_rise_reaches_source_and_units_at_once() {
        let shares = Distribution {
            source: 4,
            units: vec![46],
            unplaced: 0,
        };
        let state = ScaleState {
            source: child(2, 2),
            units: vec![child(0, 0)],
            removed_unit_pods: 0,
        };
        let plan = plan_scale(&shares, &state);
        assert_eq!(
            plan.actions,
            [ChildAction::SetSource(4), ChildAction::SetUnit(0, 46)]
        );
        assert_eq!(plan.hold, None);
    }

    #[test]
    fn the_source_waits_until_the_last_serverless_pod_is_gone() {
        let shares = Distribution {
            source: 2,
            units: vec![0],
            unplaced: 0,
        };
        let mut state = ScaleState {
            source: child(4, 4),
            units: vec![child(46, 46)],
            removed_unit_pods: 0,
        };
        assert_eq!(
            plan_scale(&shares, &state),
            ScalePlan {
                actions: vec![ChildAction::SetUnit(0, 0)],
                hold: Some(HoldReason {
                    serverless_pods: 46
                })
            }
        );
        state.units = vec![child(0, 1)];
        assert_eq!(
            plan_scale(&shares, &state),
            ScalePlan {
                actions: vec![],
                hold: Some(HoldReason { serverless_pods: 1 })
            }
        );
        state.units = vec![child(0, 0)];
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetSource(2)]
        );
    }

    #[test]
    fn units_are_emptied_last_to_first() {
        let shares = Distribution {
            source: 4,
            units: vec![0, 0],
            unplaced: 0,
        };
        let state = ScaleState {
            source: child(4, 4),
            units: vec![child(3, 3), child(5, 5)],
            removed_unit_pods: 0,
        };
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetUnit(1, 0), ChildAction::SetUnit(0, 0)]
        );
    }

    #[test]
    fn nothing_is_written_when_everything_is_as_wanted() {
        let shares = Distribution {
            source: 4,
            units: vec![2],
            unplaced: 0,
        };
        let state = ScaleState {
            source: child(4, 4),
            units: vec![child(2, 2)],
            removed_unit_pods: 0,
        };
        assert_eq!(plan_scale(&shares, &state), ScalePlan::default());
    }

    /// A step of a simulated cluster: the wanted total changes, or some pods come or go.
    #[derive(Clone, Debug)]
    enum Step {
        Want(u32),
        Pods(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        proptest::collection::vec(
            prop_oneof![
                (0u32..60).prop_map(Step::Want),
                any::<u8>().prop_map(Step::Pods)
            ],
            1..60,
        )
    }

    fn apply(state: &mut ScaleState, plan: &ScalePlan) {
        for action in &plan.actions {
            match *action {
                ChildAction::SetSource(wanted) => state.source.wanted = wanted,
                ChildAction::SetUnit(index, wanted) => state.units[index].wanted = wanted,
            }
        }
    }

    fn move_pods(child: &mut ChildState, by: u32) {
        child.pods = if child.pods < child.wanted {
            (child.pods + by).min(child.wanted)
        } else {
            child.pods.saturating_sub(by).max(child.wanted)
        };
    }

    proptest! {
        #[test]
        fn no_owned_replica_goes_while_a_surplus_serverless_one_lives(steps in steps(), max in 1u32..10, unit_max in 1u32..30) {
            let source = Bounds { min: 1, max: Some(max) };
            let units = [Bounds { min: 0, max: Some(unit_max) }, Bounds { min: 0, max: None }];
            let mut state = ScaleState { units: vec![ChildState::default(); 2], ..ScaleState::default() };
            let mut wanted = 1;
            for step in steps {
                match step {
                    Step::Want(total) => wanted = total,
                    Step::Pods(by) => {
                        move_pods(&mut state.source, u32::from(by % 7));
                        for unit in &mut state.units {
                            move_pods(unit, u32::from(by % 5));
                        }
                    }
                }
                let shares = distribute(wanted, source, &units);
                let before = state.clone();
                let plan = plan_scale(&shares, &state);
                apply(&mut state, &plan);
                if state.source.wanted < before.source.wanted {
                    for (unit, share) in before.units.iter().zip(&shares.units) {
                        prop_assert!(unit.pods <= *share, "lowered the source with {:?}", before);
                    }
                }
            }
            // And the shares are reached when the pods follow.
            let shares = distribute(wanted, source, &units);
            for _ in 0..4 {
                let plan = plan_scale(&shares, &state);
                apply(&mut state, &plan);
                move_pods(&mut state.source, u32::MAX / 2);
                for unit in &mut state.units {
                    move_pods(unit, u32::MAX / 2);
                }
            }
            prop_assert_eq!(state.source.wanted, shares.source);
            prop_assert_eq!(state.units.iter().map(|unit| unit.wanted).collect::<Vec<_>>(), shares.units.clone());
            prop_assert_eq!(plan_scale(&shares, &state), ScalePlan::default());
        }
    }
}

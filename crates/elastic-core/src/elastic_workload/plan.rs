//! Who is asked to change now, so that the shares are reached in the right order.
//!
//! On the way up everybody gets their share at once. On the way down the units go first, and the source is lowered only
//! after the pods the units no longer want are really gone: a replica on an owned node is never removed while a
//! serverless one that could go instead still lives.
//!
//! Replicas that move are made first and removed afterwards: a ready pod goes only when enough others are ready to
//! serve what is wanted. Only a unit's own maximum is not waited for, because it limits what may be spent.

use super::Distribution;

/// What is known about one child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildState {
    /// `spec.replicas` as it stands.
    pub wanted: u32,
    /// Pods that exist, also the ones that are being removed.
    pub pods: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Never more than this, ready or not.
    pub max: Option<u32>,
}

impl ChildState {
    /// Ready pods that are wanted; those beyond are on their way out.
    fn serving(&self) -> u32 {
        self.ready.min(self.wanted)
    }
}

/// The source and the units, in the order of the spec. A unit that does not exist yet counts as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleState {
    /// The source.
    pub source: ChildState,
    /// The units.
    pub units: Vec<ChildState>,
    /// Pods of units that are no longer in the spec.
    pub removed_unit_pods: u32,
    /// Of these, the ready ones.
    pub removed_unit_ready: u32,
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
    /// Replicas that stay until others are ready in their place.
    pub kept: u32,
    /// Whether units that are no longer in the spec have to stay for the same reason.
    pub keep_removed_units: bool,
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
    let mut spare = spare(shares, state);
    if state.removed_unit_ready > spare {
        plan.keep_removed_units = true;
        plan.kept += state.removed_unit_ready;
    } else {
        spare -= state.removed_unit_ready;
    }
    for (index, (share, unit)) in shares.units.iter().zip(&state.units).enumerate().rev() {
        if share < &unit.wanted {
            let next = lowered(unit, *share, &mut spare);
            plan.kept += next - share;
            if next < unit.wanted {
                plan.actions.push(ChildAction::SetUnit(index, next));
            }
        }
    }
    lower_source(shares, state, spare, &mut plan);
    plan
}

fn lower_source(shares: &Distribution, state: &ScaleState, mut spare: u32, plan: &mut ScalePlan) {
    if shares.source >= state.source.wanted {
        return;
    }
    let surplus = shares
        .units
        .iter()
        .zip(&state.units)
        .map(|(share, unit)| unit.pods.max(unit.wanted).saturating_sub(*share))
        .sum::<u32>()
        + state.removed_unit_pods;
    if surplus > 0 {
        plan.hold = Some(HoldReason {
            serverless_pods: surplus,
        });
        return;
    }
    let next = lowered(&state.source, shares.source, &mut spare);
    plan.kept += next - shares.source;
    if next < state.source.wanted {
        plan.actions.push(ChildAction::SetSource(next));
    }
}

/// Ready pods beyond what is wanted. These may go although they are ready.
fn spare(shares: &Distribution, state: &ScaleState) -> u32 {
    let wanted = shares.source + shares.units.iter().sum::<u32>();
    let serving = state.source.serving()
        + state.units.iter().map(ChildState::serving).sum::<u32>()
        + state.removed_unit_ready;
    serving.saturating_sub(wanted)
}

/// How far a child may be lowered towards its share. Pods that are not ready go first and cost nothing.
fn lowered(child: &ChildState, share: u32, spare: &mut u32) -> u32 {
    let unready = child.wanted - child.serving();
    let free = unready.saturating_add(*spare);
    let kept = child.wanted.saturating_sub(free);
    let next = share.max(kept.min(child.max.unwrap_or(u32::MAX)));
    let gone = child.wanted - next;
    *spare = spare.saturating_sub(gone.saturating_sub(unready));
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bounds, distribute};
    use super::*;

    fn child(wanted: u32, pods: u32) -> ChildState {
        ChildState {
            wanted,
            pods,
            ready: pods.min(wanted),
            max: None,
        }
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
            ..ScaleState::default()
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
            ..ScaleState::default()
        };
        assert_eq!(
            plan_scale(&shares, &state),
            ScalePlan {
                actions: vec![ChildAction::SetUnit(0, 0)],
                hold: Some(HoldReason {
                    serverless_pods: 46
                }),
                ..ScalePlan::default()
            }
        );
        state.units = vec![child(0, 1)];
        assert_eq!(
            plan_scale(&shares, &state),
            ScalePlan {
                actions: vec![],
                hold: Some(HoldReason { serverless_pods: 1 }),
                ..ScalePlan::default()
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
            ..ScaleState::default()
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
            ..ScaleState::default()
        };
        assert_eq!(plan_scale(&shares, &state), ScalePlan::default());
    }

    #[test]
    fn replicas_that_move_are_ready_in_the_new_place_before_they_go_in_the_old_one() {
        let shares = Distribution {
            source: 4,
            units: vec![2],
            unplaced: 0,
        };
        let mut state = ScaleState {
            source: ChildState {
                wanted: 4,
                pods: 4,
                ready: 3,
                max: None,
            },
            units: vec![child(3, 3)],
            ..ScaleState::default()
        };
        assert_eq!(
            plan_scale(&shares, &state),
            ScalePlan {
                kept: 1,
                ..ScalePlan::default()
            }
        );
        state.source.ready = 4;
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetUnit(0, 2)]
        );
    }

    #[test]
    fn an_adopted_source_is_lowered_when_its_unit_is_ready() {
        let shares = Distribution {
            source: 4,
            units: vec![2],
            unplaced: 0,
        };
        let mut state = ScaleState {
            source: child(6, 6),
            units: vec![child(0, 0)],
            ..ScaleState::default()
        };
        let plan = plan_scale(&shares, &state);
        assert_eq!(plan.actions, [ChildAction::SetUnit(0, 2)]);
        assert_eq!(plan.kept, 2);
        state.units[0] = child(2, 1);
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetSource(5)]
        );
    }

    #[test]
    fn what_a_unit_may_cost_at_most_is_not_waited_for() {
        let shares = Distribution {
            source: 4,
            units: vec![1, 5],
            unplaced: 0,
        };
        let limited = ChildState {
            max: Some(1),
            ..child(6, 6)
        };
        let state = ScaleState {
            source: child(4, 4),
            units: vec![limited, child(0, 0)],
            ..ScaleState::default()
        };
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetUnit(1, 5), ChildAction::SetUnit(0, 1)]
        );
    }

    #[test]
    fn a_unit_that_left_the_spec_stays_until_others_are_ready() {
        let shares = Distribution {
            source: 4,
            units: vec![2],
            unplaced: 0,
        };
        let mut state = ScaleState {
            source: child(4, 4),
            units: vec![child(2, 0)],
            removed_unit_pods: 2,
            removed_unit_ready: 2,
        };
        assert!(plan_scale(&shares, &state).keep_removed_units);
        state.units = vec![child(2, 2)];
        assert!(!plan_scale(&shares, &state).keep_removed_units);
    }

    #[test]
    fn pods_that_are_not_ready_go_at_once() {
        let shares = Distribution {
            source: 2,
            units: vec![0],
            unplaced: 0,
        };
        let state = ScaleState {
            source: child(2, 2),
            units: vec![child(5, 0)],
            ..ScaleState::default()
        };
        assert_eq!(
            plan_scale(&shares, &state).actions,
            [ChildAction::SetUnit(0, 0)]
        );
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

//! Which unit a pod goes to, and when one that has no room passes it on.

use jiff::SignedDuration;

use super::{ResourcePolicySpec, TryNext};

/// What is known of one unit, for the group of the pod in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// Pods that count against its maximum, those still to come among them.
    pub pods: u32,
    /// Pods that are ending.
    pub terminating: u32,
    /// Whether it had no room a moment ago.
    pub short: bool,
    /// Whether the pod may run there at all.
    pub allowed: bool,
}

/// Where a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To this unit.
    Unit(usize),
    /// Nowhere now: all units it may go to are full.
    Wait,
    /// It may go to none of the units, whatever they have.
    Outside,
}

fn is_full(spec: &ResourcePolicySpec, index: usize, state: &UnitState) -> bool {
    spec.units[index]
        .most()
        .is_some_and(|max| state.pods >= max)
}

/// The first unit that takes one more pod. `states` has one entry for each unit. The last unit the pod may go to is never
/// skipped for want of room, because there is none after it.
pub fn choose(spec: &ResourcePolicySpec, states: &[UnitState]) -> Choice {
    let Some(last) = states.iter().rposition(|state| state.allowed) else {
        return Choice::Outside;
    };
    let keeps = matches!(spec.try_next(), Ok(TryNext::LackResourceAndNoTerminating));
    for (index, state) in states.iter().enumerate() {
        if !state.allowed {
            continue;
        }
        if is_full(spec, index, state) {
            if keeps && state.terminating > 0 && index < last {
                return Choice::Wait;
            }
            continue;
        }
        if !state.short || index == last {
            return Choice::Unit(index);
        }
    }
    // Rather where there was no room a moment ago than nowhere.
    let open = states
        .iter()
        .enumerate()
        .find(|(index, state)| state.allowed && !is_full(spec, *index, state));
    open.map_or(Choice::Wait, |(index, _)| Choice::Unit(index))
}

/// How many more pods units after this one take, `None` without a limit.
pub fn room_after(spec: &ResourcePolicySpec, index: usize, states: &[UnitState]) -> Option<u32> {
    let last = states.len().saturating_sub(1);
    let later = states.iter().enumerate().skip(index + 1);
    let open = later.filter(|(at, state)| state.allowed && (!state.short || *at == last));
    open.map(|(at, state)| {
        let max = spec.units[at].most();
        max.map(|max| max.saturating_sub(state.pods))
    })
    .try_fold(0u32, |sum, room| Some(sum.saturating_add(room?)))
}

/// How long a pod waits in a unit that has no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// This long.
    For(SignedDuration),
    /// Until there is room.
    Forever,
}

/// How long a pod waits in this unit. With `ExceedMax` and `TimeoutOrExceedMax` only units that have a maximum, or that wait
/// for nodes to be added, are waited for.
pub fn patience(spec: &ResourcePolicySpec, index: usize, terminating: u32) -> Patience {
    let unit = &spec.units[index];
    let waits = unit.max.is_some() || unit.waits_for_scaling();
    match spec.try_next() {
        Ok(TryNext::ExceedMax) if waits => Patience::Forever,
        Ok(TryNext::TimeoutOrExceedMax(timeout)) if waits => Patience::For(timeout),
        Ok(TryNext::LackResourceAndNoTerminating) if terminating > 0 => Patience::Forever,
        _ => Patience::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::workload_spread::{SpreadPod, deletion_costs};

    fn spec(units: Value, policy: &str) -> ResourcePolicySpec {
        serde_json::from_value(
            json!({"units": units, "whenTryNextUnits": {"policy": policy, "timeout": "1m"}}),
        )
        .unwrap()
    }

    fn state(pods: u32, terminating: u32, short: bool) -> UnitState {
        UnitState {
            pods,
            terminating,
            short,
            allowed: true,
        }
    }

    #[test]
    fn units_fill_in_order_and_a_full_last_one_makes_pods_wait() {
        let two = json!([{"resource": "ecs", "max": 2}, {"resource": "eci", "max": 1}]);
        let lack = spec(two.clone(), "LackResourceOrExceedMax");
        let keeping = spec(two, "LackResourceAndNoTerminating");
        let cases = [
            (
                &lack,
                [state(1, 0, false), state(0, 0, false)],
                Choice::Unit(0),
            ),
            (
                &lack,
                [state(2, 1, false), state(0, 0, false)],
                Choice::Unit(1),
            ),
            (
                &keeping,
                [state(2, 1, false), state(0, 0, false)],
                Choice::Wait,
            ),
            (
                &keeping,
                [state(2, 0, false), state(0, 0, false)],
                Choice::Unit(1),
            ),
            (
                &lack,
                [state(1, 0, true), state(0, 0, false)],
                Choice::Unit(1),
            ),
            (
                &lack,
                [state(1, 0, true), state(1, 0, false)],
                Choice::Unit(0),
            ),
            (
                &lack,
                [state(2, 0, false), state(1, 0, false)],
                Choice::Wait,
            ),
            (
                &lack,
                [state(2, 0, false), state(0, 0, true)],
                Choice::Unit(1),
            ),
        ];
        for (spec, states, expected) in cases {
            assert_eq!(choose(spec, &states), expected, "{states:?}");
        }
        let none = [UnitState::default(); 2];
        assert_eq!(choose(&lack, &none), Choice::Outside);
        let own_only = [state(2, 0, false), UnitState::default()];
        assert_eq!(choose(&lack, &own_only), Choice::Wait);
    }

    #[test]
    fn a_unit_is_waited_for_as_the_policy_says() {
        let units = json!([
            {"resource": "ecs", "max": 2}, {"resource": "ecs"},
            {"resource": "ecs", "podLabels": {"k8s.aliyun.com/resource-policy-wait-for-ecs-scaling": "true"}}, {"resource": "eci"}]);
        let minute = Patience::For(SignedDuration::from_mins(1));
        let cases = [
            ("LackResourceOrExceedMax", 1, [Patience::None; 3]),
            (
                "ExceedMax",
                0,
                [Patience::Forever, Patience::None, Patience::Forever],
            ),
            ("TimeoutOrExceedMax", 0, [minute, Patience::None, minute]),
            ("LackResourceAndNoTerminating", 1, [Patience::Forever; 3]),
            ("LackResourceAndNoTerminating", 0, [Patience::None; 3]),
        ];
        for (policy, terminating, expected) in cases {
            let spec = spec(units.clone(), policy);
            let found = [0, 1, 2].map(|index| patience(&spec, index, terminating));
            assert_eq!(found, expected, "{policy}");
        }
    }

    #[test]
    fn pods_are_passed_on_only_as_far_as_later_units_take_them() {
        let spec = spec(
            json!([{"resource": "ecs"}, {"resource": "ecs", "max": 3}, {"resource": "eci", "max": 4}]),
            "ExceedMax",
        );
        let mut states = [state(9, 0, true), state(1, 0, false), state(4, 0, false)];
        assert_eq!(room_after(&spec, 0, &states), Some(2));
        states[1].short = true;
        assert_eq!(room_after(&spec, 0, &states), Some(0));
        assert_eq!(room_after(&spec, 2, &states), Some(0));
    }

    /// A change of the world: a pod is wanted, the replica set removes one, a unit loses or gets room, one is moved on.
    #[derive(Clone, Debug)]
    enum Step {
        More,
        Fewer,
        Short(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::More),
            3 => Just(Step::Fewer),
            1 => (0usize..3, any::<bool>()).prop_map(|(unit, short)| Step::Short(unit, short)),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_the_maxima_fills_in_order_and_empties_in_the_opposite_one(
            max in proptest::collection::vec(proptest::option::of(0i32..6), 3), steps in steps()
        ) {
            let units: Vec<Value> = max.iter().map(|max| json!({"resource": "ecs", "max": max})).collect();
            let spec = spec(json!(units), "LackResourceOrExceedMax");
            let bounds = spec.bounds();
            let mut short = [false; 3];
            let mut pods: Vec<SpreadPod> = Vec::new();
            let mut created = 0;
            for step in steps {
                let count = |pods: &[SpreadPod], unit: usize| u32::try_from(pods.iter().filter(|pod| pod.subset == Some(unit)).count()).unwrap();
                let states = [0, 1, 2].map(|unit| state(count(&pods, unit), 0, short[unit]));
                match step {
                    Step::Short(unit, is) => short[unit] = is,
                    Step::More => {
                        let choice = choose(&spec, &states);
                        let full = |unit: usize| bounds[unit].max.is_some_and(|max| states[unit].pods >= max);
                        match choice {
                            Choice::Unit(unit) => {
                                prop_assert!(!full(unit));
                                if !short[unit] {
                                    for (earlier, short) in short.iter().enumerate().take(unit) {
                                        prop_assert!(full(earlier) || *short, "{states:?} → {unit}");
                                    }
                                }
                                created += 1;
                                pods.push(SpreadPod { subset: Some(unit), ready: true, bound: true, created, name: format!("p{created}") });
                            }
                            Choice::Wait => prop_assert!((0..3).all(full)),
                            Choice::Outside => prop_assert!(false),
                        }
                    }
                    Step::Fewer => {
                        let costs = deletion_costs(&bounds, &pods);
                        let Some(victim) = (0..pods.len()).min_by_key(|pod| costs[*pod]) else { continue };
                        let gone = pods.remove(victim);
                        prop_assert!(pods.iter().all(|pod| pod.subset <= gone.subset), "a later unit is emptied first");
                    }
                }
                for (unit, bounds) in bounds.iter().enumerate() {
                    prop_assert!(bounds.max.is_none_or(|max| count(&pods, unit) <= max));
                }
            }
        }
    }
}

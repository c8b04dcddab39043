//! A new pod template goes through the source and its units one after the other, under one budget.
//!
//! The source's own rollout is its controller's; a unit gets the new template only when nothing else rolls, and with no
//! more surge and unavailability than the others leave of the budget. The budget is the source's strategy applied to all
//! replicas together.

/// How many pods too many and too few there may be, over source and units together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutBudget {
    /// Pods beyond what is wanted.
    pub surge: u32,
    /// Pods less than what is wanted.
    pub unavailable: u32,
}

impl RolloutBudget {
    fn is_nothing(&self) -> bool {
        self.surge == 0 && self.unavailable == 0
    }
}

/// A number of pods, or a percentage of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountOrPercent {
    /// Pods.
    Count(u32),
    /// Per cent of the wanted pods.
    Percent(u32),
}

impl CountOrPercent {
    /// As text or number, the way manifests have it. Anything else is `None`.
    pub fn parse(value: &serde_json::Value) -> Option<Self> {
        if let Some(count) = value.as_u64() {
            return Some(Self::Count(u32::try_from(count).ok()?));
        }
        let percent = value.as_str()?.strip_suffix('%')?.parse().ok()?;
        Some(Self::Percent(percent))
    }

    fn of(self, total: u32, round_up: bool) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let product = u64::from(percent) * u64::from(total);
                let pods = if round_up {
                    product.div_ceil(100)
                } else {
                    product / 100
                };
                u32::try_from(pods).unwrap_or(u32::MAX)
            }
        }
    }
}

/// The budget for `total` replicas. Surge is rounded up and unavailability down; when both come out as nothing, one pod
/// may be unavailable, or nothing could ever move.
pub fn rollout_budget(
    surge: CountOrPercent,
    unavailable: CountOrPercent,
    total: u32,
) -> RolloutBudget {
    let mut budget = RolloutBudget {
        surge: surge.of(total, true),
        unavailable: unavailable.of(total, false),
    };
    if budget.is_nothing() {
        budget.unavailable = 1;
    }
    budget
}

/// Where one child stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutState {
    /// Replicas asked for.
    pub wanted: u32,
    /// Pods of any template.
    pub pods: u32,
    /// Pods of the template it has now.
    pub updated: u32,
    /// Pods that serve.
    pub available: u32,
    /// Whether its controller has seen its newest spec.
    pub settled: bool,
    /// Whether it still has an older template than the source.
    pub behind: bool,
    /// Whether it was stopped on the way.
    pub paused: bool,
}

impl RolloutState {
    fn rolls(&self) -> bool {
        self.pods > 0 && (!self.settled || self.updated < self.pods)
    }

    fn unavailable(&self) -> u32 {
        self.wanted.saturating_sub(self.available)
    }

    fn surge(&self) -> u32 {
        self.pods.saturating_sub(self.wanted)
    }
}

/// Who has to be done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// The source rolls.
    Source,
    /// The unit at this index rolls, or is next.
    Unit(usize),
    /// Too many pods are unavailable already.
    Budget,
}

/// What happens to one unit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStep {
    /// Its template is right, or on its way.
    Leave,
    /// It gets the new template, and this much of the budget.
    Follow(RolloutBudget),
    /// It keeps its old template.
    Hold(HeldBy),
    /// It stops where it is, because something before it rolls.
    Pause(HeldBy),
    /// It goes on, with this much of the budget.
    Resume(RolloutBudget),
}

/// One step for every unit. `source` is never behind: its template is the newest by definition.
pub fn plan_rollout(
    budget: RolloutBudget,
    source: &RolloutState,
    units: &[RolloutState],
) -> Vec<RolloutStep> {
    let rolling = units.iter().position(RolloutState::rolls);
    let active = if source.rolls() {
        Some(HeldBy::Source)
    } else {
        rolling.map(HeldBy::Unit)
    };
    let mut holder = active;
    let mut steps = Vec::with_capacity(units.len());
    for (index, unit) in units.iter().enumerate() {
        let share = allowance(budget, source, units, index);
        let step = if unit.pods == 0 {
            // Nothing runs, so nothing rolls.
            if unit.behind || unit.paused {
                RolloutStep::Follow(budget)
            } else {
                RolloutStep::Leave
            }
        } else if active == Some(HeldBy::Unit(index)) {
            active_unit(unit, share)
        } else if unit.rolls() && !unit.paused {
            holder.map_or(RolloutStep::Leave, RolloutStep::Pause)
        } else if !unit.behind && !unit.paused {
            RolloutStep::Leave
        } else if let Some(holder) = holder {
            RolloutStep::Hold(holder)
        } else if share.is_nothing() {
            RolloutStep::Hold(HeldBy::Budget)
        } else {
            holder = Some(HeldBy::Unit(index));
            if unit.behind {
                RolloutStep::Follow(share)
            } else {
                RolloutStep::Resume(share)
            }
        };
        steps.push(step);
    }
    steps
}

/// A unit on its way gets a still newer template at once, and goes on when it was stopped.
fn active_unit(unit: &RolloutState, share: RolloutBudget) -> RolloutStep {
    match (unit.behind, unit.paused, share.is_nothing()) {
        (false, false, _) => RolloutStep::Leave,
        (_, _, true) => RolloutStep::Hold(HeldBy::Budget),
        (true, _, false) => RolloutStep::Follow(share),
        (false, true, false) => RolloutStep::Resume(share),
    }
}

/// What the others leave of the budget to the unit at `index`. Replacing pods that are unavailable anyway costs nothing,
/// so a template that mends a unit is never held back by the unit's own trouble.
fn allowance(
    budget: RolloutBudget,
    source: &RolloutState,
    units: &[RolloutState],
    index: usize,
) -> RolloutBudget {
    let others = || {
        let units = units
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != index);
        std::iter::once(source).chain(units.map(|(_, unit)| unit))
    };
    let unavailable: u32 = others().map(RolloutState::unavailable).sum();
    let surge: u32 = others().map(RolloutState::surge).sum();
    RolloutBudget {
        surge: budget.surge.saturating_sub(surge),
        unavailable: budget
            .unavailable
            .saturating_sub(unavailable)
            .max(units[index].unavailable()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BUDGET: RolloutBudget = RolloutBudget {
        surge: 2,
        unavailable: 1,
    };

    fn whole(pods: u32) -> RolloutState {
        RolloutState {
            wanted: pods,
            pods,
            updated: pods,
            available: pods,
            settled: true,
            ..RolloutState::default()
        }
    }

    fn behind(pods: u32) -> RolloutState {
        RolloutState {
            behind: true,
            ..whole(pods)
        }
    }

    #[test]
    fn the_budget_is_the_strategy_applied_to_all_replicas() {
        let parse = |value| CountOrPercent::parse(&value);
        let quarter = parse(json!("25%")).unwrap();
        assert_eq!(
            rollout_budget(quarter, quarter, 50),
            RolloutBudget {
                surge: 13,
                unavailable: 12
            }
        );
        let (none, one) = (parse(json!(0)).unwrap(), parse(json!(1)).unwrap());
        assert_eq!(
            rollout_budget(none, one, 50),
            RolloutBudget {
                surge: 0,
                unavailable: 1
            }
        );
        assert_eq!(
            rollout_budget(none, CountOrPercent::Percent(10), 5),
            RolloutBudget {
                surge: 0,
                unavailable: 1
            }
        );
        assert_eq!(
            (parse(json!("a%")), parse(json!(-1)), parse(json!(null))),
            (None, None, None)
        );
    }

    #[test]
    fn units_wait_for_the_source_and_then_for_each_other() {
        let rolling = RolloutState {
            updated: 1,
            ..whole(4)
        };
        let unseen = RolloutState {
            settled: false,
            ..whole(4)
        };
        for source in [rolling, unseen] {
            let steps = plan_rollout(BUDGET, &source, &[behind(3), behind(2)]);
            assert_eq!(steps, [RolloutStep::Hold(HeldBy::Source); 2]);
        }
        let steps = plan_rollout(BUDGET, &whole(4), &[behind(3), behind(2)]);
        assert_eq!(
            steps,
            [
                RolloutStep::Follow(BUDGET),
                RolloutStep::Hold(HeldBy::Unit(0))
            ]
        );
        let first = RolloutState {
            updated: 1,
            ..whole(3)
        };
        let steps = plan_rollout(BUDGET, &whole(4), &[first, behind(2)]);
        assert_eq!(
            steps,
            [RolloutStep::Leave, RolloutStep::Hold(HeldBy::Unit(0))]
        );
        let steps = plan_rollout(BUDGET, &whole(4), &[whole(3), behind(2)]);
        assert_eq!(steps, [RolloutStep::Leave, RolloutStep::Follow(BUDGET)]);
    }

    #[test]
    fn what_others_use_of_the_budget_is_taken_off() {
        let limping = RolloutState {
            available: 3,
            ..whole(4)
        };
        let share = RolloutBudget {
            surge: 2,
            unavailable: 0,
        };
        assert_eq!(
            plan_rollout(BUDGET, &limping, &[behind(3)]),
            [RolloutStep::Follow(share)]
        );
        let strict = RolloutBudget {
            surge: 0,
            unavailable: 1,
        };
        assert_eq!(
            plan_rollout(strict, &limping, &[behind(3)]),
            [RolloutStep::Hold(HeldBy::Budget)]
        );
    }

    #[test]
    fn a_template_that_mends_a_unit_is_not_held_back_by_its_trouble() {
        let strict = RolloutBudget {
            surge: 0,
            unavailable: 1,
        };
        let broken = RolloutState {
            available: 0,
            ..behind(5)
        };
        let share = RolloutBudget {
            surge: 0,
            unavailable: 5,
        };
        assert_eq!(
            plan_rollout(strict, &whole(4), &[broken]),
            [RolloutStep::Follow(share)]
        );
        // A whole unit before it waits, and does not keep it waiting.
        let steps = plan_rollout(strict, &whole(4), &[behind(3), broken]);
        assert_eq!(
            steps,
            [
                RolloutStep::Hold(HeldBy::Budget),
                RolloutStep::Follow(share)
            ]
        );
    }

    #[test]
    fn a_unit_on_its_way_stops_when_the_source_rolls_again_and_goes_on_afterwards() {
        let source = RolloutState {
            updated: 1,
            ..whole(4)
        };
        let unit = RolloutState {
            updated: 1,
            ..behind(3)
        };
        assert_eq!(
            plan_rollout(BUDGET, &source, &[unit]),
            [RolloutStep::Pause(HeldBy::Source)]
        );
        let paused = RolloutState {
            paused: true,
            ..unit
        };
        assert_eq!(
            plan_rollout(BUDGET, &source, &[paused]),
            [RolloutStep::Hold(HeldBy::Source)]
        );
        assert_eq!(
            plan_rollout(BUDGET, &whole(4), &[paused]),
            [RolloutStep::Follow(BUDGET)]
        );
        let right = RolloutState {
            behind: false,
            ..paused
        };
        assert_eq!(
            plan_rollout(BUDGET, &whole(4), &[right]),
            [RolloutStep::Resume(BUDGET)]
        );
    }

    #[test]
    fn a_unit_without_pods_follows_at_once() {
        let source = RolloutState {
            updated: 1,
            ..whole(4)
        };
        assert_eq!(
            plan_rollout(BUDGET, &source, &[behind(0)]),
            [RolloutStep::Follow(BUDGET)]
        );
        assert_eq!(
            plan_rollout(BUDGET, &source, &[whole(0)]),
            [RolloutStep::Leave]
        );
    }
}

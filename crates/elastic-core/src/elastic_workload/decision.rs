//! The whole decision of one pass: who is short, who gets how many, and who is asked now. A running controller, a dry run
//! and a simulation call this one function.

use jiff::Timestamp;

use super::shortage::{PlacePods, Shortage, ShortagePolicy, assess};
use super::{Bounds, Distribution, Place, ScalePlan, ScaleState, distribute_places, plan_scale};

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverflowPolicy {
    /// Replicas of source and units together.
    pub replicas: u32,
    /// The source's bounds.
    pub source: Bounds,
    /// The units' bounds, in order.
    pub units: Vec<Bounds>,
    /// Present when a place that cannot get capacity passes its share on.
    pub shortage: Option<ShortagePolicy>,
    /// Whether running replicas move back to an earlier place that has room.
    pub rebalance: bool,
}

/// What is, and what was decided before. Vectors have the source first, then the units in order; what is missing at the
/// end counts as nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Numbers of the source and the units.
    pub scale: ScaleState,
    /// The pods, as far as their capacity is in question.
    pub pods: Vec<PlacePods>,
    /// Shortages known before.
    pub shortages: Vec<Option<Shortage>>,
    /// The shares decided before; absent for a place never seen.
    pub shares: Vec<Option<u32>>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How many replicas belong where.
    pub shares: Distribution,
    /// The writes for now.
    pub plan: ScalePlan,
    /// Shortages to remember, the source first.
    pub shortages: Vec<Option<Shortage>>,
    /// When to look again without any other cause.
    pub look_again: Option<Timestamp>,
}

/// Decides from what is wanted and what is, at `now`.
pub fn decide(policy: &OverflowPolicy, observed: &Observed, now: Timestamp) -> Decision {
    let bounds = std::iter::once(policy.source).chain(policy.units.iter().copied());
    let states = std::iter::once(&observed.scale.source).chain(&observed.scale.units);
    let mut shortages = Vec::new();
    let mut look_again: Option<Timestamp> = None;
    let mut places = Vec::new();
    for (index, (bounds, state)) in bounds.zip(states).enumerate() {
        let before = observed.shortages.get(index).and_then(Option::as_ref);
        let shortage = policy.shortage.as_ref().and_then(|policy| {
            let nothing = PlacePods {
                wanted: state.wanted,
                living: state.wanted,
                ..PlacePods::default()
            };
            let assessment = assess(
                policy,
                observed.pods.get(index).unwrap_or(&nothing),
                before,
                now,
            );
            look_again = look_again.into_iter().chain(assessment.look_again).min();
            assessment.shortage
        });
        let known = observed.shares.get(index).copied().flatten();
        places.push(Place {
            bounds,
            capacity: shortage.as_ref().and_then(Shortage::limit),
            current: known.unwrap_or(state.wanted),
        });
        shortages.push(shortage);
    }
    let shares = distribute_places(policy.replicas, &places, policy.rebalance);
    let plan = plan_scale(&shares, &observed.scale);
    Decision {
        shares,
        plan,
        shortages,
        look_again,
    }
}

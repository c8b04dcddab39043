//! A cluster in miniature, driven by the same decisions as the real controller, with time and chance from the test.
//!
//! Each place makes and removes pods one tick at a time, runs out of room and gets it back, and rolls new templates the way
//! a Deployment does, within the strategy it was given.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const TICK_SECONDS: i64 = 1;
const RESCHEDULE_AFTER: i64 = 5;
const RECOVER_AFTER: i64 = 20;

/// One pod.
#[derive(Clone, Debug)]
struct SimulatedPod {
    born: i64,
    ready: bool,
    template: u32,
    /// Ending pods still count for the bill.
    ending: bool,
}

/// One place with its workload object and its nodes.
#[derive(Clone, Debug, Default)]
struct SimulatedPlace {
    wanted: u32,
    room: u32,
    template: u32,
    strategy: RolloutBudget,
    paused: bool,
    pods: Vec<SimulatedPod>,
}

impl SimulatedPlace {
    fn living(&self) -> impl Iterator<Item = &SimulatedPod> {
        self.pods.iter().filter(|pod| !pod.ending)
    }

    fn count(&self, of: impl Fn(&&SimulatedPod) -> bool) -> u32 {
        self.living().filter(of).count() as u32
    }

    fn living_count(&self) -> u32 {
        self.count(|_| true)
    }

    fn ready(&self) -> u32 {
        self.count(|pod| pod.ready)
    }

    fn placed(&self) -> u32 {
        self.pods
            .iter()
            .filter(|pod| pod.ready || pod.ending)
            .count() as u32
    }

    fn state(&self, max: Option<u32>) -> ChildState {
        ChildState {
            wanted: self.wanted,
            pods: self.pods.len() as u32,
            ready: self.ready(),
            max,
        }
    }

    fn rollout(&self, newest: u32) -> RolloutState {
        RolloutState {
            wanted: self.wanted,
            pods: self.living_count(),
            updated: self.count(|pod| pod.template == self.template),
            available: self.ready(),
            settled: true,
            behind: self.template != newest,
            paused: self.paused,
        }
    }

    fn end_one(&mut self, of: impl Fn(&SimulatedPod) -> bool) -> bool {
        // Not ready before ready, the youngest first.
        let candidates = self
            .pods
            .iter()
            .enumerate()
            .filter(|(_, pod)| !pod.ending && of(pod));
        let victim = candidates
            .min_by_key(|(_, pod)| (pod.ready, -pod.born))
            .map(|(index, _)| index);
        if let Some(index) = victim {
            self.pods[index].ending = true;
        }
        victim.is_some()
    }

    /// What a Deployment's controller and the nodes do in one tick.
    fn tick(&mut self, now: i64) {
        self.pods.retain(|pod| !pod.ending);
        let most = self.wanted + if self.paused { 0 } else { self.surge() };
        let current = |pod: &SimulatedPod| pod.template;
        let old = self
            .pods
            .iter()
            .filter(|pod| current(pod) != self.template)
            .count() as u32;
        let goal = if old == 0 || self.paused {
            self.wanted
        } else {
            most.min(self.wanted.max(self.living_count()) + self.surge())
        };
        while self.living_count() < goal.min(most) && (old > 0 || self.living_count() < self.wanted)
        {
            self.pods.push(SimulatedPod {
                born: now,
                ready: false,
                template: self.template,
                ending: false,
            });
        }
        let (room, placed) = (self.room, self.placed());
        let mut free = room.saturating_sub(placed);
        for pod in self
            .pods
            .iter_mut()
            .filter(|pod| !pod.ready && pod.born < now)
        {
            if free > 0 {
                pod.ready = true;
                free -= 1;
            }
        }
        let template = self.template;
        // Old pods that serve nobody go first, then ready ones as the strategy allows.
        let least = self.wanted.saturating_sub(self.strategy.unavailable);
        while !self.paused && old > 0 {
            let spare = self.ready() > least
                || self
                    .pods
                    .iter()
                    .any(|pod| !pod.ready && !pod.ending && pod.template != template);
            if !spare || !self.end_one(|pod| pod.template != template) {
                break;
            }
        }
        let limit = if old > 0 && !self.paused {
            most
        } else {
            self.wanted
        };
        while self.living_count() > limit {
            self.end_one(|_| true);
        }
    }

    fn surge(&self) -> u32 {
        self.strategy.surge.min(self.wanted)
    }

    fn place_pods(&self) -> PlacePods {
        let waiting = self.living().filter(|pod| !pod.ready);
        PlacePods {
            wanted: self.wanted,
            living: self.living_count(),
            ready: self.ready(),
            waiting: waiting
                .map(|pod| WaitingPod {
                    since: time(pod.born),
                    failed: false,
                    reason: "Unschedulable".into(),
                })
                .collect(),
        }
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// Source and units, and what the status remembers.
struct Simulation {
    policy: OverflowPolicy,
    places: Vec<SimulatedPlace>,
    shortages: Vec<Option<Shortage>>,
    shares: Vec<Option<u32>>,
    template: u32,
    now: i64,
}

impl Simulation {
    fn new(policy: OverflowPolicy) -> Self {
        let count = policy.units.len() + 1;
        let place = SimulatedPlace {
            room: 1000,
            ..SimulatedPlace::default()
        };
        Self {
            policy,
            places: vec![place; count],
            shortages: vec![None; count],
            shares: vec![None; count],
            template: 0,
            now: 0,
        }
    }

    fn bounds(&self) -> Vec<Bounds> {
        std::iter::once(self.policy.source)
            .chain(self.policy.units.iter().copied())
            .collect()
    }

    fn observed(&self) -> Observed {
        let units = self.places[1..].iter().zip(&self.policy.units);
        Observed {
            scale: ScaleState {
                source: self.places[0].state(None),
                units: units
                    .map(|(place, bounds)| place.state(bounds.max))
                    .collect(),
                ..ScaleState::default()
            },
            pods: self.places.iter().map(SimulatedPlace::place_pods).collect(),
            shortages: self.shortages.clone(),
            shares: self.shares.clone(),
        }
    }

    /// One pass of the controller. Returns the decision and how often each place was written.
    fn reconcile(&mut self) -> Decision {
        let observed = self.observed();
        let decision = decide(&self.policy, &observed, time(self.now));
        for action in &decision.plan.actions {
            match *action {
                ChildAction::SetSource(wanted) => self.places[0].wanted = wanted,
                ChildAction::SetUnit(index, wanted) => self.places[index + 1].wanted = wanted,
            }
        }
        let budget = self.budget();
        self.places[0].template = self.template;
        self.places[0].strategy = self.source_strategy();
        let states: Vec<_> = self
            .places
            .iter()
            .map(|place| place.rollout(self.template))
            .collect();
        for (place, step) in
            self.places[1..]
                .iter_mut()
                .zip(plan_rollout(budget, &states[0], &states[1..]))
        {
            match step {
                RolloutStep::Follow(share) => {
                    (place.template, place.strategy, place.paused) = (self.template, share, false)
                }
                RolloutStep::Resume(share) => (place.strategy, place.paused) = (share, false),
                RolloutStep::Pause(_) => place.paused = true,
                RolloutStep::Hold(_) | RolloutStep::Leave => {}
            }
        }
        self.shortages = decision.shortages.clone();
        let shares = &decision.shares;
        self.shares = std::iter::once(shares.source)
            .chain(shares.units.iter().copied())
            .map(Some)
            .collect();
        decision
    }

    fn budget(&self) -> RolloutBudget {
        let quarter = CountOrPercent::Percent(25);
        rollout_budget(quarter, quarter, self.policy.replicas)
    }

    fn source_strategy(&self) -> RolloutBudget {
        let quarter = CountOrPercent::Percent(25);
        rollout_budget(quarter, quarter, self.places[0].wanted)
    }

    fn tick(&mut self) {
        self.now += TICK_SECONDS;
        for place in &mut self.places {
            place.tick(self.now);
        }
    }

    fn ready(&self) -> u32 {
        self.places.iter().map(SimulatedPlace::ready).sum()
    }

    fn wanted(&self) -> u32 {
        self.places.iter().map(|place| place.wanted).sum()
    }

    /// Everything is where it belongs, and nothing would be written.
    fn settle(&mut self) {
        for _ in 0..600 {
            self.reconcile();
            self.tick();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Scale(u32),
    Room(usize, u32),
    Template,
    HandScale(u32),
    /// A restart forgets nothing, because everything is in the objects.
    Ticks(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u32..40).prop_map(Step::Scale),
        3 => (0usize..3, 0u32..30).prop_map(|(place, room)| Step::Room(place, room)),
        2 => Just(Step::Template),
        1 => (0u32..20).prop_map(Step::HandScale),
        6 => (1u8..20).prop_map(Step::Ticks),
    ];
    proptest::collection::vec(step, 1..25)
}

fn policies() -> impl Strategy<Value = OverflowPolicy> {
    (
        0u32..3,
        1u32..8,
        proptest::option::of(1u32..12),
        0u32..3,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(min, extra, middle, unit_min, rebalance, reschedules)| OverflowPolicy {
                replicas: 4,
                source: Bounds {
                    min,
                    max: Some(min + extra),
                },
                units: vec![
                    Bounds {
                        min: 0,
                        max: middle,
                    },
                    Bounds {
                        min: unit_min,
                        max: None,
                    },
                ],
                shortage: reschedules.then_some(ShortagePolicy {
                    reschedule_after: SignedDuration::from_secs(RESCHEDULE_AFTER),
                    recover_after: SignedDuration::from_secs(RECOVER_AFTER),
                }),
                rebalance,
            },
        )
}

fn check_bounds(simulation: &Simulation, by_hand: bool) -> Result<(), TestCaseError> {
    let policy = &simulation.policy;
    let bounds = simulation.bounds();
    let minima: u32 = bounds.iter().map(|bounds| bounds.min).sum();
    for (index, (place, bounds)) in simulation.places.iter().zip(&bounds).enumerate() {
        prop_assert!(
            by_hand || bounds.max.is_none_or(|max| place.wanted <= max),
            "place {} above its max",
            index
        );
        prop_assert!(
            policy.replicas < minima || place.wanted >= bounds.min,
            "place {} below its min",
            index
        );
    }
    Ok(())
}

fn check_order(simulation: &Simulation, shares: &Distribution) -> Result<(), TestCaseError> {
    let policy = &simulation.policy;
    let bounds = simulation.bounds();
    // Owned first in: a unit grows beyond its minimum only when the source has all it may or can have.
    let limit = |index: usize| {
        let capacity = simulation.shortages[index]
            .as_ref()
            .and_then(Shortage::limit);
        capacity.map_or(bounds[index].max, |capacity| {
            Some(
                capacity
                    .max(bounds[index].min)
                    .min(bounds[index].max.unwrap_or(u32::MAX)),
            )
        })
    };
    let overflows = shares
        .units
        .iter()
        .zip(&policy.units)
        .any(|(share, unit)| *share > unit.min);
    if policy.rebalance && overflows {
        prop_assert!(
            limit(0).is_none_or(|most| shares.source >= most),
            "overflow with room on the source: {:?}",
            shares
        );
    }
    Ok(())
}

fn check_removals(
    simulation: &Simulation,
    shares: &Distribution,
    before: &[SimulatedPlace],
) -> Result<(), TestCaseError> {
    let policy = &simulation.policy;
    // Serverless first out, and no ready replica goes while the one that takes its place is not ready.
    if simulation.places[0].wanted < before[0].wanted {
        for (unit, share) in before[1..].iter().zip(&shares.units) {
            prop_assert!(
                unit.pods.len() as u32 <= *share,
                "the source was lowered before its units"
            );
        }
    }
    let lost: u32 = before
        .iter()
        .zip(&simulation.places)
        .map(|(old, new)| old.ready().min(old.wanted).saturating_sub(new.wanted))
        .sum();
    let serving: u32 = before
        .iter()
        .map(|place| place.ready().min(place.wanted))
        .sum();
    let limited = before[1..]
        .iter()
        .zip(&policy.units)
        .any(|(unit, bounds)| bounds.max.is_some_and(|max| unit.wanted > max));
    if lost > 0 && !limited {
        let placed = policy.replicas - shares.unplaced;
        prop_assert!(
            serving - lost >= placed,
            "lost {} of {} ready, {} wanted",
            lost,
            serving,
            placed
        );
    }
    Ok(())
}

fn run(simulation: &mut Simulation, step: &Step) -> Result<(), TestCaseError> {
    let ticks = match *step {
        Step::Scale(replicas) => {
            simulation.policy.replicas = replicas;
            1
        }
        Step::Room(place, room) => {
            simulation.places[place].room = room;
            1
        }
        Step::Template => {
            simulation.template += 1;
            1
        }
        Step::HandScale(replicas) => {
            simulation.places[0].wanted = replicas;
            1
        }
        Step::Ticks(ticks) => ticks,
    };
    for _ in 0..ticks {
        let before = simulation.places.clone();
        let by_hand = bounds_of(simulation).is_some_and(|max| before[0].wanted > max);
        let decision = simulation.reconcile();
        check_bounds(simulation, by_hand)?;
        check_order(simulation, &decision.shares)?;
        check_removals(simulation, &decision.shares, &before)?;
        // A second look at the same state writes nobody a second time.
        let again = decide(
            &simulation.policy,
            &simulation.observed(),
            time(simulation.now),
        );
        let written: Vec<usize> = decision.plan.actions.iter().map(place_of).collect();
        let twice = again
            .plan
            .actions
            .iter()
            .any(|action| written.contains(&place_of(action)));
        prop_assert!(!twice, "written twice: {:?} then {:?}", decision, again);
        simulation.tick();
    }
    Ok(())
}

fn place_of(action: &ChildAction) -> usize {
    match action {
        ChildAction::SetSource(_) => 0,
        ChildAction::SetUnit(index, _) => index + 1,
    }
}

fn bounds_of(simulation: &Simulation) -> Option<u32> {
    simulation.policy.source.max
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_sequence_of_changes_keeps_the_promises_and_comes_to_rest_at_what_was_wanted(policy in policies(), steps in steps()) {
        let mut simulation = Simulation::new(policy);
        for step in &steps {
            run(&mut simulation, step)?;
        }
        for place in &mut simulation.places {
            place.room = 1000;
        }
        simulation.settle();
        let placed = simulation.policy.replicas;
        prop_assert_eq!(simulation.wanted(), placed, "{:?}", simulation.places);
        prop_assert_eq!(simulation.ready(), placed, "{:?}", simulation.places);
        for place in &simulation.places {
            prop_assert!(place.pods.is_empty() || place.template == simulation.template, "an old template stays: {:?}", place);
            prop_assert!(!place.paused || place.pods.is_empty(), "a rollout stands still for ever");
        }
        if simulation.policy.rebalance {
            let bounds = simulation.bounds();
            let shares = distribute(placed, bounds[0], &bounds[1..]);
            prop_assert_eq!(simulation.places[0].wanted, shares.source, "the source did not get its share back");
        }
    }

    #[test]
    fn templates_roll_through_source_and_units_within_one_budget(
        replicas in 2u32..40,
        max in 1u32..12,
        middle in 1u32..12,
        pauses in proptest::collection::vec(1u8..30, 1..4),
    ) {
        let mut simulation = Simulation::new(OverflowPolicy {
            replicas,
            source: Bounds { min: 0, max: Some(max) },
            units: vec![Bounds { min: 0, max: Some(middle) }, Bounds { min: 0, max: None }],
            shortage: None,
            rebalance: true,
        });
        simulation.settle();
        let budget = simulation.budget();
        for pause in pauses.into_iter().chain([250]) {
            simulation.template += 1;
            for _ in 0..pause {
                simulation.reconcile();
                simulation.tick();
                let available = simulation.ready();
                // A pod that takes over is ready one tick after it was made.
                prop_assert!(available + budget.unavailable >= replicas, "{} of {} with {:?}: {:?}", available, replicas, budget, simulation.places);
                let pods: u32 = simulation.places.iter().map(SimulatedPlace::living_count).sum();
                prop_assert!(pods <= replicas + budget.surge, "{} pods of {} with {:?}", pods, replicas, budget);
            }
        }
        for place in &simulation.places {
            prop_assert!(place.living().all(|pod| pod.template == simulation.template), "{:?}", place);
        }
    }
}

#[test]
fn a_shortage_passes_replicas_on_and_they_return_without_a_gap() {
    let mut simulation = Simulation::new(OverflowPolicy {
        replicas: 8,
        source: Bounds {
            min: 2,
            max: Some(6),
        },
        units: vec![Bounds { min: 0, max: None }],
        shortage: Some(ShortagePolicy {
            reschedule_after: SignedDuration::from_secs(RESCHEDULE_AFTER),
            recover_after: SignedDuration::from_secs(RECOVER_AFTER),
        }),
        rebalance: true,
    });
    simulation.places[0].room = 4;
    let mut shares = Vec::new();
    let mut served = false;
    for second in 0..60 {
        if second == 30 {
            simulation.places[0].room = 10;
        }
        simulation.reconcile();
        simulation.tick();
        served |= simulation.ready() == 8;
        assert!(
            !served || simulation.ready() >= 8,
            "fewer than wanted at {second}"
        );
        let now = (simulation.places[0].wanted, simulation.places[1].wanted);
        if shares.last() != Some(&now) {
            shares.push(now);
        }
    }
    // Asked for, passed on, tried in vain or in time, and back.
    assert_eq!(shares.first(), Some(&(6, 2)));
    assert!(shares.contains(&(4, 4)), "{shares:?}");
    assert_eq!(shares.last(), Some(&(6, 2)), "{shares:?}");
}

//! How many replicas go where. Pure arithmetic; who is asked to change, and when, is decided in `plan`.
//!
//! [`distribute`] looks at the bounds only. [`distribute_places`] also knows what a place can get just now, and what runs
//! where already; with nothing short and everything free to move it gives the same answer.

/// The least and the most replicas one place takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Replicas reserved here as long as there are enough.
    pub min: u32,
    /// No limit when absent.
    pub max: Option<u32>,
}

impl Bounds {
    fn room_above(&self, share: u32) -> u32 {
        self.max.unwrap_or(u32::MAX).saturating_sub(share)
    }

    /// The reserved part; a `max` below `min` wins, because it limits what may be spent.
    fn reserved(&self) -> u32 {
        self.min.min(self.max.unwrap_or(u32::MAX))
    }
}

/// The shares of the source and the units. `source + sum(units) + unplaced` is what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Share of the source.
    pub source: u32,
    /// Shares of the units, in the order of the spec.
    pub units: Vec<u32>,
    /// Replicas for which every place is full.
    pub unplaced: u32,
}

/// Distributes `replicas`: first the minima in order, then the source up to its `max`, then the units in order.
///
/// Taking away is the same function with a smaller number, so the last unit loses first and the source last,
/// down to its `min` only when the units' own minima need the rest.
pub fn distribute(replicas: u32, source: Bounds, units: &[Bounds]) -> Distribution {
    let places: Vec<Bounds> = std::iter::once(source)
        .chain(units.iter().copied())
        .collect();
    let mut left = replicas;
    let mut shares: Vec<u32> = places
        .iter()
        .map(|place| {
            let share = place.reserved().min(left);
            left -= share;
            share
        })
        .collect();
    for (place, share) in places.iter().zip(shares.iter_mut()) {
        let more = place.room_above(*share).min(left);
        *share += more;
        left -= more;
    }
    let units = shares.split_off(1);
    Distribution {
        source: shares[0],
        units,
        unplaced: left,
    }
}

/// A place with what is known about it besides its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The least and the most it takes.
    pub bounds: Bounds,
    /// The most it can get just now; no limit when absent. A reserved minimum waits there all the same.
    pub capacity: Option<u32>,
    /// What was last asked of it.
    pub current: u32,
}

impl Place {
    /// The bounds, with the most it can get just now.
    fn within_capacity(&self) -> Bounds {
        let Some(capacity) = self.capacity else {
            return self.bounds;
        };
        let most = capacity.max(self.bounds.reserved());
        Bounds {
            max: Some(self.bounds.max.map_or(most, |max| max.min(most))),
            ..self.bounds
        }
    }
}

/// Distributes `replicas` over places, the source first. With `rebalance` replicas may move to an earlier place that has
/// room; without, what runs stays where it is as long as bounds and capacities allow.
///
/// When capacities leave replicas without a place, these wait at the first places whose bounds have room: they are wanted,
/// so somebody has to ask for them.
pub fn distribute_places(replicas: u32, places: &[Place], rebalance: bool) -> Distribution {
    let Some((source, units)) = places.split_first() else {
        return Distribution {
            source: 0,
            units: Vec::new(),
            unplaced: replicas,
        };
    };
    let limited: Vec<Bounds> = places.iter().map(Place::within_capacity).collect();
    let mut shares = if rebalance {
        distribute(replicas, limited[0], &limited[1..])
    } else {
        stay(replicas, places, &limited)
    };
    let wait = |share: &mut u32, place: &Place, left: &mut u32| {
        let more = place.bounds.room_above(*share).min(*left);
        *share += more;
        *left -= more;
    };
    wait(&mut shares.source, source, &mut shares.unplaced);
    for (share, unit) in shares.units.iter_mut().zip(units) {
        wait(share, unit, &mut shares.unplaced);
    }
    shares
}

/// Adds to the first places with room, takes from the last ones, and moves nothing else.
fn stay(replicas: u32, places: &[Place], limited: &[Bounds]) -> Distribution {
    let mut left = replicas;
    let mut shares: Vec<u32> = limited
        .iter()
        .map(|bounds| {
            let share = bounds.reserved().min(left);
            left -= share;
            share
        })
        .collect();
    // What runs stays, first places first, so that what is too much is missing at the last ones.
    for ((share, bounds), place) in shares.iter_mut().zip(limited).zip(places) {
        let kept = place.current.saturating_sub(*share);
        let kept = kept.min(bounds.room_above(*share)).min(left);
        *share += kept;
        left -= kept;
    }
    for (share, bounds) in shares.iter_mut().zip(limited) {
        let more = bounds.room_above(*share).min(left);
        *share += more;
        left -= more;
    }
    let units = shares.split_off(1);
    Distribution {
        source: shares[0],
        units,
        unplaced: left,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(min: u32, max: Option<u32>) -> Bounds {
        Bounds { min, max }
    }

    #[test]
    fn the_documented_example_gives_four_and_two() {
        let shares = distribute(6, bounds(2, Some(4)), &[bounds(0, None)]);
        assert_eq!(
            shares,
            Distribution {
                source: 4,
                units: vec![2],
                unplaced: 0
            }
        );
        let shares = distribute(4, bounds(2, Some(4)), &[bounds(0, None)]);
        assert_eq!(
            shares,
            Distribution {
                source: 4,
                units: vec![0],
                unplaced: 0
            }
        );
    }

    #[test]
    fn units_fill_in_order_and_the_rest_is_unplaced() {
        let shares = distribute(
            20,
            bounds(0, Some(4)),
            &[bounds(0, Some(5)), bounds(0, Some(6))],
        );
        assert_eq!(
            shares,
            Distribution {
                source: 4,
                units: vec![5, 6],
                unplaced: 5
            }
        );
    }

    #[test]
    fn a_unit_minimum_is_reserved_before_the_source_grows_beyond_its_own() {
        let shares = distribute(4, bounds(1, Some(4)), &[bounds(2, None)]);
        assert_eq!(
            shares,
            Distribution {
                source: 2,
                units: vec![2],
                unplaced: 0
            }
        );
        let shares = distribute(2, bounds(1, Some(4)), &[bounds(2, None)]);
        assert_eq!(
            shares,
            Distribution {
                source: 1,
                units: vec![1],
                unplaced: 0
            }
        );
    }

    fn place(max: Option<u32>, capacity: Option<u32>, current: u32) -> Place {
        Place {
            bounds: bounds(0, max),
            capacity,
            current,
        }
    }

    fn all(shares: &Distribution) -> Vec<u32> {
        std::iter::once(shares.source)
            .chain(shares.units.iter().copied())
            .collect()
    }

    #[test]
    fn a_place_without_capacity_passes_its_share_on_and_gets_it_back() {
        let short = [place(Some(4), Some(3), 4), place(None, None, 2)];
        assert_eq!(all(&distribute_places(6, &short, true)), [3, 3]);
        let recovered = [place(Some(4), None, 3), place(None, None, 3)];
        assert_eq!(all(&distribute_places(6, &recovered, true)), [4, 2]);
        // Unless what runs is to stay; the next replica goes to the first place again, and the last one loses first.
        assert_eq!(all(&distribute_places(6, &recovered, false)), [3, 3]);
        assert_eq!(all(&distribute_places(7, &recovered, false)), [4, 3]);
        assert_eq!(all(&distribute_places(4, &recovered, false)), [3, 1]);
    }

    #[test]
    fn a_minimum_waits_where_it_is_wanted() {
        let source = Place {
            bounds: bounds(3, Some(4)),
            capacity: Some(1),
            current: 4,
        };
        let places = [source, place(None, None, 0)];
        assert_eq!(all(&distribute_places(6, &places, true)), [3, 3]);
    }

    #[test]
    fn when_nobody_has_capacity_the_replicas_wait_at_the_first_places_with_room() {
        let places = [place(Some(4), Some(1), 4), place(None, Some(2), 4)];
        let shares = distribute_places(8, &places, true);
        assert_eq!((all(&shares), shares.unplaced), (vec![4, 4], 0));
        let places = [place(Some(4), Some(1), 4), place(Some(5), Some(2), 4)];
        assert_eq!(distribute_places(10, &places, true).unplaced, 1);
    }

    fn any_bounds() -> impl Strategy<Value = Bounds> {
        (0u32..20, proptest::option::of(0u32..40)).prop_map(|(min, extra)| Bounds {
            min,
            max: extra.map(|extra| min + extra),
        })
    }

    proptest! {
            #[test]
            fn the_sum_is_what_was_wanted_and_bounds_are_kept(
                replicas in 0u32..2000,
                source in any_bounds(),
                units in proptest::collection::vec(any_bounds(), 0..5),
            ) {
                let shares = distribute(replicas, source, &units);
                prop_assert_eq!(shares.source + shares.units.iter().sum::<u32>() + shares.unplaced, replicas);
                let places: Vec<_> = std::iter::once(source).chain(units.iter().copied()).collect();
                let all: Vec<_> = std::iter::once(shares.source).chain(shares.units.iter().copied()).collect();
                let minima: u32 = places.iter().map(|place| place.min).sum();
                for (place, share) in places.iter().zip(&all) {
                    prop_assert!(place.max.is_none_or(|max| *share <= max));
                    prop_assert!(replicas < minima || *share >= place.min);
                }
                prop_assert!(shares.unplaced == 0 || places.iter().zip(&all).all(|(place, share)| place.max == Some(*share)));
            }

            #[test]
            fn capacities_and_what_runs_never_break_bounds_or_lose_replicas(
                replicas in 0u32..200,
                places in proptest::collection::vec(
                    (any_bounds(), proptest::option::of(0u32..40), 0u32..60)
                        .prop_map(|(bounds, capacity, current)| Place { bounds, capacity, current }),
                    1..5,
                ),
                rebalance in any::<bool>(),
            ) {
                let shares = distribute_places(replicas, &places, rebalance);
                prop_assert_eq!(all(&shares).iter().sum::<u32>() + shares.unplaced, replicas);
                let minima: u32 = places.iter().map(|place| place.bounds.min).sum();
                for (place, share) in places.iter().zip(all(&shares)) {
                    prop_assert!(place.bounds.max.is_none_or(|max| share <= max));
                    prop_assert!(replicas < minima || share >= place.bounds.min);
                    prop_assert!(shares.unplaced == 0 || place.bounds.max == Some(share));
                }
                let free: Vec<Place> = places.iter().map(|place| Place { capacity: None, ..*place }).collect();
                let bounds: Vec<Bounds> = places.iter().map(|place| place.bounds).collect();
                prop_assert_eq!(distribute_places(replicas, &free, true), distribute(replicas, bounds[0], &bounds[1..]));
                // Nothing moves by itself: what was decided once is decided again.
                let settled: Vec<Place> = places.iter().zip(all(&shares)).map(|(place, share)| Place { current: share, ..*place }).collect();
                prop_assert_eq!(distribute_places(replicas, &settled, rebalance), shares);
            }

            #[test]
            fn owned_nodes_fill_first_and_serverless_empties_first(
                replicas in 0u32..2000,
                source in any_bounds(),
                units in proptest::collection::vec(any_bounds(), 1..5),
            ) {
                let shares = distribute(replicas, source, &units);
                let more = distribute(replicas + 1, source, &units);
                // A step up never takes from anyone, and reaches a unit beyond its minimum only when all before are full.
                prop_assert!(more.source >= shares.source);
                for index in 0..units.len() {
                    prop_assert!(more.units[index] >= shares.units[index]);
                    if shares.units[index] > units[index].min {
                        prop_assert_eq!(Some(shares.source), source.max);
                        for (share, unit) in shares.units.iter().zip(&units).take(index) {
     prop_assert_eq!(Some(*share), unit.max);
    }
                    }
                }
            }
        }
}

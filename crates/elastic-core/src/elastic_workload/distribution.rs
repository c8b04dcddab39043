//! How many replicas go where. Pure arithmetic; who is asked to change, and when, is decided in `plan`.

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

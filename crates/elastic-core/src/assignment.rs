//! Which of several places, in their order, the next pod goes to.

use crate::elastic_workload::Bounds;

/// One place with what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its least and most pods.
    pub bounds: Bounds,
    /// Pods it has.
    pub pods: u32,
    /// Whether it takes more now.
    pub open: bool,
}

/// The index of the place for one more pod: minima first, then each up to its maximum; closed ones are skipped. `None`
/// when all are full or closed.
///
/// Giving pods one by one ends where giving all at once does.
pub fn next_place(places: &[Place]) -> Option<usize> {
    let room = |place: &Place| place.open && place.bounds.max.is_none_or(|max| place.pods < max);
    let below_minimum = |place: &Place| room(place) && place.pods < place.bounds.min;
    places
        .iter()
        .position(below_minimum)
        .or_else(|| places.iter().position(room))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elastic_workload::distribute;

    fn place(min: u32, max: Option<u32>, pods: u32, open: bool) -> Place {
        Place {
            bounds: Bounds { min, max },
            pods,
            open,
        }
    }

    #[test]
    fn places_fill_in_order_and_closed_ones_are_skipped() {
        let cases = [
            (
                vec![place(0, Some(2), 1, true), place(0, None, 0, true)],
                Some(0),
            ),
            (
                vec![place(0, Some(2), 2, true), place(0, None, 0, true)],
                Some(1),
            ),
            (
                vec![place(0, Some(2), 0, false), place(0, None, 0, true)],
                Some(1),
            ),
            (
                vec![place(1, None, 1, true), place(2, None, 1, true)],
                Some(1),
            ),
            (
                vec![place(0, Some(1), 1, true), place(0, Some(1), 5, true)],
                None,
            ),
            (vec![], None),
        ];
        for (places, expected) in cases {
            assert_eq!(next_place(&places), expected, "{places:?}");
        }
    }

    proptest! {
        #[test]
        fn one_by_one_ends_where_all_at_once_does(
            bounds in proptest::collection::vec((0u32..6, proptest::option::of(0u32..12)), 1..5), pods in 0u32..60
        ) {
            let bounds: Vec<Bounds> = bounds
                .into_iter()
                .map(|(min, more)| Bounds { min, max: more.map(|more| min + more) })
                .collect();
            let mut places: Vec<Place> =
                bounds.iter().map(|bounds| Place { bounds: *bounds, pods: 0, open: true }).collect();
            let mut unplaced = 0;
            for _ in 0..pods {
                match next_place(&places) {
                    Some(index) => places[index].pods += 1,
                    None => unplaced += 1,
                }
            }
            let all = distribute(pods, bounds[0], &bounds[1..]);
            prop_assert_eq!(places[0].pods, all.source);
            let units: Vec<u32> = places[1..].iter().map(|place| place.pods).collect();
            prop_assert_eq!(units, all.units);
            prop_assert_eq!(unplaced, all.unplaced);
        }
    }
}

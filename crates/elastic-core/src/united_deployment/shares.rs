//! How the replicas are shared by subsets that all take what they are given.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Topology;
use crate::elastic_workload::{Bounds, Distribution, distribute};

/// A share as written: a number of replicas, or hundredths of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Count(u32),
    Percent(u32),
}

/// Reads a number or a percentage.
pub(crate) fn amount(written: &IntOrString) -> Result<Amount, String> {
    let wrong = |text: &dyn std::fmt::Display| {
        format!("{text} is neither 0 or more nor a percentage such as \"40%\"")
    };
    match written {
        IntOrString::Int(count) => u32::try_from(*count)
            .map(Amount::Count)
            .map_err(|_| wrong(count)),
        IntOrString::String(text) => {
            let number = text.strip_suffix('%').and_then(|text| text.parse().ok());
            number
                .filter(|percent| *percent <= 100)
                .map(Amount::Percent)
                .ok_or_else(|| wrong(text))
        }
    }
}

impl Amount {
    /// Rounded to the nearest, halves up.
    pub(crate) fn of(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let hundredfold = u64::from(replicas) * u64::from(percent);
                u32::try_from((hundredfold + 50) / 100).unwrap_or(u32::MAX)
            }
        }
    }
}

/// Least and most replicas of each subset, in their order.
pub fn elastic_bounds(topology: &Topology, replicas: u32) -> Vec<Bounds> {
    let count = |written: &Option<IntOrString>| {
        let amount = written.as_ref().and_then(|written| amount(written).ok());
        amount.map(|amount| amount.of(replicas))
    };
    let bounds = topology.subsets.iter().map(|subset| Bounds {
        min: count(&subset.min_replicas).unwrap_or(0),
        max: count(&subset.max_replicas),
    });
    bounds.collect()
}

/// The shares of the subsets in their order, and what has no place.
///
/// With any minimum or maximum the subsets fill in order. Otherwise those with a share of their own get it, as far as
/// there is enough, and the others divide the rest evenly; shares that are percentages of the whole leave nothing over.
pub fn share(topology: &Topology, replicas: u32) -> (Vec<u32>, u32) {
    let elastic =
        |subset: &super::Subset| subset.min_replicas.is_some() || subset.max_replicas.is_some();
    if topology.subsets.iter().any(elastic) {
        return in_order(replicas, &elastic_bounds(topology, replicas));
    }
    let mut left = replicas;
    let mut shares = Vec::with_capacity(topology.subsets.len());
    let mut percent = 0;
    for subset in &topology.subsets {
        let amount = subset
            .replicas
            .as_ref()
            .and_then(|written| amount(written).ok());
        if let Some(Amount::Percent(hundredths)) = amount {
            percent += hundredths;
        }
        let share = amount.map(|amount| amount.of(replicas).min(left));
        left -= share.unwrap_or(0);
        shares.push(share);
    }
    let open = shares.iter().filter(|share| share.is_none()).count();
    let without = shares.iter_mut().filter(|share| share.is_none());
    for (index, share) in without.enumerate() {
        *share = Some(part(left, open, index));
    }
    if open > 0 {
        left = 0;
    }
    let mut shares: Vec<u32> = shares.into_iter().flatten().collect();
    // What rounding left over goes where percentages of the whole are.
    if percent == 100
        && let Some(first) = shares.first_mut()
    {
        *first += std::mem::take(&mut left);
    }
    (shares, left)
}

/// The part of one of `places` when `total` is divided evenly; earlier ones get what is over.
fn part(total: u32, places: usize, index: usize) -> u32 {
    let places = u32::try_from(places).unwrap_or(u32::MAX).max(1);
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    total / places + u32::from(index < total % places)
}

/// Shares of places that fill in order.
pub(super) fn in_order(replicas: u32, bounds: &[Bounds]) -> (Vec<u32>, u32) {
    let Some((first, others)) = bounds.split_first() else {
        return (Vec::new(), replicas);
    };
    let Distribution {
        source,
        units,
        unplaced,
    } = distribute(replicas, *first, others);
    let shares = std::iter::once(source).chain(units).collect();
    (shares, unplaced)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn topology(subsets: Value) -> Topology {
        let mut subsets = subsets;
        for (index, subset) in subsets.as_array_mut().unwrap().iter_mut().enumerate() {
            subset["name"] = json!(format!("s{index}"));
        }
        serde_json::from_value(json!({"subsets": subsets})).unwrap()
    }

    #[test]
    fn every_way_to_write_shares_gives_the_documented_numbers() {
        let cases = [
            (json!([{}, {}, {}]), 10, vec![4, 3, 3], 0),
            (json!([{"replicas": 2}, {}, {}]), 10, vec![2, 4, 4], 0),
            (
                json!([{"replicas": "20%"}, {"replicas": 5}, {}]),
                10,
                vec![2, 5, 3],
                0,
            ),
            (
                json!([{"replicas": "33%"}, {"replicas": "33%"}, {"replicas": "34%"}]),
                10,
                vec![4, 3, 3],
                0,
            ),
            (
                json!([{"replicas": "50%"}, {"replicas": "50%"}]),
                5,
                vec![3, 2],
                0,
            ),
            (json!([{"replicas": 2}, {"replicas": 3}]), 10, vec![2, 3], 5),
            (json!([{"replicas": 8}, {"replicas": 8}]), 10, vec![8, 2], 0),
            (json!([{"maxReplicas": 4}, {}]), 10, vec![4, 6], 0),
            (json!([{"maxReplicas": "50%"}, {}]), 10, vec![5, 5], 0),
            (
                json!([{"minReplicas": 2, "maxReplicas": 4}, {"minReplicas": 3}]),
                4,
                vec![2, 2],
                0,
            ),
            (
                json!([{"maxReplicas": 1}, {"maxReplicas": 2}]),
                5,
                vec![1, 2],
                2,
            ),
            (json!([{}]), 0, vec![0], 0),
        ];
        for (subsets, replicas, shares, left) in cases {
            let found = share(&topology(subsets.clone()), replicas);
            assert_eq!(found, (shares, left), "{replicas} {subsets}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for wrong in [json!(-1), json!("101%"), json!("ten"), json!("-5%")] {
            let written = serde_json::from_value(wrong.clone()).unwrap();
            assert!(amount(&written).is_err(), "{wrong}");
        }
    }

    fn written() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({})),
            (0u32..30).prop_map(|count| json!({"replicas": count})),
            (0u32..=100).prop_map(|percent| json!({"replicas": format!("{percent}%")})),
        ]
    }

    proptest! {
        #[test]
        fn shares_and_rest_are_what_was_wanted(subsets in proptest::collection::vec(written(), 1..6), replicas in 0u32..500) {
            let (shares, left) = share(&topology(Value::Array(subsets)), replicas);
            prop_assert_eq!(shares.iter().sum::<u32>() + left, replicas);
        }
    }
}

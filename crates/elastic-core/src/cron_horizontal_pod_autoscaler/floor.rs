//! Windows: a floor under a target while they are open, and what is given back when they close.
//!
//! What somebody else changed meanwhile is theirs: only numbers that are still the ones written here are given back.

use super::{Floor, TargetNumbers};

/// What a target looks like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetSize {
    /// Replicas asked of the workload.
    pub replicas: i32,
    /// Least and most of the HorizontalPodAutoscaler, when the target is one.
    pub bounds: Option<(i32, i32)>,
}

/// What to write so that a floor holds; `floor` is recorded first, so that a crash in between loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorStep {
    /// The floor with what it saved.
    pub floor: Floor,
    /// Numbers to write.
    pub write: TargetNumbers,
}

/// Holds `floor` under the target; none when it holds already.
pub fn hold(floor: &Floor, target: TargetSize) -> Option<FloorStep> {
    let mut next = floor.clone();
    let least = floor.target_size;
    let mut write = TargetNumbers::default();
    if let Some((min, max)) = target.bounds {
        let saved = (&mut next.saved.min_replicas, &mut next.applied.min_replicas);
        write.min_replicas = raise(min, least, saved);
        let saved = (&mut next.saved.max_replicas, &mut next.applied.max_replicas);
        write.max_replicas = raise(max, least, saved);
        // The autoscaler would follow by itself, but only in its next round.
        write.replicas = (target.replicas < least).then_some(least);
    } else {
        let saved = (&mut next.saved.replicas, &mut next.applied.replicas);
        write.replicas = raise(target.replicas, least, saved);
    }
    let differs = write != TargetNumbers::default() || next != *floor;
    differs.then_some(FloorStep { floor: next, write })
}

/// The number to write in place of `current`, keeping in mind what it was.
fn raise(
    current: i32,
    least: i32,
    (saved, applied): (&mut Option<i32>, &mut Option<i32>),
) -> Option<i32> {
    if current < least {
        // A floor that rose further still gives back what was before the first one.
        if applied.is_none_or(|applied| applied != current) || saved.is_none() {
            *saved = Some(current);
        }
        *applied = Some(least);
        return Some(least);
    }
    if *applied == Some(current) && current > least {
        // A higher window has ended, a lower one is still open.
        let to = saved.unwrap_or(least).max(least);
        *applied = Some(to);
        return (to != current).then_some(to);
    }
    None
}

/// What to write when the last window has closed.
pub fn release(floor: &Floor, target: TargetSize) -> TargetNumbers {
    let back = |current: i32, saved: Option<i32>, applied: Option<i32>| {
        saved.filter(|saved| applied == Some(current) && *saved != current)
    };
    let (saved, applied) = (floor.saved, floor.applied);
    match target.bounds {
        Some((min, max)) => TargetNumbers {
            min_replicas: back(min, saved.min_replicas, applied.min_replicas),
            max_replicas: back(max, saved.max_replicas, applied.max_replicas),
            replicas: None,
        },
        None => TargetNumbers {
            replicas: back(target.replicas, saved.replicas, applied.replicas),
            ..TargetNumbers::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(size: i32) -> Floor {
        Floor {
            target_size: size,
            ..Floor::default()
        }
    }

    fn plain(replicas: i32) -> TargetSize {
        TargetSize {
            replicas,
            bounds: None,
        }
    }

    fn hpa(replicas: i32, min: i32, max: i32) -> TargetSize {
        TargetSize {
            replicas,
            bounds: Some((min, max)),
        }
    }

    #[test]
    fn a_workload_is_raised_and_given_back() {
        let step = hold(&floor(10), plain(3)).unwrap();
        assert_eq!(step.write.replicas, Some(10));
        assert_eq!(hold(&step.floor, plain(10)), None, "holds already");
        assert_eq!(release(&step.floor, plain(10)).replicas, Some(3));
        let grown = release(&step.floor, plain(14));
        assert_eq!(grown.replicas, None, "somebody else's number stays");
    }

    #[test]
    fn a_workload_above_the_floor_is_left_alone_and_raised_when_it_falls() {
        assert_eq!(hold(&floor(5), plain(8)), None);
        let step = hold(&floor(5), plain(2)).unwrap();
        assert_eq!(release(&step.floor, plain(5)).replicas, Some(2));
        let nothing = release(&floor(5), plain(8));
        assert_eq!(nothing, TargetNumbers::default());
    }

    #[test]
    fn overlapping_windows_hold_their_highest_and_the_base_survives() {
        let low = hold(&floor(5), plain(2)).unwrap().floor;
        let step = hold(
            &Floor {
                target_size: 9,
                ..low
            },
            plain(5),
        )
        .unwrap();
        assert_eq!(step.write.replicas, Some(9));
        let step = hold(
            &Floor {
                target_size: 5,
                ..step.floor
            },
            plain(9),
        )
        .unwrap();
        assert_eq!(step.write.replicas, Some(5), "the higher window has ended");
        assert_eq!(release(&step.floor, plain(5)).replicas, Some(2));
    }

    #[test]
    fn an_autoscalers_bounds_are_raised_and_given_back() {
        let step = hold(&floor(12), hpa(3, 1, 10)).unwrap();
        let expected = TargetNumbers {
            replicas: Some(12),
            min_replicas: Some(12),
            max_replicas: Some(12),
        };
        assert_eq!(step.write, expected);
        let back = release(&step.floor, hpa(12, 12, 12));
        assert_eq!((back.min_replicas, back.max_replicas), (Some(1), Some(10)));
        assert_eq!(back.replicas, None, "the autoscaler lowers by itself");
        let edited = release(&step.floor, hpa(12, 2, 12));
        assert_eq!(edited.min_replicas, None, "somebody else's number stays");
    }
}

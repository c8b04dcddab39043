//! How the bounds written in a spec are meant.

use super::{Bounds, ElasticUnit, SourceTarget};

/// The bounds of the source. A source that gives neither `min` nor `max` is a template only and runs nothing itself:
/// that is the documented "units only" form, in which the units name every place where pods may be.
pub fn bounds_of_source(source: &SourceTarget) -> Bounds {
    match (source.min, source.max) {
        (None, None) => Bounds {
            min: 0,
            max: Some(0),
        },
        (min, max) => bounds(min, max),
    }
}

/// The bounds of a unit; no `max` means no limit.
pub fn bounds_of_unit(unit: &ElasticUnit) -> Bounds {
    bounds(unit.min, unit.max)
}

fn bounds(min: Option<i32>, max: Option<i32>) -> Bounds {
    Bounds {
        min: count(min.unwrap_or(0)),
        max: max.map(count),
    }
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

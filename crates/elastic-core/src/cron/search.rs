//! The next and the last local time that fields allow. No zone here: local times only.

use jiff::ToSpan;
use jiff::civil::{DateTime, Time};

use super::fields::Fields;

/// 29 February is at most eight years away; what does not come by then never comes.
const YEARS_MOST: i16 = 9;

/// The first allowed time after `after`, which has whole seconds.
pub(super) fn next_local(fields: &Fields, after: DateTime) -> Option<DateTime> {
    let start = after.checked_add(1.second()).ok()?;
    let last_year = start.year().saturating_add(YEARS_MOST);
    let (mut date, mut from) = (start.date(), start.time());
    while date.year() <= last_year {
        if !fields.months.has(date.month()) {
            date = date.last_of_month().tomorrow().ok()?;
            from = Time::midnight();
            continue;
        }
        if fields.has_day(date)
            && let Some(time) = next_time(fields, from)
        {
            return Some(date.to_datetime(time));
        }
        date = date.tomorrow().ok()?;
        from = Time::midnight();
    }
    None
}

/// The newest allowed time that is not after `until`, which has whole seconds.
pub(super) fn last_local(fields: &Fields, until: DateTime) -> Option<DateTime> {
    let first_year = until.year().saturating_sub(YEARS_MOST);
    let (mut date, mut to) = (until.date(), until.time());
    let day_end = Time::constant(23, 59, 59, 0);
    while date.year() >= first_year {
        if !fields.months.has(date.month()) {
            date = date.first_of_month().yesterday().ok()?;
            to = day_end;
            continue;
        }
        if fields.has_day(date)
            && let Some(time) = last_time(fields, to)
        {
            return Some(date.to_datetime(time));
        }
        date = date.yesterday().ok()?;
        to = day_end;
    }
    None
}

pub(super) fn second_before(local: DateTime) -> Option<DateTime> {
    local.checked_sub(1.second()).ok()
}

fn next_time(fields: &Fields, from: Time) -> Option<Time> {
    let first_minute = fields.minutes.from(0)?;
    let first_second = fields.seconds.from(0)?;
    let hour = fields.hours.from(from.hour())?;
    if hour > from.hour() {
        return Some(Time::constant(hour, first_minute, first_second, 0));
    }
    if let Some(minute) = fields.minutes.from(from.minute()) {
        if minute > from.minute() {
            return Some(Time::constant(hour, minute, first_second, 0));
        }
        if let Some(second) = fields.seconds.from(from.second()) {
            return Some(Time::constant(hour, minute, second, 0));
        }
        if let Some(minute) = fields.minutes.from(minute + 1) {
            return Some(Time::constant(hour, minute, first_second, 0));
        }
    }
    let hour = fields.hours.from(hour + 1)?;
    Some(Time::constant(hour, first_minute, first_second, 0))
}

fn last_time(fields: &Fields, to: Time) -> Option<Time> {
    let last_minute = fields.minutes.up_to(59)?;
    let last_second = fields.seconds.up_to(59)?;
    let hour = fields.hours.up_to(to.hour())?;
    if hour < to.hour() {
        return Some(Time::constant(hour, last_minute, last_second, 0));
    }
    if let Some(minute) = fields.minutes.up_to(to.minute()) {
        if minute < to.minute() {
            return Some(Time::constant(hour, minute, last_second, 0));
        }
        if let Some(second) = fields.seconds.up_to(to.second()) {
            return Some(Time::constant(hour, minute, second, 0));
        }
        if let Some(minute) = fields.minutes.up_to(minute - 1) {
            return Some(Time::constant(hour, minute, last_second, 0));
        }
    }
    let hour = fields.hours.up_to(hour - 1)?;
    Some(Time::constant(hour, last_minute, last_second, 0))
}

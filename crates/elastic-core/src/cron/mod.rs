//! Cron schedules: from an expression, a time zone and a moment to the next or the last activation.
//!
//! The grammar is that of the engine CronHPA users know: `second minute hour day-of-month month day-of-week`, descriptors,
//! `@every` and `@date`. Two things differ on purpose: five fields are read as a Unix crontab means them, and `@date`
//! keeps its year. Local times that a change of the clocks leaves out act once, at the moment after the gap; local times that
//! come twice act at the first. There is no clock here: the moment is an argument.

mod exclusion;
mod fields;
mod search;
mod zone;

pub use exclusion::Exclusion;
pub use fields::ScheduleError;
pub use zone::{ZoneError, time_zone};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use fields::{Fields, parse_every};

/// When a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    form: Form,
    five_fields: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Fields(Fields),
    EverySeconds(i64),
    At(DateTime),
}

impl Schedule {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let whole = |form| Self {
            form,
            five_fields: false,
        };
        if let Some(date) = text.strip_prefix("@date ") {
            let date = date.trim();
            let parsed = date
                .parse()
                .map_err(|_| ScheduleError::Date(date.to_owned()))?;
            return Ok(whole(Form::At(parsed)));
        }
        if let Some(period) = text.strip_prefix("@every ") {
            return Ok(whole(Form::EverySeconds(parse_every(period.trim())?)));
        }
        if text.starts_with('@') {
            let expanded = match text {
                "@yearly" | "@annually" => "0 0 0 1 1 *",
                "@monthly" => "0 0 0 1 * *",
                "@weekly" => "0 0 0 * * 0",
                "@daily" | "@midnight" => "0 0 0 * * *",
                "@hourly" => "0 0 * * * *",
                _ => return Err(ScheduleError::Descriptor(text.to_owned())),
            };
            return Ok(whole(Form::Fields(Fields::parse(expanded)?.0)));
        }
        let (fields, five_fields) = Fields::parse(text)?;
        Ok(Self {
            form: Form::Fields(fields),
            five_fields,
        })
    }

    /// Whether the expression has five fields, as a crontab's lines have, and not six.
    pub fn has_five_fields(&self) -> bool {
        self.five_fields
    }

    /// Whether the schedule names a single moment.
    pub fn is_single(&self) -> bool {
        matches!(self.form, Form::At(_))
    }

    /// The first activation after `after`; `anchor` is what `@every` counts from. None: never again.
    pub fn next_after(
        &self,
        after: Timestamp,
        zone: &TimeZone,
        anchor: Timestamp,
    ) -> Option<Timestamp> {
        match &self.form {
            Form::Fields(fields) => {
                let mut local = whole_second(zone.to_datetime(after));
                loop {
                    local = search::next_local(fields, local)?;
                    let at = zone::instant(zone, local)?;
                    if at > after {
                        return Some(at);
                    }
                }
            }
            Form::EverySeconds(period) => {
                let passed = after.as_second().saturating_sub(anchor.as_second());
                let count = passed.max(0) / period + 1;
                every(anchor, *period, count)
            }
            Form::At(local) => zone::instant(zone, *local).filter(|at| *at > after),
        }
    }

    /// The newest activation that is not after `until`; none when there was none within nine years.
    pub fn last_until(
        &self,
        until: Timestamp,
        zone: &TimeZone,
        anchor: Timestamp,
    ) -> Option<Timestamp> {
        match &self.form {
            Form::Fields(fields) => {
                // In the second passing of a repeated hour the times of the first have all been.
                let mut local = zone::last_passed(zone, until)?;
                loop {
                    let found = search::last_local(fields, local)?;
                    let at = zone::instant(zone, found)?;
                    if at <= until {
                        return Some(at);
                    }
                    local = search::second_before(found)?;
                }
            }
            Form::EverySeconds(period) => {
                let count = until.as_second().saturating_sub(anchor.as_second()) / period;
                (count > 0).then(|| every(anchor, *period, count)).flatten()
            }
            Form::At(local) => zone::instant(zone, *local).filter(|at| *at <= until),
        }
    }
}

fn every(anchor: Timestamp, period: i64, count: i64) -> Option<Timestamp> {
    let second = anchor.as_second().checked_add(period.checked_mul(count)?)?;
    Timestamp::from_second(second).ok()
}

fn whole_second(local: DateTime) -> DateTime {
    let time = local.time();
    local
        .date()
        .at(time.hour(), time.minute(), time.second(), 0)
}

#[cfg(test)]
mod tests;

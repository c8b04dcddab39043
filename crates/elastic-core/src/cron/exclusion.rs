//! Days on which jobs do not run: `excludeDates`.
//!
//! An expression excludes whole days: its month and day fields are compared with the date, its hours, minutes and seconds
//! are not looked at. `@date` and a bare `YYYY-MM-DD` exclude that one day.

use jiff::civil::Date;

use super::fields::{Fields, ScheduleError};
use super::{Form, Schedule};

/// One day, or all days that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    text: String,
    days: Days,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Days {
    Matching(Fields),
    One(Date),
}

impl Exclusion {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let days = if let Ok(date) = text.trim().parse::<Date>() {
            Days::One(date)
        } else if let Some(date) = text.trim().strip_prefix("@date ") {
            // The time of day is optional here, since only the day counts.
            let date = date.trim();
            let parsed = date.parse::<Date>();
            Days::One(parsed.map_err(|_| ScheduleError::Date(date.to_owned()))?)
        } else {
            match Schedule::parse(text)?.form {
                Form::Fields(fields) => Days::Matching(fields),
                Form::EverySeconds(_) | Form::At(_) => {
                    return Err(ScheduleError::Descriptor(text.to_owned()));
                }
            }
        };
        Ok(Self {
            text: text.to_owned(),
            days,
        })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `date` is excluded.
    pub fn has(&self, date: Date) -> bool {
        match &self.days {
            Days::Matching(fields) => fields.months.has(date.month()) && fields.has_day(date),
            Days::One(one) => *one == date,
        }
    }
}

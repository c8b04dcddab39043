//! The fields of an expression as sets of numbers, and why an expression is refused.

/// What is wrong with an expression, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither five nor six fields.
    #[error(
        "expected 6 fields (second minute hour day-of-month month day-of-week), found {count}: {text:?}"
    )]
    Count {
        /// How many there are.
        count: usize,
        /// The expression.
        text: String,
    },
    /// One field cannot be read.
    #[error("field {field} cannot be {text:?}: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// The part at fault.
        text: String,
        /// What would be right.
        reason: String,
    },
    /// A word after `@` that does not exist.
    #[error(
        "descriptor {0:?} does not exist; there are @yearly, @monthly, @weekly, @daily, @hourly, @every <duration> and @date YYYY-MM-DD HH:MM:SS"
    )]
    Descriptor(String),
    /// The duration of `@every`.
    #[error("@every takes a duration such as 90s or 1h30m, from 1s to ten years, found {0:?}")]
    Every(String),
    /// The moment of `@date`.
    #[error("@date takes YYYY-MM-DD HH:MM:SS, found {0:?}")]
    Date(String),
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SECONDS_MOST: f64 = 10.0 * 366.0 * 86_400.0;

struct Kind {
    name: &'static str,
    least: u32,
    most: u32,
    words: &'static [&'static str],
}

const SECOND: Kind = numbers("second", 0, 59);
const MINUTE: Kind = numbers("minute", 0, 59);
const HOUR: Kind = numbers("hour", 0, 23);
const DAY_OF_MONTH: Kind = numbers("day-of-month", 1, 31);
const MONTH: Kind = Kind {
    words: MONTHS,
    ..numbers("month", 1, 12)
};
const DAY_OF_WEEK: Kind = Kind {
    words: DAYS,
    ..numbers("day-of-week", 0, 6)
};
/// A crontab's Sunday may be 7 as well.
const CRONTAB_DAY_OF_WEEK: Kind = Kind {
    words: DAYS,
    ..numbers("day-of-week", 0, 7)
};

const fn numbers(name: &'static str, least: u32, most: u32) -> Kind {
    Kind {
        name,
        least,
        most,
        words: &[],
    }
}

/// The numbers a field allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    bits: u64,
    /// Written with `*` or `?`, which decides how the two day fields go together.
    open: bool,
}

impl Set {
    pub(super) fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }

    /// The least member from `number` on.
    pub(super) fn from(self, number: i8) -> Option<i8> {
        let rest = self.bits & (u64::MAX << u32::try_from(number).ok()?.min(63));
        (rest != 0).then(|| i8::try_from(rest.trailing_zeros()).unwrap_or(i8::MAX))
    }

    /// The greatest member up to `number`.
    pub(super) fn up_to(self, number: i8) -> Option<i8> {
        let number = u32::try_from(number).ok()?.min(63);
        let rest = self.bits & (u64::MAX >> (63 - number));
        (rest != 0).then(|| i8::try_from(63 - rest.leading_zeros()).unwrap_or(i8::MAX))
    }
}

/// An expression of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) seconds: Set,
    pub(super) minutes: Set,
    pub(super) hours: Set,
    pub(super) months: Set,
    days_of_month: Set,
    days_of_week: Set,
}

impl Fields {
    /// The fields, and whether there were five of them.
    pub(super) fn parse(text: &str) -> Result<(Self, bool), ScheduleError> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (seconds, rest, week) = match parts.as_slice() {
            [seconds, rest @ ..] if rest.len() == 5 => (*seconds, rest, &DAY_OF_WEEK),
            rest if rest.len() == 5 => ("0", rest, &CRONTAB_DAY_OF_WEEK),
            _ => {
                return Err(ScheduleError::Count {
                    count: parts.len(),
                    text: text.to_owned(),
                });
            }
        };
        let mut days_of_week = set(rest[4], week)?;
        if days_of_week.has(7) {
            days_of_week.bits = (days_of_week.bits | 1) & !(1 << 7);
        }
        let fields = Self {
            seconds: set(seconds, &SECOND)?,
            minutes: set(rest[0], &MINUTE)?,
            hours: set(rest[1], &HOUR)?,
            days_of_month: set(rest[2], &DAY_OF_MONTH)?,
            months: set(rest[3], &MONTH)?,
            days_of_week,
        };
        Ok((fields, parts.len() == 5))
    }

    /// Both day fields restricted: either may match; one of them open: both must.
    pub(super) fn has_day(&self, date: jiff::civil::Date) -> bool {
        let of_month = self.days_of_month.has(date.day());
        let of_week = self
            .days_of_week
            .has(date.weekday().to_sunday_zero_offset());
        if self.days_of_month.open || self.days_of_week.open {
            of_month && of_week
        } else {
            of_month || of_week
        }
    }
}

fn set(text: &str, kind: &Kind) -> Result<Set, ScheduleError> {
    let mut all = Set::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, kind)?;
        all.bits |= one.bits;
        all.open |= one.open;
    }
    if all.bits == 0 {
        return Err(wrong(kind, text, "it is empty".to_owned()));
    }
    Ok(all)
}

/// `*`, `N`, `N-M`, each with `/step`.
fn range(part: &str, kind: &Kind) -> Result<Set, ScheduleError> {
    let (bounds, step) = match part.split_once('/') {
        Some((bounds, step)) => (bounds, Some(number(step, part, kind)?)),
        None => (part, None),
    };
    if step == Some(0) {
        return Err(wrong(kind, part, "a step must be 1 or more".to_owned()));
    }
    let open = bounds == "*" || bounds == "?";
    let (first, last) = if open {
        // A crontab's 7 is the same Sunday as 0 and is not counted twice.
        let most = if kind.most == 7 { 6 } else { kind.most };
        (kind.least, most)
    } else if let Some((first, last)) = bounds.split_once('-') {
        (value(first, part, kind)?, value(last, part, kind)?)
    } else {
        let first = value(bounds, part, kind)?;
        (first, if step.is_some() { kind.most } else { first })
    };
    if first > last {
        return Err(wrong(
            kind,
            part,
            format!("the range must not run backwards, {first} is beyond {last}"),
        ));
    }
    let mut bits = 0;
    let mut at = first;
    while at <= last {
        bits |= 1 << at;
        at = at.saturating_add(step.unwrap_or(1));
    }
    Ok(Set { bits, open })
}

fn value(text: &str, part: &str, kind: &Kind) -> Result<u32, ScheduleError> {
    let word = text.to_ascii_lowercase();
    if let Some(index) = kind.words.iter().position(|known| *known == word) {
        return Ok(u32::try_from(index).unwrap_or(0) + kind.least);
    }
    let value = number(text, part, kind)?;
    if value < kind.least || value > kind.most {
        let sunday = if kind.name == DAY_OF_WEEK.name && value == 7 {
            ", Sunday is 0"
        } else {
            ""
        };
        return Err(wrong(
            kind,
            part,
            format!("it goes from {} to {}{sunday}", kind.least, kind.most),
        ));
    }
    Ok(value)
}

fn number(text: &str, part: &str, kind: &Kind) -> Result<u32, ScheduleError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = digits.then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| {
        let words = match kind.words {
            [] => String::new(),
            [first, .., last] => format!(" or {}-{}", first.to_uppercase(), last.to_uppercase()),
            [one] => format!(" or {one}"),
        };
        wrong(
            kind,
            part,
            format!("use numbers{words} with * , - / and ? only"),
        )
    })
}

fn wrong(kind: &Kind, text: &str, reason: String) -> ScheduleError {
    ScheduleError::Field {
        field: kind.name,
        text: text.to_owned(),
        reason,
    }
}

/// Whole seconds of a duration as Go writes it, such as `1h30m` or `1.5h`.
pub(super) fn parse_every(text: &str) -> Result<i64, ScheduleError> {
    let wrong = || ScheduleError::Every(text.to_owned());
    let mut seconds = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .ok_or_else(wrong)?;
        let count: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        seconds += count
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[end..];
    }
    if !(0.0..=SECONDS_MOST).contains(&seconds) {
        return Err(wrong());
    }
    // Bounded above; parts of a second are dropped on purpose.
    // bounded above; parts of a second are dropped on purpose
    let whole = seconds as i64;
    Ok(whole.max(1))
}

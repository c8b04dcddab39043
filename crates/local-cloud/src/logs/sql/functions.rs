//! Functions that the service's SQL has and the engine has not: time, texts, numbers, strict casts.
//!
//! Points in time are texts, `2024-01-02 03:04:05.000`, in UTC; numbers count as Unix seconds wherever a time is asked for.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit, Zoned};
use regex::{Regex, RegexBuilder};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};
use std::sync::Arc;

/// Most memory that one pattern may take.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
/// Length of the texts that stand for points in time, without milliseconds.
const SHORT_TIME: usize = 19;

/// Registers all of them; `now` stays the same for the whole query.
pub(super) fn register(connection: &Connection, now: Timestamp) -> Result<()> {
    numbers(connection)?;
    texts(connection)?;
    times(connection, now)?;
    for (name, forgiving) in [("presto_cast", false), ("presto_try_cast", true)] {
        scalar(connection, name, 2, move |context| {
            let kind: String = context.get(1)?;
            match cast(context.get_raw(0), &kind) {
                Err(_) if forgiving => Ok(Value::Null),
                other => other,
            }
        })?;
    }
    Ok(())
}

fn scalar(
    connection: &Connection,
    name: &str,
    arguments: i32,
    function: impl Fn(&Context<'_>) -> Result<Value>
    + Send
    + std::panic::UnwindSafe
    + std::panic::RefUnwindSafe
    + 'static,
) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(name, arguments, flags, move |context| function(context))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::UserFunctionError(message.into().into())
}

/// A number, or nothing for what is none.
pub(super) fn number(value: ValueRef<'_>) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "SQL's doubles lose it as well")]
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) => Some(number),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// A value of one's own.
pub(super) fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(format!("{number:?}")),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Some(String::from_utf8_lossy(text).into_owned())
        }
    }
}

fn real(number: Option<f64>) -> Value {
    number
        .filter(|number| number.is_finite())
        .map_or(Value::Null, Value::Real)
}

fn maybe(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::Text)
}

fn numbers(connection: &Connection) -> Result<()> {
    type Single = fn(f64) -> f64;
    let single: [(&str, Single); 10] = [
        ("ceil", f64::ceil),
        ("ceiling", f64::ceil),
        ("floor", f64::floor),
        ("sqrt", f64::sqrt),
        ("cbrt", f64::cbrt),
        ("exp", f64::exp),
        ("ln", f64::ln),
        ("log2", f64::log2),
        ("log10", f64::log10),
        ("truncate", f64::trunc),
    ];
    for (name, function) in single {
        scalar(connection, name, 1, move |context| {
            Ok(real(number(context.get_raw(0)).map(function)))
        })?;
    }
    for name in ["power", "pow"] {
        scalar(connection, name, 2, |context| {
            let (base, exponent) = (number(context.get_raw(0)), number(context.get_raw(1)));
            Ok(real(
                base.zip(exponent)
                    .map(|(base, exponent)| base.powf(exponent)),
            ))
        })?;
    }
    type Better = fn(f64, f64) -> bool;
    let extremes: [(&str, Better); 2] = [("greatest", |a, b| a > b), ("least", |a, b| a < b)];
    for (name, better) in extremes {
        scalar(connection, name, -1, move |context| {
            let mut best: Option<(f64, Value)> = None;
            for at in 0..context.len() {
                let Some(this) = number(context.get_raw(at)) else {
                    return Ok(Value::Null);
                };
                if best.as_ref().is_none_or(|(known, _)| better(this, *known)) {
                    best = Some((this, owned(context.get_raw(at))));
                }
            }
            Ok(best.map_or(Value::Null, |(_, value)| value))
        })?;
    }
    Ok(())
}

/// The compiled pattern of the second argument; kept for the whole query when it is always the same.
fn pattern(context: &Context<'_>) -> Result<Arc<Regex>> {
    context.get_or_create_aux(1, |value| -> std::result::Result<Regex, String> {
        let text = value.as_str().map_err(|error| error.to_string())?;
        let mut builder = RegexBuilder::new(text);
        let built = builder.size_limit(MAX_PATTERN_BYTES).build();
        built.map_err(|error| format!("the pattern {text:?} cannot be used: {error}"))
    })
}

fn texts(connection: &Connection) -> Result<()> {
    scalar(connection, "regexp_like", 2, |context| {
        let Some(value) = text(context.get_raw(0)) else {
            return Ok(Value::Null);
        };
        Ok(Value::Integer(pattern(context)?.is_match(&value).into()))
    })?;
    for arguments in [2, 3] {
        scalar(connection, "regexp_extract", arguments, |context| {
            let Some(value) = text(context.get_raw(0)) else {
                return Ok(Value::Null);
            };
            let group: i64 = if context.len() == 3 {
                context.get(2)?
            } else {
                0
            };
            let group =
                usize::try_from(group).map_err(|_| wrong("a group has no negative number"))?;
            let found = pattern(context)?
                .captures(&value)
                .and_then(|found| found.get(group).map(|part| part.as_str().to_owned()));
            Ok(maybe(found))
        })?;
        scalar(connection, "regexp_replace", arguments, |context| {
            let Some(value) = text(context.get_raw(0)) else {
                return Ok(Value::Null);
            };
            let by: String = if context.len() == 3 {
                context.get(2)?
            } else {
                String::new()
            };
            Ok(Value::Text(
                pattern(context)?
                    .replace_all(&value, by.as_str())
                    .into_owned(),
            ))
        })?;
    }
    scalar(connection, "split_part", 3, |context| {
        let (value, by) = (text(context.get_raw(0)), text(context.get_raw(1)));
        let place: i64 = context.get(2)?;
        let part = value.zip(by).and_then(|(value, by)| {
            let place = usize::try_from(place.checked_sub(1)?).ok()?;
            value.split(by.as_str()).nth(place).map(str::to_owned)
        });
        Ok(maybe(part))
    })?;
    scalar(connection, "strpos", 2, |context| {
        let (value, part) = (text(context.get_raw(0)), text(context.get_raw(1)));
        let place = value.zip(part).map(|(value, part)| {
            let found = value.find(&part).map(|at| value[..at].chars().count() + 1);
            i64::try_from(found.unwrap_or_default()).unwrap_or_default()
        });
        Ok(place.map_or(Value::Null, Value::Integer))
    })?;
    scalar(connection, "json_extract_scalar", 2, |context| {
        let (value, path) = (text(context.get_raw(0)), text(context.get_raw(1)));
        Ok(maybe(
            value
                .zip(path)
                .and_then(|(value, path)| json_scalar(&value, &path)),
        ))
    })
}

/// `$.a.b[0]` in a JSON text, when it is no object and no list.
fn json_scalar(value: &str, path: &str) -> Option<String> {
    let mut at: &serde_json::Value = &serde_json::from_str(value).ok()?;
    for step in path
        .strip_prefix('$')?
        .split(['.', '['])
        .filter(|step| !step.is_empty())
    {
        at = match step.strip_suffix(']') {
            Some(number) => at.get(number.parse::<usize>().ok()?)?,
            None => at.get(step)?,
        };
    }
    match at {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
        other => Some(other.to_string()),
    }
}

fn times(connection: &Connection, now: Timestamp) -> Result<()> {
    scalar(connection, "now", 0, move |_| Ok(Value::Text(shown(now))))?;
    scalar(connection, "from_unixtime", 1, |context| {
        Ok(maybe(time(context.get_raw(0))?.map(shown)))
    })?;
    scalar(connection, "to_unixtime", 1, |context| {
        let time = time(context.get_raw(0))?;
        Ok(real(time.map(|time| time.as_duration().as_secs_f64())))
    })?;
    scalar(connection, "date_trunc", 2, |context| {
        let unit: String = context.get(0)?;
        match time(context.get_raw(1))? {
            Some(time) => truncate(time, &unit).map(|time| Value::Text(shown(time))),
            None => Ok(Value::Null),
        }
    })?;
    scalar(connection, "date_extract", 2, |context| {
        let unit: String = context.get(0)?;
        match time(context.get_raw(1))? {
            Some(time) => part(time, &unit).map(Value::Integer),
            None => Ok(Value::Null),
        }
    })?;
    for unit in [
        "year",
        "month",
        "day",
        "hour",
        "minute",
        "second",
        "day_of_week",
        "week",
    ] {
        scalar(connection, unit, 1, move |context| {
            match time(context.get_raw(0))? {
                Some(time) => part(time, unit).map(Value::Integer),
                None => Ok(Value::Null),
            }
        })?;
    }
    scalar(connection, "date_format", 2, |context| {
        let format: String = context.get(1)?;
        let time = time(context.get_raw(0))?;
        time.map_or(Ok(Value::Null), |time| {
            formatted(time, &format).map(Value::Text)
        })
    })?;
    calculations(connection)
}

/// Reading times, and counting between them.
fn calculations(connection: &Connection) -> Result<()> {
    scalar(connection, "date_parse", 2, |context| {
        let (Some(value), format) = (text(context.get_raw(0)), context.get::<String>(1)?) else {
            return Ok(Value::Null);
        };
        let parsed = DateTime::strptime(strftime(&format), &value)
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map_err(|_| wrong(format!("{value:?} is no time of the form {format:?}")))?;
        Ok(Value::Text(shown(parsed.timestamp())))
    })?;
    scalar(connection, "date_diff", 3, |context| {
        let unit: String = context.get(0)?;
        let seconds = seconds_of(&unit)?;
        let (from, to) = (time(context.get_raw(1))?, time(context.get_raw(2))?);
        let between = from
            .zip(to)
            .map(|(from, to)| (to.as_second() - from.as_second()) / seconds);
        Ok(between.map_or(Value::Null, Value::Integer))
    })?;
    scalar(connection, "date_add", 3, |context| {
        let unit: String = context.get(0)?;
        let count: i64 = context.get(1)?;
        let span = count.saturating_mul(seconds_of(&unit)?);
        let moved = match time(context.get_raw(2))? {
            Some(time) => time
                .checked_add(span.seconds())
                .map_err(|_| wrong("the time is too far away"))?,
            None => return Ok(Value::Null),
        };
        Ok(Value::Text(shown(moved)))
    })
}

/// A point in time: Unix seconds, or a text like those that [`shown`] makes.
fn time(value: ValueRef<'_>) -> Result<Option<Timestamp>> {
    if matches!(value, ValueRef::Null) {
        return Ok(None);
    }
    let unreadable = || {
        wrong(format!(
            "{:?} is no point in time",
            text(value).unwrap_or_default()
        ))
    };
    if let Some(seconds) = number(value) {
        let duration =
            jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| unreadable())?;
        return Timestamp::from_duration(duration)
            .map(Some)
            .map_err(|_| unreadable());
    }
    let text = text(value).unwrap_or_default();
    let time = text
        .trim()
        .parse::<DateTime>()
        .and_then(|time| time.to_zoned(TimeZone::UTC));
    time.map(|time| Some(time.timestamp()))
        .map_err(|_| unreadable())
}

fn zoned(time: Timestamp) -> Zoned {
    time.to_zoned(TimeZone::UTC)
}

fn shown(time: Timestamp) -> String {
    let text = zoned(time).strftime("%Y-%m-%d %H:%M:%S").to_string();
    debug_assert_eq!(text.len(), SHORT_TIME);
    format!("{text}.{:03}", time.subsec_millisecond())
}

fn truncate(time: Timestamp, unit: &str) -> Result<Timestamp> {
    let zoned = zoned(time);
    let cut = match unit {
        "second" => zoned.round(
            jiff::ZonedRound::new()
                .smallest(Unit::Second)
                .mode(jiff::RoundMode::Trunc),
        ),
        "minute" => zoned.round(
            jiff::ZonedRound::new()
                .smallest(Unit::Minute)
                .mode(jiff::RoundMode::Trunc),
        ),
        "hour" => zoned.round(
            jiff::ZonedRound::new()
                .smallest(Unit::Hour)
                .mode(jiff::RoundMode::Trunc),
        ),
        "day" => zoned.start_of_day(),
        "week" => {
            let days = i64::from(zoned.weekday().to_monday_zero_offset());
            zoned
                .checked_sub(days.days())
                .and_then(|monday| monday.start_of_day())
        }
        "month" => zoned
            .first_of_month()
            .and_then(|first| first.start_of_day()),
        "year" => zoned.first_of_year().and_then(|first| first.start_of_day()),
        other => return Err(wrong(format!("{other:?} is no unit of time"))),
    };
    cut.map(|cut| cut.timestamp())
        .map_err(|error| wrong(error.to_string()))
}

fn part(time: Timestamp, unit: &str) -> Result<i64> {
    let zoned = zoned(time);
    Ok(match unit {
        "year" => zoned.year().into(),
        "month" => zoned.month().into(),
        "day" => zoned.day().into(),
        "hour" => zoned.hour().into(),
        "minute" => zoned.minute().into(),
        "second" => zoned.second().into(),
        "day_of_week" | "dow" => zoned.weekday().to_monday_one_offset().into(),
        "week" => zoned.date().iso_week_date().week().into(),
        other => return Err(wrong(format!("{other:?} is no unit of time"))),
    })
}

fn seconds_of(unit: &str) -> Result<i64> {
    Ok(match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 604_800,
        other => {
            return Err(wrong(format!(
                "{other:?} is no unit of time of a fixed length"
            )));
        }
    })
}

/// MySQL's letters, of which minutes, seconds and milliseconds differ from the usual ones.
fn strftime(format: &str) -> String {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('i') => out.push_str("%M"),
            Some('s') => out.push_str("%S"),
            Some('h' | 'I') => out.push_str("%I"),
            Some('M') => out.push_str("%B"),
            Some('W') => out.push_str("%A"),
            Some('T') => out.push_str("%H:%M:%S"),
            Some('c') => out.push_str("%-m"),
            Some('e') => out.push_str("%-d"),
            Some('k') => out.push_str("%-H"),
            Some(other) => out.extend(['%', other]),
            None => out.push_str("%%"),
        }
    }
    out
}

fn formatted(time: Timestamp, format: &str) -> Result<String> {
    let format = strftime(format);
    let zoned = zoned(time);
    let mut out = String::new();
    jiff::fmt::strtime::BrokenDownTime::from(&zoned)
        .format(&format, &mut out)
        .map_err(|_| wrong(format!("{format:?} is no form of a time")))?;
    Ok(out)
}

/// Presto's casts: what does not fit is an error.
fn cast(value: ValueRef<'_>, kind: &str) -> Result<Value> {
    let Some(shown_value) = text(value) else {
        return Ok(Value::Null);
    };
    let refuse = || {
        wrong(format!(
            "Cannot cast '{shown_value}' to {}",
            kind.to_uppercase()
        ))
    };
    let name = kind.split('(').next().unwrap_or(kind);
    match name {
        "bigint" | "integer" | "int" | "smallint" | "tinyint" => match value {
            ValueRef::Integer(number) => Ok(Value::Integer(number)),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be within bounds"
            )]
            ValueRef::Real(number) if number.abs() < 9.2e18 => {
                Ok(Value::Integer(number.round() as i64))
            }
            _ => shown_value
                .trim()
                .parse()
                .map(Value::Integer)
                .map_err(|_| refuse()),
        },
        "double" | "real" | "decimal" | "float" => {
            number(value).map(Value::Real).ok_or_else(refuse)
        }
        "varchar" | "char" | "json" => Ok(Value::Text(shown_value)),
        "boolean" => match shown_value.to_lowercase().as_str() {
            "true" | "t" | "1" => Ok(Value::Integer(1)),
            "false" | "f" | "0" => Ok(Value::Integer(0)),
            _ => Err(refuse()),
        },
        "timestamp" => time(value).map(|time| maybe(time.map(shown))),
        "date" => time(value).map(|time| maybe(time.map(|time| zoned(time).date().to_string()))),
        _ => Err(wrong(format!("the type {kind} is not known"))),
    }
}

//! Functions and methods: the standard ones and those Kubernetes adds for strings, lists, quantities and URLs.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use regex::Regex;

use super::eval::{Evaluated, NO_OVERLOAD};
use super::value::CelValue;
use crate::quantity::Quantity;

/// Patterns may take so many bytes when compiled.
const PATTERN_SIZE_LIMIT_BYTES: usize = 1 << 20;

fn no_overload<'v>() -> Evaluated<'v> {
    Err(NO_OVERLOAD.to_string())
}

/// The types that stand for themselves.
pub(super) fn type_named<'v>(name: &str) -> Option<CelValue<'v>> {
    const TYPES: [&str; 10] = [
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "bool",
        "list",
        "map",
        "null_type",
        "type",
    ];
    TYPES
        .iter()
        .find(|one| **one == name)
        .map(|one| CelValue::Type(one))
}

/// A map key.
pub(super) fn text_of(value: &CelValue<'_>) -> Result<String, String> {
    match value {
        CelValue::Text(text) => Ok(text.clone()),
        CelValue::Int(number) => Ok(number.to_string()),
        CelValue::Uint(number) => Ok(number.to_string()),
        CelValue::Bool(flag) => Ok(flag.to_string()),
        _ => Err(NO_OVERLOAD.to_string()),
    }
}

/// `name(arguments…)`
pub(super) fn call<'v>(name: &str, mut arguments: Vec<CelValue<'v>>) -> Evaluated<'v> {
    if name == "optional.none" && arguments.is_empty() {
        return Ok(CelValue::Optional(None));
    }
    let (Some(first), rest) = (arguments.pop(), arguments) else {
        return Err(format!("undeclared reference to '{name}'"));
    };
    if !rest.is_empty() {
        // A function of more arguments is a method of its first.
        let mut all = rest;
        all.push(first);
        let object = all.remove(0);
        return method(object, name, all);
    }
    match name {
        "size" | "matches" => method(first, name, Vec::new()),
        "type" => Ok(type_named(first.type_name()).unwrap_or(CelValue::Type(first.type_name()))),
        "dyn" => Ok(first),
        "optional.of" => Ok(CelValue::Optional(Some(Box::new(first)))),
        "int" => to_int(&first),
        "uint" => match to_int(&first)? {
            CelValue::Int(number) => u64::try_from(number)
                .map(CelValue::Uint)
                .map_err(|_| "unsigned integer overflow".to_string()),
            other => Ok(other),
        },
        "double" => match &first {
            CelValue::Text(text) => text
                .parse()
                .map(CelValue::Double)
                .map_err(|_| "type conversion error from 'string' to 'double'".to_string()),
            other => other
                .as_double()
                .map_or_else(no_overload, |number| Ok(CelValue::Double(number))),
        },
        "string" => to_string(first),
        "bytes" => match first {
            CelValue::Text(text) => Ok(CelValue::Bytes(text.into_bytes())),
            CelValue::Bytes(bytes) => Ok(CelValue::Bytes(bytes)),
            _ => no_overload(),
        },
        "bool" => match first {
            CelValue::Bool(flag) => Ok(CelValue::Bool(flag)),
            CelValue::Text(text) => text
                .parse()
                .map(CelValue::Bool)
                .map_err(|_| "type conversion error from 'string' to 'bool'".to_string()),
            _ => no_overload(),
        },
        _ => of_text(name, first),
    }
}

fn to_int<'v>(value: &CelValue<'v>) -> Evaluated<'v> {
    match value {
        CelValue::Int(number) => Ok(CelValue::Int(*number)),
        CelValue::Uint(number) => i64::try_from(*number)
            .map(CelValue::Int)
            .map_err(|_| "integer overflow".to_string()),
        CelValue::Double(number) if number.abs() < 9.2e18 => Ok(CelValue::Int(*number as i64)),
        CelValue::Text(text) => text
            .parse()
            .map(CelValue::Int)
            .map_err(|_| "type conversion error from 'string' to 'int'".to_string()),
        CelValue::Timestamp(moment) => Ok(CelValue::Int(moment.as_second())),
        _ => no_overload(),
    }
}

fn to_string(value: CelValue<'_>) -> Evaluated<'_> {
    match value {
        CelValue::Text(text) | CelValue::Url(text) => Ok(CelValue::Text(text)),
        CelValue::Double(number) => Ok(CelValue::Text(number.to_string())),
        CelValue::Quantity(quantity) => Ok(CelValue::Text(quantity.to_string())),
        CelValue::Bytes(bytes) => String::from_utf8(bytes)
            .map(CelValue::Text)
            .map_err(|_| "invalid UTF-8".to_string()),
        CelValue::Timestamp(moment) => Ok(CelValue::Text(moment.to_string())),
        other => text_of(&other).map(CelValue::Text),
    }
}

/// Functions that read a string.
fn of_text<'v>(name: &str, argument: CelValue<'v>) -> Evaluated<'v> {
    let CelValue::Text(text) = argument else {
        return match name {
            "timestamp" | "duration"
                if matches!(argument, CelValue::Timestamp(_) | CelValue::Duration(_)) =>
            {
                Ok(argument)
            }
            _ => Err(format!("undeclared reference to '{name}'")),
        };
    };
    match name {
        "isQuantity" => Ok(CelValue::Bool(Quantity::parse(&text).is_ok())),
        "quantity" => Quantity::parse(&text)
            .map(CelValue::Quantity)
            .map_err(|error| error.to_string()),
        "isURL" => Ok(CelValue::Bool(is_url(&text))),
        "url" if is_url(&text) => Ok(CelValue::Url(text)),
        "url" => Err(format!("parse {text:?}: invalid URI for request")),
        "isIP" => Ok(CelValue::Bool(text.parse::<std::net::IpAddr>().is_ok())),
        "isCIDR" => Ok(CelValue::Bool(is_cidr(&text))),
        "timestamp" => text
            .parse::<Timestamp>()
            .map(CelValue::Timestamp)
            .map_err(|_| format!("cannot parse {text:?} as a timestamp")),
        "duration" => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|span| i64::try_from(span.as_nanos()).ok())
            .map(CelValue::Duration)
            .ok_or_else(|| format!("cannot parse {text:?} as a duration")),
        _ => Err(format!("undeclared reference to '{name}'")),
    }
}

fn is_url(text: &str) -> bool {
    let absolute = text.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic()) && !rest.is_empty()
    });
    (absolute || text.starts_with('/')) && !text.contains([' ', '\n', '\t'])
}

fn is_cidr(text: &str) -> bool {
    match text.split_once('/') {
        Some((address, bits)) => {
            let most = if address.contains(':') { 128 } else { 32 };
            address.parse::<std::net::IpAddr>().is_ok()
                && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }
        None => false,
    }
}

/// `object.name(arguments…)`
pub(super) fn method<'v>(
    object: CelValue<'v>,
    name: &str,
    arguments: Vec<CelValue<'v>>,
) -> Evaluated<'v> {
    if name == "size"
        && let Some(size) = object.size()
    {
        return Ok(CelValue::Int(i64::try_from(size).unwrap_or(i64::MAX)));
    }
    match object {
        CelValue::Text(text) => of_string(&text, name, &arguments),
        CelValue::Optional(inner) => of_optional(inner, name, arguments),
        CelValue::Quantity(quantity) => of_quantity(quantity, name, &arguments),
        CelValue::Url(url) => of_url(&url, name),
        CelValue::Duration(nanos) => of_duration(nanos, name),
        other => match other.items() {
            Some(items) => of_list(items, name, &arguments),
            None => Err(format!("undeclared reference to '{name}'")),
        },
    }
}

fn of_string<'v>(text: &str, name: &str, arguments: &[CelValue<'v>]) -> Evaluated<'v> {
    let other = |index: usize| match arguments.get(index) {
        Some(CelValue::Text(text)) => Ok(text.as_str()),
        _ => Err(NO_OVERLOAD.to_string()),
    };
    let number = |index: usize| match arguments.get(index).and_then(CelValue::as_integer) {
        Some(number) => {
            usize::try_from(number).map_err(|_| format!("index out of range: {number}"))
        }
        None => Err(NO_OVERLOAD.to_string()),
    };
    let letters = || text.chars().collect::<Vec<char>>();
    let place = |found: Option<usize>| {
        CelValue::Int(found.map_or(-1, |at| text[..at].chars().count() as i64))
    };
    Ok(match name {
        "startsWith" => CelValue::Bool(text.starts_with(other(0)?)),
        "endsWith" => CelValue::Bool(text.ends_with(other(0)?)),
        "contains" => CelValue::Bool(text.contains(other(0)?)),
        "matches" => CelValue::Bool(pattern(other(0)?)?.is_match(text)),
        "find" => CelValue::Text(
            pattern(other(0)?)?
                .find(text)
                .map_or("", |found| found.as_str())
                .to_string(),
        ),
        "findAll" => CelValue::List(
            pattern(other(0)?)?
                .find_iter(text)
                .map(|found| CelValue::Text(found.as_str().to_string()))
                .collect(),
        ),
        "lowerAscii" => CelValue::Text(text.to_ascii_lowercase()),
        "upperAscii" => CelValue::Text(text.to_ascii_uppercase()),
        "trim" => CelValue::Text(text.trim().to_string()),
        "replace" => CelValue::Text(text.replace(other(0)?, other(1)?)),
        "split" => CelValue::List(
            text.split(other(0)?)
                .map(|part| CelValue::Text(part.to_string()))
                .collect(),
        ),
        "indexOf" => place(text.find(other(0)?)),
        "lastIndexOf" => place(text.rfind(other(0)?)),
        "charAt" => CelValue::Text(
            letters()
                .get(number(0)?)
                .map(char::to_string)
                .unwrap_or_default(),
        ),
        "substring" => {
            let letters = letters();
            let from = number(0)?;
            let to = if arguments.len() > 1 {
                number(1)?
            } else {
                letters.len()
            };
            let part = letters
                .get(from..to)
                .ok_or_else(|| format!("index out of range: {to}"))?;
            CelValue::Text(part.iter().collect())
        }
        _ => return Err(format!("undeclared reference to '{name}'")),
    })
}

fn pattern(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE_LIMIT_BYTES)
        .build()
        .map_err(|_| format!("error parsing regexp: `{text}`"))
}

fn of_optional<'v>(
    inner: Option<Box<CelValue<'v>>>,
    name: &str,
    mut arguments: Vec<CelValue<'v>>,
) -> Evaluated<'v> {
    match (name, inner) {
        ("hasValue", inner) => Ok(CelValue::Bool(inner.is_some())),
        ("value" | "orValue" | "or", Some(inner)) if name != "or" => Ok(*inner),
        ("value", None) => Err("optional.none() dereference".to_string()),
        ("orValue", None) => arguments.pop().map_or_else(no_overload, Ok),
        ("or", Some(inner)) => Ok(CelValue::Optional(Some(inner))),
        ("or", None) => arguments.pop().map_or_else(no_overload, Ok),
        _ => Err(format!("undeclared reference to '{name}'")),
    }
}

fn of_quantity<'v>(quantity: Quantity, name: &str, arguments: &[CelValue<'v>]) -> Evaluated<'v> {
    let order = || match arguments.first() {
        Some(CelValue::Quantity(other)) => Ok(quantity.cmp(other)),
        _ => Err(NO_OVERLOAD.to_string()),
    };
    Ok(match name {
        "isGreaterThan" => CelValue::Bool(order()? == Ordering::Greater),
        "isLessThan" => CelValue::Bool(order()? == Ordering::Less),
        "compareTo" => CelValue::Int(order()? as i64),
        "isInteger" => CelValue::Bool(quantity.is_integer()),
        "asInteger" if quantity.is_integer() => CelValue::Int(quantity.value()),
        "asInteger" => return Err("cannot convert value to integer".to_string()),
        "asApproximateFloat" => CelValue::Double(quantity.nanos() as f64 / 1e9),
        "sign" => CelValue::Int(quantity.nanos().signum() as i64),
        _ => return Err(format!("undeclared reference to '{name}'")),
    })
}

fn of_url<'v>(url: &str, name: &str) -> Evaluated<'v> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) if !scheme.is_empty() => rest.split_at(at),
        None if !scheme.is_empty() => (rest, ""),
        _ => ("", rest),
    };
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (hostname, port) = match host.rsplit_once(':') {
        Some((hostname, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (hostname, port)
        }
        _ => (host, ""),
    };
    let text = match name {
        "getScheme" => scheme,
        "getHost" => host,
        "getHostname" => hostname.trim_matches(['[', ']']),
        "getPort" => port,
        "getEscapedPath" => path.split(['?', '#']).next().unwrap_or_default(),
        _ => return Err(format!("undeclared reference to '{name}'")),
    };
    Ok(CelValue::Text(text.to_string()))
}

fn of_duration<'v>(nanos: i64, name: &str) -> Evaluated<'v> {
    let unit = match name {
        "getHours" => 3_600_000_000_000,
        "getMinutes" => 60_000_000_000,
        "getSeconds" => 1_000_000_000,
        "getMilliseconds" => 1_000_000,
        _ => return Err(format!("undeclared reference to '{name}'")),
    };
    Ok(CelValue::Int(nanos / unit))
}

fn of_list<'v>(items: Vec<CelValue<'v>>, name: &str, arguments: &[CelValue<'v>]) -> Evaluated<'v> {
    let extreme = |wanted: Ordering| -> Evaluated<'v> {
        let mut best: Option<&CelValue<'v>> = None;
        for item in &items {
            match best.map(|best| item.compare(best)) {
                None => best = Some(item),
                Some(Some(order)) if order == wanted => best = Some(item),
                Some(Some(_)) => {}
                Some(None) => return no_overload(),
            }
        }
        best.cloned()
            .ok_or_else(|| format!("{name} called on empty list"))
    };
    let place = |found: Option<usize>| {
        CelValue::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
    };
    Ok(match (name, arguments.first()) {
        ("isSorted", _) => CelValue::Bool(items.windows(2).all(|pair| {
            matches!(
                pair[0].compare(&pair[1]),
                Some(Ordering::Less | Ordering::Equal)
            )
        })),
        ("min", _) => return extreme(Ordering::Less),
        ("max", _) => return extreme(Ordering::Greater),
        ("sum", _) => {
            let integers: Option<Vec<i128>> = items.iter().map(CelValue::as_integer).collect();
            match integers {
                Some(integers) => i64::try_from(integers.iter().sum::<i128>())
                    .map(CelValue::Int)
                    .map_err(|_| "integer overflow")?,
                None => CelValue::Double(items.iter().filter_map(CelValue::as_double).sum()),
            }
        }
        ("join", separator) => {
            let parts: Result<Vec<String>, _> = items.iter().map(text_of).collect();
            let separator = separator.map_or(Ok(String::new()), text_of)?;
            CelValue::Text(parts?.join(&separator))
        }
        ("indexOf", Some(wanted)) => place(items.iter().position(|item| item.equals(wanted))),
        ("lastIndexOf", Some(wanted)) => place(items.iter().rposition(|item| item.equals(wanted))),
        ("distinct", _) => {
            let mut unique: Vec<CelValue<'v>> = Vec::new();
            for item in items {
                if !unique.iter().any(|one| one.equals(&item)) {
                    unique.push(item);
                }
            }
            CelValue::List(unique)
        }
        _ => return Err(format!("undeclared reference to '{name}'")),
    })
}

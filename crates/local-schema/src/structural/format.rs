//! The string formats upstream checks; unknown ones have no effect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a text is of a format.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => is_date(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<std::net::IpAddr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "email" => is_email(text),
        "uri" => is_uri(text),
        "hostname" => is_hostname(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "byte" => STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok(),
        "duration" => is_duration(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "hexcolor" => is_hex_color(text),
        "creditcard" | "isbn" | "isbn10" | "isbn13" | "ssn" | "rgbcolor" | "password" => true,
        _ => true,
    }
}

fn is_date_time(text: &str) -> bool {
    let has_zone = text.ends_with(['Z', 'z'])
        || text
            .get(text.len().saturating_sub(6)..)
            .is_some_and(|zone| zone.starts_with(['+', '-']));
    has_zone
        && text
            .as_bytes()
            .get(10)
            .is_some_and(|byte| matches!(byte, b'T' | b't'))
        && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_email(text: &str) -> bool {
    match text.rsplit_once('@') {
        Some((local, domain)) => {
            !local.is_empty()
                && !local.contains([' ', '<', '>', '(', ')', ',', ';', ':', '[', ']'])
                && !domain.is_empty()
                && !domain.contains([' ', '<', '>'])
        }
        None => false,
    }
}

/// An absolute URI or an absolute path, as Go's `ParseRequestURI` takes it.
fn is_uri(text: &str) -> bool {
    if text.starts_with('/') {
        return !text.contains([' ', '\n']);
    }
    match text.split_once(':') {
        Some((scheme, rest)) => {
            scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
                && !rest.contains([' ', '\n'])
        }
        None => false,
    }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .chars()
                .all(|letter| letter.is_alphanumeric() || letter == '-' || letter == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

fn is_uuid(format: &str, text: &str) -> bool {
    let compact = text.replace('-', "");
    let version = format.strip_prefix("uuid").unwrap_or_default();
    compact.len() == 32
        && compact.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (version.is_empty() || compact[12..13] == *version)
}

/// Go's durations, and numbers with the long names of units.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 24] = [
        "ns",
        "us",
        "µs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micros",
        "microseconds",
        "millis",
        "milliseconds",
        "sec",
        "secs",
        "second",
        "seconds",
        "minute",
        "minutes",
        "hour",
        "hours",
    ];
    let mut rest = text.trim().strip_prefix(['-', '+']).unwrap_or(text.trim());
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|letter: char| !letter.is_alphabetic())
            .unwrap_or(rest.len());
        if !UNITS.contains(&rest[..letters].to_lowercase().as_str()) {
            return false;
        }
        rest = rest[letters..].trim_start();
    }
    true
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_tell_good_from_bad() {
        for (format, good, bad) in [
            ("date-time", "2025-01-01T00:00:00Z", "yesterday"),
            ("date", "2025-12-01", "2025-13-01"),
            ("ipv4", "10.0.0.1", "999.1.1.1"),
            ("email", "a@b.c", "x"),
            ("uri", "http://x/y", "::"),
            ("uuid", "154ecddb-e431-4f29-981f-7f2aa48f7979", "x"),
            ("byte", "YQ==", "***"),
            ("duration", "1h30m", "x"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("hostname", "a.example", "-a"),
        ] {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
        assert!(fits("florp", "anything"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            for format in ["date-time", "date", "uri", "uuid4", "duration", "email", "mac", "hostname", "hexcolor", "byte"] {
                let _ = fits(format, &text);
            }
        }
    }
}

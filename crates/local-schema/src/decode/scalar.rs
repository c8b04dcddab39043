//! Canonical forms of strings that mean something: bytes, times, durations, quantities.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;

use crate::quantity::Quantity;
use crate::types::Scalar;

const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// The text as Go would print it again, or Go's complaint.
pub(super) fn canonical(text: &str, scalar: Scalar) -> Result<String, String> {
    match scalar {
        Scalar::Bytes => bytes(text),
        Scalar::Time => time(text).map(|moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Scalar::MicroTime => {
            time(text).map(|moment| moment.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
        }
        Scalar::Quantity => Quantity::parse(text.trim_matches([' ', '\t']))
            .map(|quantity| quantity.to_string())
            .map_err(|error| error.to_string()),
        _ => Ok(text.to_string()),
    }
}

fn bytes(text: &str) -> Result<String, String> {
    let stripped: String;
    let compact = if text.contains(['\r', '\n']) {
        stripped = text.replace(['\r', '\n'], "");
        &stripped
    } else {
        text
    };
    match STANDARD.decode(compact) {
        Ok(_) => Ok(compact.to_string()),
        Err(error) => {
            use base64::DecodeError;
            let offset = match error {
                DecodeError::InvalidByte(offset, _) | DecodeError::InvalidLastSymbol(offset, _) => {
                    offset
                }
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => compact.len(),
            };
            Err(format!("illegal base64 data at input byte {offset}"))
        }
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    if let Some(position) = mismatch(text) {
        return Err(refuse(text, position));
    }
    PARSER
        .parse_timestamp(text)
        .map_err(|_| format!("parsing time {text:?}: day out of range"))
}

/// The layout of RFC 3339 as Go names its parts, with the number of digits of each.
const LAYOUT: [(&str, usize); 11] = [
    ("2006", 4),
    ("-", 0),
    ("01", 2),
    ("-", 0),
    ("02", 2),
    ("T", 0),
    ("15", 2),
    (":", 0),
    ("04", 2),
    (":", 0),
    ("05", 2),
];

/// Where a text leaves the layout: byte offset and the part that was expected there.
fn mismatch(text: &str) -> Option<(usize, &'static str)> {
    let mut at = 0;
    for (part, digits) in LAYOUT {
        let rest = &text.as_bytes()[at..];
        let fits = match digits {
            0 => rest.starts_with(part.as_bytes()),
            count => rest.len() >= count && rest[..count].iter().all(u8::is_ascii_digit),
        };
        if !fits {
            return Some((at, part));
        }
        at += part.len();
    }
    let mut rest = &text.as_bytes()[at..];
    if rest.first() == Some(&b'.') && rest.get(1).is_some_and(u8::is_ascii_digit) {
        let digits = rest[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        at += 1 + digits;
        rest = &rest[1 + digits..];
    }
    let zone = rest == b"Z"
        || (rest.len() == 6
            && matches!(rest[0], b'+' | b'-')
            && rest[3] == b':'
            && [1, 2, 4, 5]
                .iter()
                .all(|index| rest[*index].is_ascii_digit()));
    if zone { None } else { Some((at, "Z07:00")) }
}

fn refuse(text: &str, (at, part): (usize, &str)) -> String {
    let rest = text.get(at..).unwrap_or_default();
    format!(
        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {part:?}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(
            canonical("2026-01-02T03:04:05.123456789Z", Scalar::MicroTime).unwrap(),
            "2026-01-02T03:04:05.123456Z"
        );
        assert_eq!(
            canonical("2026-01-02T03:04:05+02:00", Scalar::Time).unwrap(),
            "2026-01-02T01:04:05Z"
        );
    }

    #[test]
    fn a_text_that_is_no_time_is_refused_in_gos_words() {
        assert_eq!(
            canonical("x", Scalar::Time).unwrap_err(),
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""
        );
        assert!(canonical("2026-13-41T00:00:00Z", Scalar::Time).is_err());
    }

    #[test]
    fn bad_base64_names_its_offset() {
        assert_eq!(
            canonical("!!", Scalar::Bytes).unwrap_err(),
            "illegal base64 data at input byte 0"
        );
        assert_eq!(canonical("YQ==", Scalar::Bytes).unwrap(), "YQ==");
        assert_eq!(
            canonical("v", Scalar::Bytes).unwrap_err(),
            "illegal base64 data at input byte 1"
        );
    }
}

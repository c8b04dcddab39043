//! Percent-encoding as both signatures want it, and the reading of query strings and form bodies.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Most parameters that one request may carry; real ones hold a few hundred.
pub const MAX_PARAMETERS: usize = 20_000;

/// Why a query string or a form body cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodingError {
    /// A percent sign without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("parameter {position} is not percent-encoded UTF-8")]
    Malformed {
        /// The parameter's place, counted from 1.
        position: usize,
    },
    /// More parameters than [`MAX_PARAMETERS`].
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooMany,
}

/// Encodes a text so that only `A-Za-z0-9-_.~` stay bare.
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Joins pairs to `name=value&…`, both sides percent-encoded, in the order given.
pub fn encode_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.extend(utf8_percent_encode(name, RESERVED));
        text.push('=');
        text.extend(utf8_percent_encode(value, RESERVED));
    }
    text
}

/// Sorts by name, then value, and joins: the canonical query of both signatures.
pub fn canonical_query(pairs: &[(String, String)]) -> String {
    let mut sorted: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    sorted.sort_unstable();
    encode_pairs(sorted)
}

/// Reads a query string or form body: `+` and `%20` are spaces, a name without `=` has an empty value.
pub fn parse_form(text: &str) -> Result<Vec<(String, String)>, EncodingError> {
    let mut pairs = Vec::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        if pairs.len() == MAX_PARAMETERS {
            return Err(EncodingError::TooMany);
        }
        let malformed = EncodingError::Malformed {
            position: pairs.len() + 1,
        };
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match (decode(name), decode(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => return Err(malformed),
        }
    }
    Ok(pairs)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plus_and_percent_are_spaces_and_bare_marks_are_kept() {
        let pairs = parse_form("a=x+y%20z&b=!'()*&c&&d=").unwrap();
        let expected = [("a", "x y z"), ("b", "!'()*"), ("c", ""), ("d", "")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn broken_escapes_are_refused_with_their_place() {
        for text in ["a=1&b=%4", "a=1&b=%zz", "a=1&b=%ff"] {
            assert_eq!(
                parse_form(text),
                Err(EncodingError::Malformed { position: 2 }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        assert_eq!(
            parse_form(&"a=1&".repeat(MAX_PARAMETERS + 1)),
            Err(EncodingError::TooMany)
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(pairs in proptest::collection::vec((".{1,20}", ".{0,40}"), 0..20)) {
            let text = encode_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert_eq!(parse_form(&text).unwrap(), pairs);
        }

        #[test]
        fn reading_never_panics(text in ".{0,200}") {
            let _ = parse_form(&text);
        }
    }
}
